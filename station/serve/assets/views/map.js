// Map: flights, footprints, thumbnails and mosaics on a map that needs no internet, with the user's own tiles under it.

import { api } from "../api.js";
import { basemap } from "../basemap.js";
import { openPicture } from "../detail.js";
import { button, fill, h } from "../dom.js";
import { empty, notice, toast } from "../notices.js";
import { number, t } from "../words.js";

const MOST_THUMBNAILS = 120;
const LAYERS = ["footprints", "thumbnails", "mosaics", "findings"];

export async function show(main, { query, state }) {
  main.classList.add("whole");
  const view = new FlightMap(main, state, query.get("flight"));
  await view.open();
  return () => view.close();
}

class FlightMap {
  constructor(main, state, flight) {
    this.state = state;
    this.hidden = new Set();
    this.wanted = flight;
    this.layers = {};
    this.canvas = h("div", { class: "map-canvas" });
    this.panel = h("div", { class: "map-panel" });
    this.readout = h("p", { class: "soft small", role: "status" });
    const toggle = button(t("map.panel"), { symbol: "filter", kind: "map-toggle", "aria-expanded": "false", onclick: () => toggle.setAttribute("aria-expanded", String(this.panel.classList.toggle("open"))) });
    fill(main, h("div", { class: "map-view" }, h("h1", { class: "unseen" }, t("tab.map")), this.canvas, toggle, this.panel));
  }

  async open() {
    const { L, map } = await basemap(this.canvas);
    Object.assign(this, { L, map });
    for (const name of LAYERS) this.layers[name] = L.layerGroup();
    this.tiles = L.layerGroup().addTo(map);
    map.createPane("mosaics").style.zIndex = 250; // above the user's tiles, below tracks and footprints
    this.tracks = L.layerGroup().addTo(map);
    for (const name of ["footprints", "thumbnails", "mosaics"]) this.layers[name].addTo(map);
    map.on("moveend", () => this.drawThumbnails());
    const data = this.state.archive ? await api.map() : { flights: [], mosaics: [] };
    this.data = data;
    this.drawPanel();
    this.drawAll();
    const wanted = data.flights.filter((flight) => flight.bounds && (!this.wanted || flight.id === this.wanted));
    wanted.sort((a, b) => b.footprints.length - a.footprints.length);
    const bounds = wanted.map((flight) => L.latLngBounds(flight.bounds));
    for (const mosaic of this.wanted ? [] : data.mosaics) bounds.push(L.latLngBounds(mosaic.ring));
    if (bounds.length) this.go(bounds[0]);
    const kept = this.state.tiles?.find((one) => one.id === localStorage.getItem("tiles"));
    if (kept) this.useTiles(kept);
  }

  go(bounds) {
    this.map.fitBounds(bounds.pad(0.15), { maxZoom: 19, animate: false });
  }

  drawPanel() {
    const layer = (name) => h("label", { class: "check" }, h("input", { type: "checkbox", checked: this.map.hasLayer(this.layers[name]), "data-layer": name, onchange: (event) => this.layer(name, event.target.checked) }), t(`map.${name}`));
    const flights = this.data.flights;
    const list = flights.map((flight) => h("li", null,
      h("input", { type: "checkbox", checked: !this.hidden.has(flight.id), "aria-label": t("map.show_flight", { name: flight.name }), onchange: (event) => { this.hidden[event.target.checked ? "delete" : "add"](flight.id); this.drawAll(); } }),
      flight.bounds ? h("button", { type: "button", class: "link", onclick: () => this.go(this.L.latLngBounds(flight.bounds)) }, flight.name) : h("span", null, flight.name),
      h("span", { class: "soft small" }, flight.bounds ? t("map.frames", { count: flight.footprints.length }) : t("map.unplaced"))));
    fill(this.panel, h("section", null, h("h2", null, t("map.flights")), list.length ? h("ul", { class: "plain map-flights" }, list) : h("div", null, h("p", { class: "soft small" }, t("map.no_flights")), h("code", null, "overflight archive add ARCHIVE FLIGHT"))),
      h("section", null, h("h2", null, t("map.layers")), LAYERS.map(layer)),
      this.tilesBox(), this.readout);
  }

