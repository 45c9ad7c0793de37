// Review: every finding as a list, one large picture, and a decision by one key.

import { api } from "../api.js";
import { button, fill, h } from "../dom.js";
import { bindKeys } from "../keys.js";
import { announce, dialog, empty, notice, problem, toast } from "../notices.js";
import { describe, titleOf } from "../pictures.js";
import { Findings } from "../findings.js";
import { reviewer } from "../reviewer.js";
import { VirtualList } from "../virtual.js";
import { clock, moment, place, t } from "../words.js";

const openPicture = async (hit) => (await import("../detail.js")).openPicture(hit); // not needed for the first view
const ROW_PX = 72;
const DECISIONS = [["confirmed", "check", "yes", "c"], ["rejected", "cross", "no", "r"], ["unsure", "question", "", "u"]];
const FORMATS = ["kmz", "html", "gpkg", "geojson", "csv"];

export async function show(main, { query, state }) {
  if (!state.archive) return void fill(main, empty("review", t("review.empty_title"), t("review.empty"), "overflight serve ARCHIVE"));
  main.classList.add("whole");
  const view = new Review(main, state, query);
  await view.load();
  return () => view.close();
}

class Review {
  constructor(main, state, query) {
    this.main = main;
    this.chosen = new Set();
    this.at = -1;
    this.filters = { flight: query.get("flight") ?? "", label: "", state: query.get("state") ?? "" };
    this.findings = new Findings(() => this.list?.refresh());
    this.flights = state.flights ?? [];
    this.build();
    this.keys();
  }

  build() {
    this.scroller = h("div", { class: "review-list", tabindex: "0", role: "region", "aria-label": t("review.list") });
    this.stage = h("section", { class: "review-stage", "aria-label": t("review.finding") });
    this.count = h("span", { class: "soft small", role: "status" });
    this.bar = h("div", { class: "review-bar", hidden: true });
    fill(this.main, h("div", { class: "review-view" },
      h("h1", { class: "unseen" }, t("tab.review")),
      h("div", { class: "review-side" }, this.filterRow(), h("div", { class: "row apart review-count" }, this.count, this.people()), this.scroller, this.bar),
      this.stage));
    this.list = new VirtualList(this.scroller, {
      height: ROW_PX, render: (index, element) => this.row(index, element), onRange: (first, last) => this.findings.need(first, last),
    });
    this.bar.hidden = true;
  }

  filterRow() {
    const select = (name, label, options) => h("label", null, h("span", { class: "unseen" }, label),
      h("select", { onchange: (event) => { this.filters[name] = event.target.value; this.load(); } },
        options.map(([value, text]) => h("option", { value, ...(value === this.filters[name] ? { selected: true } : {}) }, text))));
    const states = ["", "none", "confirmed", "rejected", "unsure", "disputed"].map((one) => [one, t(one ? `state.${one}` : "review.all_states")]);
    const flights = [["", t("review.all_flights")], ...this.flights.map((flight) => [flight.id, flight.name])];
    return h("div", { class: "review-filters" }, select("flight", t("review.flight"), flights), select("state", t("review.state"), states));
  }

  people() {
    const name = button(reviewer.name || t("review.who"), { kind: "quiet tiny", id: "reviewer" });
    name.addEventListener("click", async () => { await reviewer.ask(true); fill(name, h("span", null, reviewer.name || t("review.who"))); });
    return h("span", { class: "row" }, name, button(t("review.share"), { symbol: "merge", kind: "quiet tiny", id: "share", onclick: () => this.share() }));
  }

  async load() {
    try {
      const total = await this.findings.start(this.filters);
      this.count.textContent = t("review.count", { count: total });
      this.list.setCount(total);
      if (total) await this.go(0);
      else fill(this.stage, empty("review", t("review.none_title"), t("review.none")));
    } catch (error) {
      fill(this.stage, problem(error, () => this.load()));
    }
  }

