// One picture, large: what is known of it, a region to search for, its neighbours, the same ground, and a decision.

import { api } from "./api.js";
import { choices } from "./choices.js";
import { button, fill, h } from "./dom.js";
import { announce, dialog, problem, toast, waiting } from "./notices.js";
import { describe, image } from "./pictures.js";
import { Region } from "./region.js";
import { reviewer } from "./reviewer.js";
import { moment, number, percent, place, t } from "./words.js";

export async function openPicture(hit) {
  const content = h("div", { class: "detail" });
  const { element, close } = dialog(describe(hit), content, { wide: true });
  await fillPicture(content, hit, { close, element });
}

async function fillPicture(content, hit, frame) {
  fill(content, waiting(t("frame.loading")));
  try {
    const known = { ...hit, ...(await api.row(hit.row)) };
    frame.element.querySelector("h2").textContent = describe(known);
    draw(content, known, frame);
  } catch (error) {
    fill(content, problem(error, () => fillPicture(content, hit, frame)));
  }
}

function facts(hit) {
  const list = [
    ["detail.label", hit.label ?? t("label.unknown")],
    ["detail.score", hit.score === undefined ? null : number(hit.score)],
    ["detail.percentile", hit.percentile === undefined ? null : t("picture.percentile", { percent: number(hit.percentile, 1) })],
    ["detail.background", hit.background === undefined || hit.background === null ? null : t("detail.background_text", { percent: percent(hit.background / 100) })],
    ["detail.time", hit.utc_ns ? moment(hit.utc_ns) : null],
    ["detail.place", place(hit.lat_deg, hit.lon_deg, hit.error_m)],
    ["detail.height", hit.height_m === undefined || hit.height_m === null ? null : `${number(Math.round(hit.height_m))} m`],
    ["detail.number", hit.number],
  ];
  return h("dl", { class: "facts" }, list.filter(([, value]) => value).map(([key, value]) => h("div", null, h("dt", null, t(key)), h("dd", null, value))));
}

function draw(content, hit, frame) {
  const picture = h("img", { src: api.pictureAddress(hit, 1280), alt: t("picture.of", { name: describe(hit), label: hit.label ?? t("label.unknown") }) });
  const region = new Region(picture);
  const search = (parameters) => {
    frame.close();
    location.hash = `#/search?${new URLSearchParams(parameters)}`;
  };
  const part = button(t("detail.search_part"), { symbol: "crop", id: "search-part" });
  part.addEventListener("click", () => {
    if (region.value) return search({ like: hit.row, region: region.value.map((one) => one.toFixed(4)).join(",") });
    region.start();
    part.querySelector("span").textContent = t("detail.draw_part");
  });
  region.changed = () => { part.querySelector("span").textContent = t("detail.search_marked"); part.classList.add("main"); };
  const actions = h("div", { class: "row" },
    button(t("detail.search_like"), { symbol: "search", id: "search-like", onclick: () => search({ like: hit.row }) }), part,
    choiceButton(hit, "more"), choiceButton(hit, "less"),
    h("a", { class: "button", href: api.originalAddress(hit.row), target: "_blank", rel: "noopener", id: "original" }, t("detail.original")));
  const neighbours = h("section");
  const ground = h("section");
  fill(content, region.element, h("div", { class: "detail-side stack" }, actions, facts(hit), decision(hit)), neighbours, ground);
  const open = (other) => fillPicture(content, other, frame);
  strip(neighbours, t("detail.neighbours"), t("detail.no_neighbours"), () => api.neighbours(hit.row), open);
  strip(ground, t("detail.ground"), t("detail.no_ground"), () => api.ground(hit.row), open);
}

function choiceButton(hit, kind) {
  const element = button(t(`teach.${kind}`), { symbol: kind === "more" ? "plus" : "minus", "aria-pressed": String(choices.has(kind, hit.row)), "data-choice": kind });
  element.addEventListener("click", () => {
    choices.toggle(kind, hit);
    for (const one of element.parentElement.querySelectorAll("[data-choice]")) one.setAttribute("aria-pressed", String(choices.has(one.dataset.choice, hit.row)));
    announce(t("teach.progress", { count: choices.count }));
  });
  return element;
}

async function strip(section, title, none, load, open) {
  fill(section, h("h3", null, title), waiting(t("frame.loading")));
  try {
    const hits = await load();
    const items = hits.map((hit) => h("button", { type: "button", class: "strip-item", onclick: () => open(hit), "aria-label": t("picture.open", { name: describe(hit) }) },
      image(hit, 240, ""), h("span", { class: "small" }, describe(hit)), h("span", { class: "soft small" }, hit.label ?? t("label.unknown"))));
    fill(section, h("h3", null, title), hits.length ? h("div", { class: "strip", tabindex: 0, role: "group", "aria-label": title }, items) : h("p", { class: "soft small" }, none));
  } catch (error) {
    fill(section, h("h3", null, title), problem(error));
  }
}

function decision(hit) {
  const comment = h("input", { placeholder: t("review.comment_hint"), "aria-label": t("review.comment"), maxlength: 2000 });
  const buttons = [["confirmed", "check", "yes"], ["rejected", "cross", "no"], ["unsure", "question", ""]].map(([state, symbol, kind]) => {
    const element = button(t(`decide.${state}`), { symbol, kind, "aria-pressed": String(hit.state === state), "data-decide": state });
    element.addEventListener("click", () => decide(state));
    return element;
  });
  const decide = async (state) => {
    if (!(await reviewer.ask())) return;
    try {
      Object.assign(hit, await api.mark(hit.number, { state, comment: comment.value.trim(), reviewer: reviewer.name, label: hit.label }));
      for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.decide === state));
      toast(`${hit.number}: ${t(`state.${state}`)}`);
    } catch (error) { toast(error.message); }
  };
  comment.addEventListener("keydown", (event) => {
    if (event.key === "Enter") decide(hit.reviews?.find((review) => review.reviewer === reviewer.name)?.state ?? "unsure");
  });
  return h("div", { class: "stack tight" }, h("div", { class: "row decisions" }, buttons), comment);
}
