"use strict";
// A click on a picture shows it large; a second click, or Escape, closes it.
const dialog = document.createElement("dialog");
const large = document.createElement("img");
dialog.append(large);
document.body.append(dialog);
dialog.addEventListener("click", () => dialog.close());
for (const image of document.querySelectorAll("figure img")) {
  image.tabIndex = 0;
  image.style.cursor = "zoom-in";
  const show = () => { large.src = image.src; large.alt = image.alt; dialog.showModal(); };
  image.addEventListener("click", show);
  image.addEventListener("keydown", (event) => { if (event.key === "Enter") show(); });
}
