// Upload: pictures that are not in an archive: what they show, how well sentences fit, and their numbers to take away.

import { api } from "../api.js";
import { button, fill, h, icon } from "../dom.js";
import { empty, notice, toast, waiting } from "../notices.js";
import { number, percent, t } from "../words.js";
import { meter } from "./live.js";

const WAYS = ["bank", "labels", "sentences"];
const lines = (text) => text.split(/[\n;；]/).map((one) => one.trim()).filter(Boolean);

export async function show(main, { state }) {
  if (!state.model) return void fill(main, empty("upload", t("upload.no_model_title"), t("upload.no_model"), "overflight serve ARCHIVE --bundle BUNDLE"));
  new Upload(main, state);
}

class Upload {
  constructor(main, state) {
    this.state = state;
    this.files = [];
    this.way = state.banks?.length ? "bank" : "labels";
    this.build(main);
  }

  build(main) {
    this.picker = h("input", { type: "file", multiple: true, accept: "image/*,.tif,.tiff", class: "unseen", id: "pictures", "aria-label": t("upload.choose"), tabindex: -1, onchange: () => this.take(this.picker.files) });
    this.names = h("div", { class: "row chips" });
    this.drop = h("div", { class: "drop" }, icon("upload"), h("p", { class: "drop-title" }, t("upload.drop")), h("p", { class: "soft small" }, t("upload.drop_hint")),
      button(t("upload.choose"), { kind: "main", onclick: () => this.picker.click() }), this.picker);
    for (const name of ["dragover", "dragleave", "drop"]) this.drop.addEventListener(name, (event) => {
      event.preventDefault();
      this.drop.classList.toggle("over", name === "dragover");
      if (name === "drop") this.take(event.dataTransfer.files);
    });
    this.question = h("div");
    this.ways = h("div", { class: "segments", role: "group", "aria-label": t("upload.way") }, WAYS.map((way) =>
      h("button", { type: "button", "data-way": way, "aria-pressed": String(way === this.way), onclick: () => { this.way = way; this.ask(); } }, t(`upload.way_${way}`))));
    this.go = button(t("upload.go"), { kind: "main", id: "classify", disabled: true, onclick: () => this.run() });
    this.npz = button("NPZ", { symbol: "download", id: "features-npz", disabled: true, onclick: () => this.features("npz") });
    this.json = button("JSON", { symbol: "download", id: "features-json", disabled: true, onclick: () => this.features("json") });
    this.results = h("div", { class: "upload-results", "aria-live": "polite" });
    fill(main, h("div", { class: "head" }, h("div", null, h("h1", null, t("upload.title")), h("p", { class: "lead" }, t("upload.lead")))),
      h("div", { class: "upload-view" }, this.drop,
        h("div", { class: "stack" }, this.ways, this.question, this.names, h("div", { class: "row" }, this.go),
          h("div", null, h("h2", null, t("upload.features")), h("p", { class: "soft small" }, t("upload.features_text")), h("div", { class: "row" }, this.npz, this.json)))),
      this.results);
    this.ask();
  }

  ask() {
    for (const one of this.ways.children) one.setAttribute("aria-pressed", String(one.dataset.way === this.way));
    const banks = this.state.banks ?? [];
    if (this.way === "bank") {
      this.input = h("select", { id: "bank" }, banks.map(({ id, name, labels }) => h("option", { value: id }, t("upload.bank_option", { name, count: labels.length }))));
      const unread = this.state.banks_unread ?? [];
      fill(this.question, h("label", null, h("span", { class: "label" }, t("upload.bank")), this.input),
        unread.length ? h("div", { class: "soft small" }, t("upload.banks_unread"), h("ul", { class: "plain" }, unread.map((text) => h("li", null, text)))) : null);
    } else {
      this.input = h("textarea", { id: "texts", rows: 4, placeholder: t(`upload.${this.way}_hint`) });
      fill(this.question, h("label", null, h("span", { class: "label" }, t(`upload.${this.way}_label`)), this.input));
    }
  }

  take(files) {
    this.files.push(...files);
    this.picker.value = "";
    this.drawNames();
  }

  drawNames() {
    fill(this.names, this.files.map((file) => h("span", { class: "chip" }, h("span", null, file.name),
      button(t("search.remove", { term: file.name }), { only: true, symbol: "close", kind: "quiet", onclick: () => { this.files.splice(this.files.indexOf(file), 1); this.drawNames(); } }))));
    for (const one of [this.go, this.npz, this.json]) one.disabled = !this.files.length;
  }

  asked() {
    return this.way === "bank" ? { bank: this.input.value } : { [this.way]: lines(this.input.value) };
  }

  async run() {
    const asked = this.asked();
    if (this.way !== "bank" && !asked[this.way].length) return toast(t("upload.type_first"));
    this.go.disabled = true;
    fill(this.results);
    for (const file of this.files) {
      const card = h("article", { class: "upload-card" }, h("div", { class: "upload-picture" }, preview(file)), h("div", null, h("h2", null, file.name), waiting(t("upload.working"))));
      this.results.append(card);
      try {
        const answer = await api.classify(file, asked);
        fill(card.lastChild, h("h2", null, file.name), described(answer, this.way));
      } catch (error) {
        fill(card.lastChild, h("h2", null, file.name), notice(error.message, "bad"));
      }
    }
    this.go.disabled = false;
  }

  async features(format) {
    try { await api.features(this.files, format); } catch (error) { toast(error.message); }
  }
}

// The browser cannot show a TIFF; the answer says what was read from it.
function preview(file) {
  if (/tiff?$/i.test(file.name)) return h("span", { class: "no-picture" }, icon("picture"), "TIFF");
  const address = URL.createObjectURL(file);
  const picture = h("img", { src: address, alt: "" });
  const release = () => URL.revokeObjectURL(address);
  picture.addEventListener("load", release, { once: true });
  picture.addEventListener("error", () => { release(); picture.replaceWith(h("span", { class: "no-picture" }, icon("picture"))); }, { once: true });
  return picture;
}

function described(answer, way) {
  const size = answer.width ? t("upload.size", { width: answer.width, height: answer.height }) : "";
  const tiled = answer.tiles > 1 ? t("upload.tiled", { count: answer.tiles }) : "";
  const scores = answer.scores.slice(0, 8).map(({ label, score }) => h("li", null, h("span", null, label), meter(way === "sentences" ? (score + 1) / 2 : score),
    h("span", { class: "soft" }, way === "sentences" ? number(score, 3) : percent(score))));
  return [h("p", { class: "soft small" }, [size, tiled].filter(Boolean).join(" · ")),
    way === "sentences" ? null : h("p", { class: "upload-label" }, answer.label ?? t("label.unknown")),
    h("ul", { class: "plain scores" }, scores)];
}
