// Live: the newest frame of each aircraft with what it shows, how old that is, health, events and a map.

import { api } from "../api.js";
import { button, fill, h, svg } from "../dom.js";
import { empty, notice } from "../notices.js";
import { bindKeys } from "../keys.js";
import { clock, number, percent, t } from "../words.js";

const OLD_S = 3;
const MOST_EVENTS = 60;

export async function show(main, { query }) {
  const view = new Live(main, query.get("aircraft"));
  bindKeys([
    { keys: ["j", "ArrowDown"], text: t("keys.next_aircraft"), run: () => view.step(1) },
    { keys: ["k", "ArrowUp"], text: t("keys.previous_aircraft"), run: () => view.step(-1) },
  ]);
  view.start();
  return () => view.close();
}

class Live {
  constructor(main, wanted) {
    this.main = main;
    this.chosen = wanted;
    this.aircraft = new Map();
    this.built = false;
  }

  start() {
    fill(this.main, h("p", { class: "wait" }, t("live.waiting")));
    this.stream = api.live({
      aircraft: (list) => this.update(list),
      lost: () => this.offline(true),
      found: () => this.offline(false),
    });
    this.timer = setInterval(() => this.ages(), 250);
  }

  update(list) {
    const known = new Set(list.map((one) => one.id));
    for (const id of this.aircraft.keys()) if (!known.has(id)) this.aircraft.delete(id);
    for (const one of list) {
      const before = this.aircraft.get(one.id);
      this.aircraft.set(one.id, { ...one, at: performance.now(), events: one.events ?? before?.events ?? [] });
    }
    if (!this.aircraft.size) return this.nothing();
    if (!this.built) this.build();
    if (!this.aircraft.has(this.chosen)) this.choose(this.aircraft.keys().next().value);
    this.drawTabs();
    this.draw();
  }

  nothing() {
    this.built = false;
    fill(this.main, empty("live", t("live.empty_title"), t("live.empty"), "overflight run SOURCE --out DIR"));
  }