  tilesBox() {
    const choice = h("select", { id: "tiles", "aria-label": t("map.tiles"), onchange: () => this.useTiles(this.state.tiles.find((one) => one.id === choice.value)) },
      h("option", { value: "" }, t("map.no_tiles")), (this.state.tiles ?? []).map(({ id, name }) => h("option", { value: id, ...(localStorage.getItem("tiles") === id ? { selected: true } : {}) }, name)));
    const path = h("input", { id: "tiles-path", placeholder: "/maps/region.mbtiles", "aria-label": t("map.tiles_path") });
    const form = h("form", { class: "row nowrap" }, path, button(t("map.add_tiles"), { type: "submit" }));
    const answer = h("div");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const added = await api.addTiles(path.value.trim());
        this.state.tiles = [...(this.state.tiles ?? []).filter((one) => one.id !== added.id), added];
        localStorage.setItem("tiles", added.id);
        this.drawPanel();
        this.useTiles(added);
      } catch (error) { fill(answer, notice(error.message, "bad")); }
    });
    return h("section", null, h("h2", null, t("map.tiles")), h("div", { class: "stack tight" }, choice, h("p", { class: "soft small" }, t("map.tiles_text")), form, answer, this.unread()));
  }

  // A remembered file that lies on a disk which is not there now must not just disappear from the list.
  unread() {
    const files = this.state.tiles_unread ?? [];
    return files.length ? h("div", { class: "soft small" }, t("map.tiles_unread"), h("ul", { class: "plain" }, files.map((text) => h("li", null, text)))) : null;
  }

  useTiles(source) {
    this.tiles.clearLayers();
    localStorage.setItem("tiles", source?.id ?? "");
    if (!source) return;
    const [west, south, east, north] = source.bounds ?? [];
    const bounds = source.bounds && this.L.latLngBounds([south, west], [north, east]);
    this.L.tileLayer(source.address, { minNativeZoom: source.min_zoom ?? 0, maxNativeZoom: source.max_zoom ?? 22, maxZoom: 23, zIndex: 1, ...(bounds ? { bounds } : {}) }).addTo(this.tiles);
    if (bounds && !this.data.flights.some((flight) => flight.bounds)) this.go(bounds);
  }

  async layer(name, shown) {
    if (shown && name === "findings") await this.loadFindings();
    if (shown) this.layers[name].addTo(this.map);
    else this.layers[name].remove();
    if (name === "thumbnails") this.drawThumbnails();
  }

  drawAll() {
    const { L } = this;
    for (const group of [this.tracks, this.layers.footprints, this.layers.mosaics]) group.clearLayers();
    for (const mosaic of this.data.mosaics) this.layers.mosaics.addLayer(groundPicture(L, this.map, mosaic.address, mosaic.ring, { alt: t("map.mosaic", { name: mosaic.name }), pane: "mosaics" }));
    for (const flight of this.data.flights) {
      if (this.hidden.has(flight.id)) continue;
      L.polyline(flight.track, { className: "track", weight: 2.5, interactive: false }).addTo(this.tracks);
      for (const one of flight.footprints) this.footprint(flight, one);
    }
    this.drawThumbnails();
  }

  footprint(flight, one) {
    const shape = this.L.polygon(one.ring, { className: "footprint", weight: 1 });
    shape.on("click", () => openPicture({ row: one.row, number: one.number, flight_name: flight.name, frame: one.frame, label: one.label }));
    shape.bindTooltip(h("span", null, `${one.label ?? t("label.unknown")} · ${one.number}`), { sticky: true }).addTo(this.layers.footprints);
  }

  // The pictures lie on the ground that they show, where they are large enough to be seen.
  drawThumbnails() {
    const group = this.layers.thumbnails;
    group.clearLayers();
    if (!this.map.hasLayer(group) || !this.data) return;
    const view = this.map.getBounds();
    let small = 0;
    const seen = [];
    for (const flight of this.data.flights) {
      if (this.hidden.has(flight.id)) continue;
      for (const one of flight.footprints) {
        if (one.ring.length !== 4) continue;
        const bounds = this.L.latLngBounds(one.ring);
        if (!view.intersects(bounds)) continue;
        const [a, b] = [this.map.latLngToLayerPoint(bounds.getNorthWest()), this.map.latLngToLayerPoint(bounds.getSouthEast())];
        if (b.x - a.x < 24) small += 1;
        else seen.push([one, b.x - a.x]);
      }
    }
    const every = Math.ceil(seen.length / MOST_THUMBNAILS);
    const chosen = seen.filter((_, at) => at % every === 0);
    for (const [one, wide] of chosen) group.addLayer(groundPicture(this.L, this.map, api.pictureAddress(one, wide > 320 ? 640 : 320), one.ring));
    const count = chosen.length;
    this.readout.textContent = small && !count ? t("map.zoom_in") : count ? t("map.pictures", { count }) : "";
  }

  async loadFindings() {
    const { items } = await api.findings({ state: "confirmed", offset: 0, limit: 1000 });
    this.layers.findings.clearLayers();
    const placed = items.filter((one) => one.lat_deg !== undefined && one.lat_deg !== null);
    if (!placed.length) toast(t("map.no_findings"));
    for (const one of placed) this.L.circleMarker([one.lat_deg, one.lon_deg], { className: "hit", radius: 8, weight: 2 })
      .bindTooltip(h("span", null, `${one.number} · ${one.label ?? ""}`)).on("click", () => openPicture(one)).addTo(this.layers.findings);
  }

  close() { this.map?.remove(); }
}

