// A picture with its caption, as walls, neighbours and previews show it.

import { api } from "./api.js";
import { button, h, icon } from "./dom.js";
import { clock, number, t } from "./words.js";

export function image(hit, width, alt) {
  const element = h("img", { src: api.pictureAddress(hit, width), alt, loading: "lazy", decoding: "async" });
  element.addEventListener("error", () => element.replaceWith(h("span", { class: "no-picture" }, icon("picture"), t("picture.none"))), { once: true });
  return element;
}

export const titleOf = (hit) => hit.name || t("picture.frame", { frame: hit.frame });

export function describe(hit) {
  const parts = [hit.flight_name, titleOf(hit), hit.tile ? t("picture.tile", { tile: hit.tile }) : null];
  return parts.filter(Boolean).join(" · ");
}

function fit(hit) {
  if (hit.percentile === undefined || hit.percentile === null) return null;
  return t("picture.percentile", { percent: number(hit.percentile, 1) });
}

// A card opens the picture. `actions` are further buttons under it, each { label, symbol, run, pressed }.
export function card(hit, { open, actions = [] }) {
  const name = describe(hit);
  const facts = [hit.label, hit.utc_ns ? clock(hit.utc_ns) : null].filter(Boolean).join(" · ");
  const better = fit(hit);
  const more = hit.grouped?.length ? t("picture.more", { count: hit.grouped.length }) : null;
  const show = h("button", { type: "button", class: "card-open", "aria-label": t("picture.open", { name }) }, image(hit, 480, ""));
  show.addEventListener("click", () => open(hit, show));
  const state = hit.state ? h("span", { class: `state ${hit.state}` }, t(`state.${hit.state}`)) : null;
  return h("figure", { class: "card", "data-row": hit.row }, show,
    h("figcaption", null, h("b", null, name), h("span", { class: "soft" }, facts), better && h("span", { class: "soft" }, better), more && h("span", { class: "soft" }, more), state,
      actions.length ? h("span", { class: "card-actions" }, actions.map((action) => choiceButton(hit, action))) : null));
}

function choiceButton(hit, { label, symbol, run, pressed, kind = "" }) {
  const element = button(label, { symbol, kind: `tiny ${kind}`, "aria-pressed": pressed ? String(pressed(hit)) : null });
  element.addEventListener("click", () => { run(hit, element); if (pressed) element.setAttribute("aria-pressed", String(pressed(hit))); });
  return element;
}

export const wall = (hits, options) => h("div", { class: "wall" }, hits.map((hit) => card(hit, options)));