  build() {
    this.built = true;
    this.tabs = h("div", { class: "row live-tabs", role: "group", "aria-label": t("live.aircraft") });
    this.lost = h("div", { hidden: true }, notice(t("live.lost"), "warn"));
    this.picture = h("img", { alt: "" });
    this.tiles = svg("svg", { class: "live-tiles", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.nothingYet = h("p", { class: "live-none" }, t("live.no_picture"));
    this.label = h("p", { class: "live-label" });
    this.scores = h("ul", { class: "plain scores" });
    this.age = h("span", { class: "live-age" });
    this.facts = h("dl", { class: "live-facts" });
    this.health = h("div");
    this.events = h("ol", { class: "plain events" });
    this.noEvents = h("p", { class: "soft small" }, t("live.no_events"));
    this.mapBox = h("div", { class: "live-map" });
    const overlay = h("label", { class: "check small" }, h("input", { type: "checkbox", checked: true, id: "show-tiles", onchange: (event) => this.tiles.toggleAttribute("hidden", !event.target.checked) }), t("live.tiles"));
    fill(this.main, h("h1", { class: "unseen" }, t("tab.live")), this.tabs, this.lost,
      h("div", { class: "live-view" },
        h("section", { class: "live-main", "aria-label": t("live.newest") },
          h("div", { class: "live-picture" }, this.nothingYet, this.picture, this.tiles, this.age),
          h("div", { class: "live-readout" }, h("div", null, this.label, this.scores), h("div", { class: "live-facts-side" }, overlay, this.facts))),
        h("aside", { class: "live-side" },
          h("section", null, h("h2", { class: "unseen" }, t("live.map")), this.mapBox),
          h("section", null, h("h2", null, t("live.health")), this.health),
          h("section", null, h("h2", null, t("live.events")), this.noEvents, this.events))));
    this.openMap();
  }

  drawTabs() {
    const names = [...this.aircraft.values()].map((one) => `${one.id} ${one.name} ${one.state}`).join();
    if (names + this.chosen === this.tabsShown) return;
    this.tabsShown = names + this.chosen;
    fill(this.tabs, [...this.aircraft.values()].map((one) => h("button", {
      type: "button", class: "button", "aria-pressed": String(one.id === this.chosen), onclick: () => { this.choose(one.id); this.drawTabs(); this.draw(); },
    }, h("span", { class: `state ${one.ended ? "" : "good"}` }, one.name))));
  }

  choose(id) {
    if (id === this.chosen && this.shownFrame !== undefined) return;
    this.chosen = id;
    this.shownFrame = this.eventsShown = undefined;
    if (this.built) {
      this.coming = null;
      this.picture.removeAttribute("src");
      this.nothingYet.hidden = false;
      this.loading = false;
      this.drawTrack(true);
    }
  }

  step(by) {
    const ids = [...this.aircraft.keys()];
    if (ids.length < 2) return;
    this.choose(ids[(ids.indexOf(this.chosen) + by + ids.length) % ids.length]);
    this.drawTabs();
    this.draw();
  }

  draw() {
    const one = this.aircraft.get(this.chosen);
    if (!one || !this.built) return;
    const name = one.label ?? t("label.unknown");
    this.label.textContent = one.frame === undefined || one.frame === null ? t("live.starting") : name;
    fill(this.scores, (one.scores ?? []).slice(0, 4).map(({ label, score }) => h("li", null, h("span", null, label), meter(score), h("span", { class: "soft" }, percent(score)))));
    this.drawPicture(one, name);
    fill(this.tiles, (one.tiles ?? []).map(({ x, y, w, h: high, label }) => label ? svg("g", null, svg("rect", { x, y, width: w, height: high, class: "tile" })) : null));
    this.drawTileNames(one.tiles ?? []);
    this.drawFacts(one);
    this.drawHealth(one);
    this.drawEvents(one);
    this.drawTrack(false);
    this.ages();
  }

  // A slow link decides the rate: the next picture is asked for when the last has come, which stays until it has.
  drawPicture(one, name) {
    if (this.loading || one.picture === undefined || one.picture === this.shownFrame) return;
    this.shownFrame = one.picture;
    this.loading = true;
    const next = this.coming = h("img", { alt: t("live.picture_of", { name: one.name, label: name }) });
    next.addEventListener("load", () => {
      if (next !== this.coming) return; // of an aircraft that is not shown any more
      this.picture.replaceWith(next);
      this.picture = next;
      this.nothingYet.hidden = true;
      this.loading = false;
      next.parentElement.style.aspectRatio = `${next.naturalWidth} / ${next.naturalHeight}`;
    });
    next.addEventListener("error", () => { if (next === this.coming) this.loading = false; });
    next.src = api.liveAddress(one.id, one.picture);
  }

  drawTileNames(tiles) {
    for (const old of this.tiles.parentElement.querySelectorAll(".tile-name")) old.remove();
    if (this.tiles.hasAttribute("hidden")) return;
    for (const { x, y, w, label } of tiles) {
      if (label) this.tiles.after(h("span", { class: "tile-name", style: { left: `${100 * x}%`, top: `${100 * y}%`, "max-width": `${100 * w}%` } }, label));
    }
  }

  drawFacts(one) {
    const facts = [
      [t("live.frame"), one.frame === null || one.frame === undefined ? null : number(one.frame)],
      [t("live.picture_frame"), one.picture === undefined || one.picture === one.frame ? null : number(one.picture)],
      [t("live.rate"), one.fps ? t("live.per_second", { rate: number(one.fps, 1) }) : null],
      [t("live.height"), one.height_m === undefined || one.height_m === null ? null : `${number(Math.round(one.height_m))} m`],
      [t("live.dropped"), one.dropped ? number(one.dropped) : null],
      [t("live.bank"), one.bank],
    ];
    fill(this.facts, facts.filter(([, value]) => value).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
  }

  drawHealth(one) {
    const health = one.health ?? [];
    fill(this.health, health.length ? h("ul", { class: "plain health" }, health.map(({ name, state, text }) =>
      h("li", null, h("span", { class: `state ${state}` }, name), h("span", { class: "soft small" }, text)))) : h("p", { class: "state good" }, t(one.ended ? "live.ended" : "live.well")));
  }

  drawEvents(one) {
    const mark = one.events.map((event) => `${event.id}${event.ended}`).join();
    if (mark === this.eventsShown) return;
    this.eventsShown = mark;
    this.noEvents.hidden = one.events.length > 0;
    fill(this.events, one.events.slice(0, MOST_EVENTS).map((event) => h("li", null,
      event.picture ? h("img", { src: event.picture, alt: "", loading: "lazy", width: 72, height: 48 }) : h("span", { class: "event-dot" }),
      h("div", null, h("b", null, event.label), h("span", { class: "soft small" }, [event.utc_ns ? clock(event.utc_ns) : null, event.ended ? t("live.event_ended") : t("live.event_on")].filter(Boolean).join(" · "))))));
  }

  ages() {
    const one = this.aircraft.get(this.chosen);
    if (!one || !this.built) return;
    const age = one.age_s === undefined || one.age_s === null ? null : one.age_s + (one.ended ? 0 : (performance.now() - one.at) / 1000);
    this.age.hidden = age === null;
    if (age === null) return;
    this.age.textContent = one.ended ? t("live.ended") : t("live.age", { seconds: number(age, 1) });
    this.age.classList.toggle("old", age > OLD_S && !one.ended);
  }

  offline(lost) {
    if (this.built) this.lost.hidden = !lost;
    else if (lost) fill(this.main, notice(t("live.lost"), "warn"));
  }

  async openMap() {
    const { basemap } = await import("../basemap.js");
    const box = this.mapBox;
    const { L, map } = await basemap(box);
    if (box !== this.mapBox || !this.built) return map.remove();
    Object.assign(this, { L, map });
    this.track = L.polyline([], { className: "track", weight: 3, interactive: false }).addTo(map);
    this.ground = L.polygon([], { className: "footprint now", weight: 2, interactive: false }).addTo(map);
    this.here = L.circleMarker([0, 0], { className: "aircraft", radius: 7, weight: 3, interactive: false });
    this.marks = L.layerGroup().addTo(map);
    map.on("dragstart", () => { this.held = true; });
    this.drawTrack(true);
  }

  async drawTrack(fresh) {
    const one = this.aircraft.get(this.chosen);
    if (!this.map || !one) return;
    if (fresh) {
      this.held = false;
      this.points = [];
      const id = one.id;
      const points = await api.track(id).catch(() => []);
      if (id !== this.chosen || !this.map) return;
      this.points = points;
      this.track.setLatLngs(points);
      if (points.length) this.map.fitBounds(this.L.latLngBounds(points).pad(0.3), { maxZoom: 17, animate: false });
    }
    if (one.lat_deg === undefined || one.lat_deg === null) return;
    const point = [one.lat_deg, one.lon_deg];
    const last = this.points[this.points.length - 1];
    if (!last || last[0] !== point[0] || last[1] !== point[1]) {
      this.points.push(point);
      this.track.setLatLngs(this.points);
    }
    this.here.setLatLng(point).addTo(this.map);
    this.ground.setLatLngs((one.footprint ?? []).map(([lon, lat]) => [lat, lon]));
    const placed = one.events.filter((event) => event.lat_deg !== undefined && event.lat_deg !== null);
    if (placed.length !== this.marks.getLayers().length) {
      this.marks.clearLayers();
      for (const event of placed) this.L.circleMarker([event.lat_deg, event.lon_deg], { className: "hit", radius: 6, weight: 2 }).bindTooltip(h("span", null, event.label)).addTo(this.marks);
    }
    if (!this.held && !this.map.getBounds().pad(-0.15).contains(point)) this.map.setView(point, Math.max(this.map.getZoom(), 15), { animate: false });
  }

  close() {
    this.stream.close();
    clearInterval(this.timer);
    this.map?.remove();
    this.map = null;
    this.built = false;
  }
}

export function meter(share) {
  const bar = h("i");
  bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return h("span", { class: "meter", "aria-hidden": "true" }, bar);
}
