// Who reviews: asked once on this device, and kept.

import { button, h } from "./dom.js";
import { dialog } from "./notices.js";
import { t } from "./words.js";

export const reviewer = {
  name: localStorage.getItem("reviewer") ?? "",

  // Returns the name, asking where there is none (or where it shall change); "" where the question was closed.
  async ask(again = false) {
    if (this.name && !again) return this.name;
    const field = h("input", { value: this.name, maxlength: 64, required: true, id: "reviewer-name", autocomplete: "name", autofocus: true });
    const form = h("form", { class: "stack" }, h("label", null, h("span", { class: "label" }, t("reviewer.name")), field),
      button(t("reviewer.save"), { kind: "main", type: "submit" }));
    return new Promise((done) => {
      const { element, close } = dialog(t("reviewer.title"), [h("p", { class: "soft" }, t("reviewer.why")), form]);
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.name = field.value.trim();
        localStorage.setItem("reviewer", this.name);
        close();
      });
      element.addEventListener("close", () => done(this.name));
    });
  },
};
