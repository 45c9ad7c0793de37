// Search: by sentences, by pictures and parts of them, with filters; the answer as a wall or on a map.

import { api } from "../api.js";
import { choices } from "../choices.js";
import { openPicture } from "../detail.js";
import { button, fill, h, icon } from "../dom.js";
import { announce, empty, notice, problem, toast, waiting } from "../notices.js";
import { describe, wall } from "../pictures.js";
import { bindKeys } from "../keys.js";
import { number, percent, t } from "../words.js";

const FILTERS = ["after", "before", "near", "inside", "height", "flight", "label", "reviewed", "kind"];
const MOST = 48;
const LONG_MS = 3000;

export async function show(main, { query, state }) {
  if (!state.archive?.flights) return void fill(main, empty("search", t("search.empty_title"), t("search.empty"), "overflight archive add ARCHIVE FLIGHT"));
  const view = new Search(main, query, state);
  bindKeys([{ keys: ["/"], text: t("keys.search"), run: () => view.field.focus() }]);
  await view.run();
  return () => view.close();
}

class Search {
  constructor(main, query, state) {
    this.state = state;
    this.terms = { texts: query.getAll("text"), not: query.getAll("not"), like: query.getAll("like").map((row) => ({ row: Number(row) })) };
    const region = query.get("region");
    if (region && this.terms.like.length) this.terms.like[0].region = region.split(",").map(Number);
    this.filters = Object.fromEntries(FILTERS.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
    this.shown = "wall";
    this.rank = false;
    this.hits = [];
    this.turn = 0;
    this.build(main);
  }

  build(main) {
    this.field = h("input", { type: "search", id: "query", placeholder: t("search.hint"), "aria-label": t("search.field"), autocomplete: "off", enterkeyhint: "search" });
    this.unwanted = h("input", { id: "unwanted", placeholder: t("search.not_hint"), "aria-label": t("search.not_field"), autocomplete: "off", enterkeyhint: "search" });
    this.file = h("input", { type: "file", accept: "image/*", class: "unseen", id: "search-picture", tabindex: -1, "aria-label": t("search.picture"), onchange: () => this.addPicture() });
    this.chips = h("div", { class: "row chips" });
    this.filterBox = h("details", { class: "filters" }, h("summary", null, icon("filter"), h("span", null, t("search.filters"))), this.filterForm());
    this.filterBox.open = Object.keys(this.filters).length > 0;
    this.answer = h("div", { class: "answer", role: "status" });
    this.results = h("div", { class: "results" });
    const form = h("form", { class: "search-form", role: "search" },
      h("div", { class: "search-line" }, icon("search"), this.field,
        button(t("search.picture"), { symbol: "picture", only: true, kind: "quiet round", onclick: () => this.file.click() }),
        button(t("search.go"), { kind: "main", type: "submit" })),
      h("div", { class: "row search-more" }, h("label", { class: "not-line" }, icon("minus"), this.unwanted), this.filterBox), this.file, this.chips);
    form.addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    fill(main, h("div", { class: "search-head" }, h("h1", null, t("search.title")), form), this.answer, this.results);
    this.drawChips();
  }

  filterForm() {
    const field = (name, options = {}) => h("label", null, h("span", { class: "label" }, t(`filter.${name}`)),
      h("input", { value: this.filters[name] ?? "", "data-filter": name, ...options }));
    const select = (name, values) => h("label", null, h("span", { class: "label" }, t(`filter.${name}`)),
      h("select", { "data-filter": name }, values.map(([value, text]) => h("option", { value, ...(value === (this.filters[name] ?? "") ? { selected: true } : {}) }, text))));
    const reviewed = ["", "yes", "no", "confirmed", "rejected"].map((one) => [one, t(`filter.reviewed_${one || "any"}`)]);
    const kinds = ["", "frames", "tiles"].map((one) => [one, t(`filter.kind_${one || "all"}`)]);
    const flights = [["", t("review.all_flights")], ...(this.state.flights ?? []).map((flight) => [flight.id, flight.name])];
    const time = { type: "datetime-local", step: 1 };
    return h("div", { class: "fields" }, select("flight", flights), field("label", { list: "labels-known" }), select("reviewed", reviewed), select("kind", kinds),
      field("after", time), field("before", time), field("near", { placeholder: "47.37, 8.54, 500" }), field("inside", { placeholder: t("filter.inside_hint") }), field("height", { placeholder: "20, 120" }),
      h("datalist", { id: "labels-known" }, (this.state.labels ?? []).map((label) => h("option", { value: label }))));
  }

  async addPicture() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    try {
      const kept = await api.upload(file);
      this.terms.like.push({ upload: kept.upload, name: file.name });
      await this.run();
    } catch (error) { toast(error.message); }
  }