  row(index, element) {
    if (!element.parts) this.furnish(element);
    const { parts } = element;
    const finding = this.findings.at(index);
    element.index = index;
    element.classList.toggle("current", index === this.at);
    parts.open.setAttribute("aria-current", index === this.at ? "true" : "false");
    parts.box.disabled = !finding;
    parts.box.checked = finding ? this.chosen.has(finding.number) : false;
    parts.number.textContent = finding?.number ?? "…";
    parts.label.textContent = finding?.label ?? "";
    parts.facts.textContent = finding ? [titleOf(finding), finding.utc_ns ? clock(finding.utc_ns) : null, finding.flight_name].filter(Boolean).join(" · ") : "";
    parts.state.className = `state ${finding?.state ?? ""}`;
    parts.state.title = finding ? t(`state.${finding.state ?? "none"}`) : "";
    parts.readout.textContent = parts.state.title;
    parts.box.setAttribute("aria-label", t("review.choose", { number: finding?.number ?? "" }));
    this.findings.picture(parts.image, finding);
  }

  furnish(element) {
    const parts = {
      box: h("input", { type: "checkbox", onchange: () => this.choose(element.index) }),
      image: h("img", { alt: "", width: 84, height: 56, decoding: "async" }),
      number: h("b"), label: h("span", { class: "finding-label" }), facts: h("span", { class: "soft small" }), state: h("span", { class: "state" }), readout: h("span", { class: "unseen" }),
    };
    parts.open = h("button", { type: "button", class: "finding-open", tabindex: "-1", onclick: () => this.go(element.index) }, parts.image,
      h("span", { class: "finding-text" }, h("span", { class: "finding-line" }, parts.number, parts.label), parts.facts), parts.state, parts.readout);
    element.parts = parts;
    element.classList.add("finding");
    element.append(parts.box, parts.open);
  }

  choose(index) {
    const finding = this.findings.at(index);
    if (!finding) return;
    if (!this.chosen.delete(finding.number)) this.chosen.add(finding.number);
    this.list.refresh(index, index + 1);
    this.drawBar();
  }

  drawBar() {
    this.bar.hidden = !this.chosen.size;
    const format = h("select", { "aria-label": t("review.format"), id: "format" }, FORMATS.map((one) => h("option", { value: one }, t(`format.${one}`))));
    const save = button(t("review.save"), { symbol: "download", kind: "main tiny", id: "export" });
    save.addEventListener("click", async () => {
      save.disabled = true;
      try { await api.exportFindings(format.value, [...this.chosen]); } catch (error) { toast(error.message); }
      save.disabled = false;
    });
    const clear = button(t("review.clear"), { symbol: "close", only: true, kind: "quiet round", onclick: () => { this.chosen.clear(); this.list.refresh(); this.drawBar(); } });
    fill(this.bar, h("span", { class: "small" }, t("review.chosen", { count: this.chosen.size })), format, save, clear);
  }

  async go(index) {
    if (index < 0 || index >= this.list.count) return;
    const before = this.at;
    this.at = index;
    this.list.refresh(before, before + 1);
    this.list.refresh(index, index + 1);
    this.list.reveal(index);
    const finding = await this.findings.wait(index);
    if (this.at === index && finding) this.showFinding(finding, index);
  }

