// Teach a label: choose examples, see how good the label is, set its threshold, keep it, and send it to an aircraft.

import { api } from "../api.js";
import { curve, histogram } from "../chart.js";
import { choices } from "../choices.js";
import { openPicture } from "../detail.js";
import { button, fill, h, icon } from "../dom.js";
import { announce, empty, notice, problem, toast, waiting } from "../notices.js";
import { describe, image, wall } from "../pictures.js";
import { number, percent, t } from "../words.js";

const ENOUGH = 10;

export async function show(main, { state }) {
  if (!state.archive?.flights) return void fill(main, empty("teach", t("teach.empty_title"), t("search.empty"), "overflight archive add ARCHIVE FLIGHT"));
  const view = new Teach(main, state);
  return () => view.close();
}

class Teach {
  constructor(main, state) {
    this.state = state;
    this.turn = 0;
    this.build(main);
    this.changed = () => { this.drawChoices(); this.syncWall(); this.fitSoon(); };
    choices.listeners.add(this.changed);
    this.drawChoices();
    this.fit();
  }

  build(main) {
    this.trays = h("div", { class: "trays" });
    this.meterBox = h("div", { class: "teach-progress" });
    this.field = h("input", { type: "search", placeholder: t("teach.find_hint"), "aria-label": t("search.field"), id: "teach-query", enterkeyhint: "search" });
    this.found = h("div", { class: "teach-found" });
    const form = h("form", { class: "search-line", role: "search" }, icon("search"), this.field, button(t("search.go"), { kind: "main", type: "submit" }));
    form.addEventListener("submit", (event) => { event.preventDefault(); this.search(); });
    this.result = h("section", { class: "teach-result", "aria-live": "polite" });
    fill(main, h("div", { class: "head" }, h("div", null, h("h1", null, t("teach.title")), h("p", { class: "lead" }, t("teach.lead")))),
      this.meterBox, this.trays, this.result,
      h("section", { class: "teach-search" }, h("h2", null, t("teach.find")), form, this.found));
  }

  drawChoices() {
    const tray = (kind) => h("section", { class: `tray-box ${kind}`, "aria-label": t(`teach.${kind}`) },
      h("h2", null, icon(kind === "more" ? "plus" : "minus"), t(`teach.${kind}`), h("span", { class: "soft" }, String(choices.kept[kind].length))),
      choices.kept[kind].length ? h("div", { class: "thumbs" }, choices.kept[kind].map((hit) => h("button", {
        type: "button", class: "thumb", "aria-label": t("teach.take_back", { name: describe(hit) }), title: t("teach.take_back", { name: describe(hit) }), onclick: () => choices.toggle(kind, hit),
      }, image(hit, 168, "")))) : h("p", { class: "soft small" }, t(`teach.${kind}_none`)));
    fill(this.trays, tray("more"), tray("less"));
    const bar = h("i");
    bar.style.width = `${Math.min(100, (100 * choices.count) / ENOUGH)}%`;
    fill(this.meterBox, h("span", { class: "meter wide", "aria-hidden": "true" }, bar),
      h("span", null, choices.count < ENOUGH ? t("teach.left", { count: ENOUGH - choices.count }) : t("teach.progress", { count: choices.count })),
      choices.count ? button(t("teach.clear"), { kind: "quiet tiny", onclick: () => choices.clear() }) : null);
  }

  async search() {
    const text = this.field.value.trim();
    if (!text) return;
    const mine = this.asked = {};
    fill(this.found, waiting(t("search.searching")));
    try {
      const found = await api.search({ texts: [text], not: [], like: [], filters: {}, page: 1, most: 36, rank: true });
      if (mine !== this.asked) return;
      const actions = ["more", "less"].map((kind) => ({
        label: t(`teach.${kind}`), symbol: kind === "more" ? "plus" : "minus", pressed: (hit) => choices.has(kind, hit.row), run: (hit) => choices.toggle(kind, hit),
      }));
      fill(this.found, found.hits.length ? wall(found.hits, { open: openPicture, actions }) : h("p", { class: "soft" }, t("search.not_found")));
    } catch (error) { if (mine === this.asked) fill(this.found, problem(error, () => this.search())); }
  }

  syncWall() {
    for (const figure of this.found.querySelectorAll(".card")) {
      const buttons = figure.querySelectorAll(".card-actions button");
      ["more", "less"].forEach((kind, at) => buttons[at]?.setAttribute("aria-pressed", String(choices.has(kind, Number(figure.dataset.row)))));
    }
  }

  fitSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fit(), 400);
  }

  async fit() {
    const mine = ++this.turn;
    if (choices.count < ENOUGH) return void fill(this.result);
    if (!this.fitted) fill(this.result, waiting(t("teach.fitting")));
    try {
      const fitted = await api.teach({ ...choices.rows });
      if (mine === this.turn) this.draw(fitted);
    } catch (error) {
      if (mine === this.turn) { this.fitted = null; fill(this.result, problem(error, () => this.fit())); }
    }
  }

  draw(fitted) {
    this.fitted = fitted;
    this.threshold ??= fitted.threshold;
    const lines = [{ name: t("teach.auroc"), kind: "one", points: fitted.curve.map(({ examples, auroc, spread }) => [examples, auroc, spread]) }];
    const quality = { auroc: percent(fitted.auroc), recall: percent(fitted.recall), precision: percent(fitted.precision), low: percent(fitted.precision_low), high: percent(fitted.precision_high) };
    fill(this.result,
      h("div", { class: "teach-quality" },
        h("div", null, h("h2", null, t("teach.how_good")), h("p", { class: "teach-figure" }, quality.precision), h("p", null, t("teach.quality", quality)), h("p", null, t("teach.ranking", quality)),
          fitted.note ? h("p", { class: "soft small" }, fitted.note) : null, h("p", { class: "soft small" }, t("teach.honest"))),
        fitted.curve.length > 1 ? curve(lines, { title: t("teach.curve"), along: t("teach.curve_axis") }) : null),
      this.thresholdBox(fitted),
      h("div", null, h("h2", null, t("teach.preview")), this.preview = h("div")),
      this.saveBox());
    this.drawPreview();
    announce(t("teach.ready"));
  }

  thresholdBox(fitted) {
    const { edges, counts } = fitted.histogram;
    const [least, most] = [edges[0], edges[edges.length - 1]];
    const chart = histogram({ edges, counts, threshold: this.threshold, title: t("teach.histogram") });
    const readout = h("p", { class: "teach-alarms", role: "status" });
    const slider = h("input", { type: "range", id: "threshold", min: least, max: most, step: (most - least) / 200 || 0.001, value: this.threshold, "aria-label": t("teach.threshold") });
    const tell = () => {
      const passed = passedAt(fitted, this.threshold);
      fill(readout, h("b", null, number(this.threshold, 2)), " ", t("teach.passed", { count: passed.count, share: percent(passed.share, 1) }), " ",
        passed.perHour === null ? t("teach.no_hours") : t("teach.alarms", { rate: number(passed.perHour, 1) }));
    };
    slider.addEventListener("input", () => { this.threshold = Number(slider.value); chart.move(this.threshold); tell(); this.previewSoon(); });
    tell();
    return h("div", { class: "teach-threshold" }, h("h2", null, t("teach.threshold")), h("p", { class: "soft small" }, t("teach.threshold_text")), chart.element, slider, readout);
  }

  previewSoon() {
    clearTimeout(this.previewTimer);
    this.previewTimer = setTimeout(() => this.drawPreview(), 250);
  }

  drawPreview() {
    const hits = this.fitted.preview.filter((hit) => hit.score >= this.threshold).slice(0, 12);
    const actions = ["more", "less"].map((kind) => ({
      label: t(`teach.${kind}`), symbol: kind === "more" ? "plus" : "minus", pressed: (hit) => choices.has(kind, hit.row), run: (hit) => choices.toggle(kind, hit),
    }));
    fill(this.preview, hits.length ? wall(hits, { open: openPicture, actions }) : h("p", { class: "soft" }, t("teach.preview_none")));
  }

  saveBox() {
    this.name = h("input", { id: "label-name", maxlength: 64, required: true, value: this.name?.value ?? "", placeholder: t("teach.name_hint") });
    const save = button(t("teach.save"), { kind: "main", type: "submit", id: "save-label" });
    this.saved = h("div", { class: "stack", "aria-live": "polite" });
    const form = h("form", { class: "teach-save" }, h("label", null, h("span", { class: "label" }, t("teach.name")), this.name), save);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      save.disabled = true;
      try {
        const bank = await api.saveLabel({ name: this.name.value.trim(), threshold: this.threshold, ...choices.rows });
        this.drawSend(bank);
      } catch (error) { fill(this.saved, notice(error.message, "bad")); }
      save.disabled = false;
    });
    return h("div", null, h("h2", null, t("teach.keep")), h("p", { class: "soft small" }, t("teach.keep_text")), form, this.saved);
  }

  drawSend(bank) {
    const answer = h("div", { class: "stack", "aria-live": "polite" });
    const aircraft = this.state.aircraft ?? [];
    const signature = h("input", { type: "file", id: "signature", accept: ".minisig,.sig" });
    // Also where only the aircraft trusts keys: its refusal then says that it wants a signature.
    this.signing = h("div", { class: "notice warn", hidden: !bank.wants_signature }, h("div", null, h("p", null, t("teach.sign")), h("code", null, bank.sign), h("label", null, h("span", { class: "label" }, t("teach.signature")), signature)));
    const send = (one) => button(t("teach.send_to", { name: one.name }), { symbol: "send", kind: "main", "data-send": one.id, onclick: () => this.send(bank, one, signature, answer) });
    fill(this.saved, notice(t("teach.saved", { name: bank.name, count: bank.labels.length })),
      h("div", { class: "row" }, h("a", { class: "button", href: bank.address, download: true }, icon("download"), h("span", null, t("teach.download"))), aircraft.map(send)),
      aircraft.length ? null : h("p", { class: "soft small" }, t("teach.no_aircraft")),
      this.signing, answer);
  }

  async send(bank, aircraft, signature, answer) {
    fill(answer, waiting(t("teach.sending", { name: aircraft.name })));
    try {
      const state = await api.sendBank(aircraft.id, bank, await signature.files[0]?.text());
      if (state.error) this.signing.hidden = false;
      fill(answer, state.error ? notice(t("teach.refused", { name: aircraft.name, reason: state.error }), "bad")
        : h("div", { class: "notice", role: "status", "data-bank": state.bank }, h("p", null, t("teach.flies", { name: aircraft.name, bank: state.name, hash: state.bank }))));
    } catch (error) { fill(answer, notice(error.message, "bad")); }
  }

  close() {
    choices.listeners.delete(this.changed);
    clearTimeout(this.timer);
    clearTimeout(this.previewTimer);
    this.turn += 1;
  }
}

// How many stored frames reach a threshold, and how many of them an hour that is; null where no time is known.
export function passedAt({ histogram: { edges, counts }, hours, positives = 0 }, threshold) {
  let [count, total] = [0, 0];
  counts.forEach((one, at) => {
    total += one;
    const share = (edges[at + 1] - threshold) / (edges[at + 1] - edges[at] || 1);
    count += one * Math.min(1, Math.max(0, share));
  });
  count = Math.round(count);
  return { count, share: total ? count / total : 0, perHour: hours ? Math.max(0, count - positives) / hours : null };
}