  submit() {
    const split = (text) => text.split(/[;；\n]/).map((one) => one.trim()).filter(Boolean);
    this.terms.texts.push(...split(this.field.value));
    this.terms.not.push(...split(this.unwanted.value));
    for (const field of this.filterBox.querySelectorAll("[data-filter]")) {
      if (field.value.trim()) this.filters[field.dataset.filter] = field.value.trim().replace(/\s*[,，]\s*/g, ",");
      else delete this.filters[field.dataset.filter];
    }
    [this.field.value, this.unwanted.value, this.rank] = ["", "", false];
    this.remember();
    this.run();
  }

  remember() {
    const query = new URLSearchParams();
    for (const text of this.terms.texts) query.append("text", text);
    for (const text of this.terms.not) query.append("not", text);
    for (const like of this.terms.like) if (like.row !== undefined) query.append("like", like.row);
    for (const [name, value] of Object.entries(this.filters)) query.set(name, value);
    history.replaceState(null, "", `#/search${query.size ? `?${query}` : ""}`);
  }

  drawChips() {
    const chip = (text, list, one, extra = null) => h("span", { class: "chip" }, extra, h("span", null, text),
      button(t("search.remove", { term: text }), { only: true, symbol: "close", kind: "quiet", onclick: () => { list.splice(list.indexOf(one), 1); this.remember(); this.run(); } }));
    fill(this.chips,
      this.terms.texts.map((text) => chip(text, this.terms.texts, text)),
      this.terms.not.map((text) => chip(t("search.without", { term: text }), this.terms.not, text)),
      this.terms.like.map((like) => chip(like.region ? t("search.part") : like.name ?? t("search.like"), this.terms.like, like,
        like.row === undefined ? null : h("img", { src: api.pictureAddress(like, 168), alt: "" }))));
    this.chips.hidden = !this.chips.childElementCount;
  }

  // Answers come in any order; only that of the newest question is shown.
  async run(page = 1) {
    const mine = ++this.turn;
    this.drawChips();
    const { texts, not, like } = this.terms;
    if (!texts.length && !like.length) return this.invite();
    const long = page === 1 ? this.wait(mine) : null;
    try {
      const pictures = like.map(({ row, upload, region }) => ({ row, upload, region }));
      const found = await api.search({ texts, not, like: pictures, filters: this.filters, page, most: MOST, rank: this.rank });
      if (mine === this.turn) this.draw(found, page);
    } catch (error) {
      if (mine !== this.turn) return;
      fill(this.answer);
      fill(this.results, problem(error, () => this.run(page)));
    } finally {
      clearTimeout(long);
    }
  }

  wait(mine) {
    const box = waiting(t("search.searching"));
    fill(this.results, box);
    return setTimeout(() => { if (mine === this.turn) box.after(h("p", { class: "soft small" }, t("search.first"))); }, LONG_MS);
  }

  invite() {
    fill(this.answer);
    const ideas = t("search.ideas").split("|");
    fill(this.results, h("div", { class: "invite" }, h("p", { class: "soft" }, t("search.invite")),
      h("div", { class: "row" }, ideas.map((idea) => button(idea, { kind: "tiny", onclick: () => { this.terms.texts.push(idea); this.remember(); this.run(); } })))));
  }

  draw(found, page) {
    this.hits = page === 1 ? found.hits : [...this.hits, ...found.hits];
    this.found = found;
    this.next = found.hits.length >= MOST ? page + 1 : null;
    this.drawAnswer(found);
    this.drawResults();
    announce(this.answer.textContent);
  }

