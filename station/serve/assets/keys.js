// Keys of the view that is open, and their list on "?".

import { h } from "./dom.js";
import { dialog } from "./notices.js";
import { t } from "./words.js";

let bound = [];

// Each binding is { keys: ["j", "ArrowDown"], text, run }.
export function bindKeys(bindings) {
  bound = bindings;
}

export function keyHelp() {
  const always = [{ keys: ["?"], text: t("keys.help") }, { keys: ["Esc"], text: t("keys.escape") }];
  const rows = [...bound, ...always].flatMap(({ keys, text }) => [
    h("dt", null, keys.map((key, at) => [at ? " " : null, h("kbd", null, key.replace("Arrow", ""))])), h("dd", null, text),
  ]);
  dialog(t("keys.title"), [h("p", { class: "soft" }, t("keys.lead")), h("dl", { class: "keys" }, rows)]);
}

const writes = (element) => element.matches?.("input:not([type=checkbox], [type=radio], [type=range]), textarea, select");

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || writes(event.target)) return;
  if (document.querySelector("dialog[open]:not([data-keys])")) return;
  if (event.key === "?") { event.preventDefault(); keyHelp(); return; }
  const found = bound.find(({ keys }) => keys.includes(event.key));
  if (!found) return;
  event.preventDefault();
  found.run(event);
});
