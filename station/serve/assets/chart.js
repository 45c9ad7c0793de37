// Two small charts: a line over the number of examples, and a histogram with a threshold that can be moved.

import { h, svg } from "./dom.js";
import { number, percent, t } from "./words.js";

const WIDE = 480, HIGH = 200, LEFT = 44, BOTTOM = 30, TOP = 12, RIGHT = 12;

const along = (value, least, most) => LEFT + ((value - least) / (most - least || 1)) * (WIDE - LEFT - RIGHT);
const up = (value, least, most) => HIGH - BOTTOM - ((value - least) / (most - least || 1)) * (HIGH - BOTTOM - TOP);

function grid(levels, least, most, name) {
  return levels.map((level) => [
    svg("line", { class: "chart-grid", x1: LEFT, x2: WIDE - RIGHT, y1: up(level, least, most), y2: up(level, least, most) }),
    svg("text", { class: "chart-text", x: LEFT - 8, y: up(level, least, most) + 4, "text-anchor": "end" }, name(level)),
  ]);
}

// `series` is [{ name, kind, points: [[x, y, spread], …] }] with y between 0 and 1.
export function curve(series, { title, along: across }) {
  const xs = series.flatMap(({ points }) => points.map(([x]) => x));
  const [least, most] = [Math.min(...xs), Math.max(...xs)];
  const lines = series.map(({ kind, points }) => [
    svg("polyline", { class: `chart-line ${kind}`, points: points.map(([x, y]) => `${along(x, least, most)},${up(y, 0, 1)}`).join(" ") }),
    points.map(([x, y, spread]) => spread ? svg("line", { class: `chart-line spread ${kind}`, x1: along(x, least, most), x2: along(x, least, most), y1: up(Math.min(1, y + spread), 0, 1), y2: up(Math.max(0, y - spread), 0, 1) }) : null),
    points.map(([x, y]) => svg("circle", { class: `chart-dot ${kind}`, cx: along(x, least, most), cy: up(y, 0, 1), r: 3.5 })),
  ]);
  const marks = [...new Set(xs)].map((x) => svg("text", { class: "chart-text", x: along(x, least, most), y: HIGH - 10, "text-anchor": "middle" }, number(x)));
  const readout = series.map(({ name, points }) => `${name}: ${points.map(([x, y]) => `${x} → ${percent(y)}`).join(", ")}`).join("; ");
  return h("figure", { class: "chart" },
    svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}. ${readout}` }, grid([0, 0.5, 1], 0, 1, (level) => percent(level)), lines, marks),
    h("figcaption", null, series.map(({ name, kind }) => h("span", { class: `key ${kind}` }, name)), h("span", { class: "soft" }, across)));
}

// `edges` has one value more than `counts`. Heights are square roots, so that few pictures are seen next to thousands.
export function histogram({ edges, counts, threshold, title }) {
  const [least, most] = [edges[0], edges[edges.length - 1]];
  const top = Math.sqrt(Math.max(1, ...counts));
  const bars = counts.map((count, at) => {
    const [x, end] = [along(edges[at], least, most), along(edges[at + 1], least, most)];
    const y = up(Math.sqrt(count), 0, top);
    return svg("rect", { class: "chart-bar", x, y, width: Math.max(0.5, end - x - 1), height: HIGH - BOTTOM - y });
  });
  const line = svg("line", { class: "chart-threshold", y1: TOP, y2: HIGH - BOTTOM });
  const ends = [least, most].map((value, at) =>
    svg("text", { class: "chart-text", x: at ? WIDE - RIGHT : LEFT, y: HIGH - 4, "text-anchor": at ? "end" : "start" }, number(value, 2)));
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": title }, bars, line, ends);
  const move = (value) => {
    const x = along(Math.min(most, Math.max(least, value)), least, most);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    bars.forEach((bar, at) => bar.classList.toggle("past", edges[at + 1] > value));
  };
  move(threshold);
  return { element: h("figure", { class: "chart" }, drawing, h("figcaption", null, h("span", { class: "soft" }, t("teach.histogram_axis")))), move };
}
