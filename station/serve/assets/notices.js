// What the page says when something is missing, fails or is done.

import { button, h, icon } from "./dom.js";
import { t } from "./words.js";

export function empty(symbol, title, text, command) {
  return h("div", { class: "empty" }, icon(symbol), h("h2", null, title), text && h("p", null, text), command && h("code", null, command));
}

export function notice(text, kind = "") {
  return h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" }, h("p", null, text));
}

export function problem(error, again) {
  const box = notice(error.message, "bad");
  if (again) box.append(button(t("notice.again"), { kind: "tiny", onclick: again }));
  return box;
}

export const waiting = (text) => h("p", { class: "wait", role: "status" }, text);

let shown = null;
export function toast(text) {
  shown?.remove();
  shown = h("div", { class: "toast", role: "status" }, text);
  document.body.append(shown);
  const mine = shown;
  setTimeout(() => mine.remove(), 4000);
}

export function announce(text) {
  document.getElementById("announce").textContent = text;
}

// A dialog that closes on Escape, on its button and on a click outside. Returns it with a function that closes it.
export function dialog(title, content, { wide = false } = {}) {
  const element = h("dialog", { class: wide ? "wide" : "", "aria-label": title });
  const close = () => element.close();
  element.append(h("div", { class: "inside" },
    h("div", { class: "row apart" }, h("h2", null, title), button(t("notice.close"), { symbol: "close", only: true, kind: "quiet round", onclick: close })),
    content));
  element.addEventListener("close", () => element.remove());
  element.addEventListener("click", (event) => { if (event.target === element) close(); });
  document.body.append(element);
  element.showModal();
  return { element, close };
}
