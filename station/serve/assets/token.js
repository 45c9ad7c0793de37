// Asks for the station's token once; the station keeps it in a cookie that scripts cannot read.

import { button, h } from "./dom.js";
import { dialog, toast } from "./notices.js";
import { t } from "./words.js";

let asking = null;

export function askToken() {
  asking ??= open().finally(() => { asking = null; });
  return asking;
}

function open() {
  const field = h("input", { type: "password", required: true, id: "token", autocomplete: "off", autofocus: true });
  const form = h("form", { class: "stack" }, h("label", null, h("span", { class: "label" }, t("token.field")), field), button(t("token.enter"), { kind: "main", type: "submit" }));
  return new Promise((done) => {
    const { element, close } = dialog(t("token.title"), [h("p", { class: "soft" }, t("token.text")), form]);
    let entered = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const answer = await fetch("/api/session", {
        method: "POST", body: JSON.stringify({ token: field.value.trim() }), headers: { "Content-Type": "application/json", "X-Overflight": "page" },
      });
      if (answer.ok) { entered = true; close(); } else toast((await answer.json().catch(() => ({}))).error ?? t("error.status", { status: answer.status }));
    });
    element.addEventListener("close", () => done(entered));
  });
}