  drawAnswer(found) {
    const lines = [];
    for (const [chinese, english] of Object.entries(found.translated ?? {})) lines.push(t("search.translated", { chinese, english }));
    if (found.unknown) lines.push(t("search.unknown", { count: found.unknown }));
    if (found.unindexed) lines.push(t("search.unindexed", { count: found.unindexed }));
    const missing = !found.hits.length && !this.hits.length;
    const best = missing && found.best?.length ? button(t("search.rank"), { kind: "tiny", id: "rank", onclick: () => { this.rank = true; this.run(); } }) : null;
    const segment = (name, symbol) => h("button", { type: "button", "aria-pressed": String(this.shown === name), "data-show": name, onclick: () => { this.shown = name; this.drawAnswer(this.found); this.drawResults(); } }, icon(symbol), t(`search.as_${name}`));
    fill(this.answer, h("div", { class: `row apart ${missing ? "missing" : ""}` },
      h("div", null, h("h2", null, missing ? t("search.not_found") : t("search.found", { count: this.hits.length, searched: found.searched })),
        h("p", { class: "soft small" }, this.sure(found), lines.map((line) => ` ${line}`)), best),
      this.hits.length ? h("div", { class: "segments", role: "group", "aria-label": t("search.shown_as") }, segment("wall", "wall"), segment("map", "map")) : null));
  }

  // What the answer is worth: how often something that is not there would have been "found".
  sure(found) {
    if (this.rank) return t("search.ranked");
    if (found.cutoff === null || found.cutoff === undefined) return t("search.pictures_rank");
    const key = this.hits.length ? "search.sure" : "search.sure_not";
    return t(key, { rate: percent(found.false_alarm ?? 0, 1), count: found.held_out, searched: found.searched });
  }

  async drawResults() {
    this.map?.remove();
    this.map = null;
    if (!this.hits.length) return void fill(this.results);
    if (this.shown === "map") return this.drawMap();
    const actions = ["more", "less"].map((kind) => ({
      label: t(`teach.${kind}`), symbol: kind === "more" ? "plus" : "minus", pressed: (hit) => choices.has(kind, hit.row),
      run: (hit) => { choices.toggle(kind, hit); this.syncChoices(); },
    }));
    this.tray = h("div", { class: "tray" });
    fill(this.results, wall(this.hits, { open: openPicture, actions }),
      this.next ? h("div", { class: "row centred" }, button(t("search.next"), { onclick: () => this.run(this.next), id: "next-page" })) : null, this.tray);
    this.syncChoices();
  }

  syncChoices() {
    for (const figure of this.results.querySelectorAll(".card")) {
      const [more, less] = figure.querySelectorAll(".card-actions button");
      more?.setAttribute("aria-pressed", String(choices.has("more", Number(figure.dataset.row))));
      less?.setAttribute("aria-pressed", String(choices.has("less", Number(figure.dataset.row))));
    }
    fill(this.tray, choices.count ? [h("span", null, t("teach.progress", { count: choices.count })), h("a", { class: "button main tiny", href: "#/teach" }, t("teach.open"))] : null);
    this.tray.hidden = !choices.count;
  }

  async drawMap() {
    const element = h("div", { class: "results-map" });
    const placed = this.hits.filter((hit) => hit.lat_deg !== undefined && hit.lat_deg !== null);
    const lost = this.hits.length - placed.length;
    fill(this.results, lost ? notice(t("search.unplaced", { count: lost }), "warn") : null, element);
    const { basemap } = await import("../basemap.js");
    const { L, map } = await basemap(element);
    if (!element.isConnected) return map.remove();
    this.map = map;
    const places = placed.map((hit) => {
      const lon = hit.lon_deg - 360 * Math.round((hit.lon_deg - placed[0].lon_deg) / 360); // together across the date line
      const marker = L.circleMarker([hit.lat_deg, lon], { className: "hit", radius: 9, weight: 2 }).addTo(map);
      marker.bindTooltip(h("span", null, describe(hit))).on("click", () => openPicture(hit));
      return marker.getLatLng();
    });
    if (places.length) map.fitBounds(L.latLngBounds(places).pad(0.2), { maxZoom: 18 });
  }

  close() {
    this.turn += 1;
    this.map?.remove();
  }
}
