// A map that needs no internet: land and borders from the package, a graticule, a scale bar, and the user's own tiles.

import { h } from "./dom.js";
import { readTopology } from "./topology.js";
import { number, t } from "./words.js";

let loading = null;

function script(address) {
  return new Promise((done, fail) => {
    const element = h("script", { src: address, onload: done, onerror: () => fail(new Error(t("map.failed"))) });
    document.head.append(element);
  });
}

function sheet(address) {
  return new Promise((done, fail) => {
    const element = h("link", { rel: "stylesheet", href: address, onload: done, onerror: () => fail(new Error(t("map.failed"))) });
    document.head.prepend(element);
  });
}

async function load() {
  const world = fetch("/assets/vendor/world.json").then((answer) => answer.json());
  await Promise.all([sheet("/assets/vendor/leaflet.css"), script("/assets/vendor/leaflet.js")]);
  return { L: globalThis.L, world: readTopology(await world) };
}

const STEPS = [45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002];

function stepFor(map) {
  const bounds = map.getBounds();
  const extent = Math.max(bounds.getEast() - bounds.getWest(), 1e-4);
  const most = Math.max(2, map.getSize().x / 95); // a label needs so many pixels
  return [...STEPS].reverse().find((step) => extent / step <= most) ?? STEPS[0];
}

function degrees(value, positive, negative, step) {
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return `${number(Math.abs(value), digits)}° ${value < 0 ? negative : value > 0 ? positive : ""}`.trim();
}

function graticule(L, map) {
  const layer = L.layerGroup().addTo(map);
  const label = (lat, lon, text, side) => L.marker([lat, lon], {
    interactive: false, keyboard: false, icon: L.divIcon({ className: `degree ${side}`, html: h("span", null, text), iconSize: [0, 0] }),
  });
  const draw = () => {
    layer.clearLayers();
    const [bounds, step] = [map.getBounds(), stepFor(map)];
    const line = (points) => layer.addLayer(L.polyline(points, { className: "graticule", interactive: false, weight: 1, pane: "lines" }));
    const [south, north] = [Math.max(-85, bounds.getSouth()), Math.min(85, bounds.getNorth())];
    for (let lon = Math.ceil(bounds.getWest() / step) * step; lon <= bounds.getEast(); lon += step) {
      line([[south, lon], [north, lon]]);
      layer.addLayer(label(south, lon, degrees(lon, t("map.east"), t("map.west"), step), "south"));
    }
    for (let lat = Math.ceil(south / step) * step; lat <= north; lat += step) {
      line([[lat, bounds.getWest()], [lat, bounds.getEast()]]);
      layer.addLayer(label(lat, bounds.getWest(), degrees(lat, t("map.north"), t("map.south"), step), "west"));
    }
  };
  map.on("moveend zoomend resize", draw);
  draw();
}

// Returns { L, map } in `element`; the map shows the world until it is moved.
export async function basemap(element, { controls = true } = {}) {
  loading ??= load();
  const { L, world } = await loading;
  const map = L.map(element, {
    attributionControl: false, zoomControl: false, minZoom: 1, maxZoom: 23, worldCopyJump: true, preferCanvas: false,
    zoomSnap: 0.5, maxBoundsViscosity: 1, maxBounds: [[-89, -Infinity], [89, Infinity]],
  });
  map.createPane("land").style.zIndex = 150;
  map.createPane("lines").style.zIndex = 350;
  L.polygon(world.land, { className: "land", interactive: false, pane: "land", smoothFactor: 1.2 }).addTo(map);
  L.polyline(world.borders, { className: "borders", interactive: false, pane: "land", smoothFactor: 1.2 }).addTo(map);
  if (controls) L.control.zoom({ position: "topright", zoomInTitle: t("map.nearer"), zoomOutTitle: t("map.further") }).addTo(map);
  L.control.scale({ position: "bottomright", imperial: false, maxWidth: 130 }).addTo(map);
  map.setView([25, 10], 2);
  graticule(L, map);
  element.setAttribute("role", "region");
  element.setAttribute("aria-label", t("map.name"));
  return { L, map };
}