  showFinding(finding, index) {
    const name = describe(finding);
    const picture = h("img", { src: api.pictureAddress(finding, 1280), alt: t("picture.of", { name, label: finding.label ?? t("label.unknown") }) });
    const next = this.findings.at(index + 1);
    if (next) new Image().src = api.pictureAddress(next, 1280);
    this.comment = h("textarea", { rows: 1, "aria-label": t("review.comment"), placeholder: t("review.comment_hint"), maxlength: 2000 });
    this.comment.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { this.comment.value = ""; this.scroller.focus(); }
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); this.decide(this.decisionOf(finding) ?? "unsure", false); this.scroller.focus(); }
      event.stopPropagation();
    });
    const buttons = DECISIONS.map(([state, symbol, kind, key]) => {
      const element = button(t(`decide.${state}`), { symbol, kind, "data-decide": state, "aria-pressed": String(this.decisionOf(finding) === state), "aria-keyshortcuts": key });
      element.addEventListener("click", () => this.decide(state));
      return element;
    });
    fill(this.stage,
      h("div", { class: "review-picture" }, picture),
      h("div", { class: "review-panel" },
        h("div", { class: "row apart" },
          h("div", null, h("h2", null, finding.label ?? t("label.unknown")), h("p", { class: "soft small" }, [finding.number, name, finding.utc_ns ? moment(finding.utc_ns) : null, place(finding.lat_deg, finding.lon_deg, finding.error_m)].filter(Boolean).join(" · "))),
          h("div", { class: "row review-step" },
            button(t("review.previous"), { only: true, symbol: "up", kind: "round", onclick: () => this.go(this.at - 1), disabled: index === 0 }),
            button(t("review.next"), { only: true, symbol: "down", kind: "round", onclick: () => this.go(this.at + 1), disabled: index + 1 >= this.list.count }),
            button(t("picture.more_about"), { only: true, symbol: "open", kind: "round", onclick: () => openPicture(finding) }))),
        h("div", { class: "row decisions" }, buttons),
        h("div", { class: "row comment-row" }, this.comment),
        this.opinions(finding)));
    announce(`${finding.number}, ${finding.label ?? t("label.unknown")}, ${t(`state.${finding.state ?? "none"}`)}`);
  }

  decisionOf(finding) {
    return finding.reviews?.find((review) => review.reviewer === reviewer.name)?.state ?? null;
  }

  opinions(finding) {
    const reviews = finding.reviews ?? [];
    if (!reviews.length) return null;
    return h("ul", { class: "plain opinions" }, reviews.map((review) => h("li", null,
      h("span", { class: `state ${review.state}` }, t(`state.${review.state}`)), " ", h("b", null, review.reviewer), review.comment ? ` ${review.comment}` : null)));
  }

  async decide(state, onward = true) {
    const index = this.at;
    const finding = this.findings.at(index);
    if (!finding || !(await reviewer.ask())) return;
    try {
      const changed = await api.mark(finding.number, { state, comment: this.comment?.value.trim() ?? "", reviewer: reviewer.name, label: finding.label });
      this.findings.change(index, changed);
      this.list.refresh(index, index + 1);
      announce(`${finding.number}: ${t(`state.${state}`)}`);
      if (onward && index + 1 < this.list.count && this.at === index) await this.go(index + 1);
      else if (this.at === index) this.showFinding(this.findings.at(index), index);
    } catch (error) {
      toast(error.message);
    }
  }

  share() {
    const file = h("input", { type: "file", accept: ".zip,.jsonl", multiple: true, id: "merge-file", "aria-label": t("review.merge_file") });
    const answer = h("div");
    file.addEventListener("change", async () => {
      try {
        let added = 0;
        for (const one of file.files) added += (await api.mergeReviews(one)).added;
        fill(answer, notice(t("review.merged", { count: added })));
        this.load();
      } catch (error) { fill(answer, notice(error.message, "bad")); }
    });
    dialog(t("review.share"), h("div", { class: "stack" },
      h("div", null, h("h3", null, t("review.give")), h("p", { class: "soft" }, t("review.give_text")),
        button(t("review.give_button"), { symbol: "download", id: "give", onclick: () => api.reviews().catch((error) => fill(answer, notice(error.message, "bad"))) })),
      h("div", null, h("h3", null, t("review.take")), h("p", { class: "soft" }, t("review.take_text")), file), answer));
  }

  keys() {
    bindKeys([
      { keys: ["j", "ArrowDown"], text: t("keys.next"), run: () => this.go(this.at + 1) },
      { keys: ["k", "ArrowUp"], text: t("keys.previous"), run: () => this.go(this.at - 1) },
      { keys: ["c"], text: t("keys.confirm"), run: () => this.decide("confirmed") },
      { keys: ["r"], text: t("keys.reject"), run: () => this.decide("rejected") },
      { keys: ["u"], text: t("keys.unsure"), run: () => this.decide("unsure") },
      { keys: ["n"], text: t("keys.comment"), run: () => this.comment?.focus() },
      { keys: ["x"], text: t("keys.choose"), run: () => this.choose(this.at) },
      { keys: ["o"], text: t("keys.open"), run: () => { const one = this.findings.at(this.at); if (one) openPicture(one); } },
    ]);
  }

  close() {
    this.list.close();
    this.findings.close();
  }
}