// A picture laid on four corners of the ground: bottom left, bottom right, top right, top left of the picture.
function groundPicture(L, map, address, ring, { alt = "", pane = "overlayPane" } = {}) {
  const Layer = L.Layer.extend({
    onAdd() {
      this.element = h("img", { src: address, alt, class: "ground-picture leaflet-zoom-hide", decoding: "async" });
      this.element.addEventListener("error", () => this.element.remove());
      map.getPane(pane).append(this.element);
      this.place();
      map.on("zoomend viewreset", this.place, this);
    },
    onRemove() {
      map.off("zoomend viewreset", this.place, this);
      this.element.remove();
    },
    place() {
      const [bottomLeft, bottomRight, topRight, topLeft] = ring.map((corner) => map.latLngToLayerPoint(corner));
      this.element.style.transform = projection([topLeft, topRight, bottomRight, bottomLeft]);
    },
  });
  return new Layer();
}

// The CSS matrix that takes a square of 256 px to four corners, clockwise from the top left: a projective map.
function projection([a, b, c, d]) {
  const [dx1, dx2, dx3] = [b.x - c.x, d.x - c.x, a.x - b.x + c.x - d.x];
  const [dy1, dy2, dy3] = [b.y - c.y, d.y - c.y, a.y - b.y + c.y - d.y];
  const det = dx1 * dy2 - dx2 * dy1 || 1e-9;
  const [g, k] = [(dx3 * dy2 - dx2 * dy3) / det, (dx1 * dy3 - dx3 * dy1) / det];
  const s = 1 / 256;
  const cells = [
    (b.x - a.x + g * b.x) * s, (b.y - a.y + g * b.y) * s, 0, g * s,
    (d.x - a.x + k * d.x) * s, (d.y - a.y + k * d.y) * s, 0, k * s,
    0, 0, 1, 0, a.x, a.y, 0, 1,
  ];
  return `matrix3d(${cells.map((one) => one.toFixed(9)).join(",")})`;
}
