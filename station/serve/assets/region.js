// A rectangle drawn on a picture with pointer or keyboard; `value` is [x, y, width, height] in shares of the picture.

import { h } from "./dom.js";
import { t } from "./words.js";

const STEP = 0.02;
const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

export class Region {
  constructor(picture) {
    this.value = null;
    this.changed = () => {};
    this.box = h("div", { class: "region-box", hidden: true });
    this.cover = h("div", { class: "region-cover", hidden: true, tabindex: 0, role: "application", "aria-label": t("region.help") }, this.box);
    this.element = h("div", { class: "region" }, h("div", { class: "region-frame" }, picture, this.cover));
    this.cover.addEventListener("pointerdown", (event) => this.down(event));
    this.cover.addEventListener("keydown", (event) => this.key(event));
  }

  start() {
    this.cover.hidden = false;
    this.set([0.3, 0.3, 0.4, 0.4]);
    this.cover.focus();
  }

  set([x, y, width, height]) {
    const wide = clamp(width, 0.02, 1);
    const high = clamp(height, 0.02, 1);
    this.value = [clamp(x, 0, 1 - wide), clamp(y, 0, 1 - high), wide, high];
    const names = ["left", "top", "width", "height"];
    this.value.forEach((share, at) => this.box.style.setProperty(names[at], `${100 * share}%`));
    this.box.hidden = false;
    this.changed();
  }

  down(event) {
    event.preventDefault();
    this.cover.setPointerCapture(event.pointerId);
    const bounds = this.cover.getBoundingClientRect();
    const at = (one) => [clamp((one.clientX - bounds.left) / bounds.width, 0, 1), clamp((one.clientY - bounds.top) / bounds.height, 0, 1)];
    const [x, y] = at(event);
    const move = (one) => {
      const [x1, y1] = at(one);
      this.set([Math.min(x, x1), Math.min(y, y1), Math.abs(x1 - x), Math.abs(y1 - y)]);
    };
    this.cover.addEventListener("pointermove", move);
    this.cover.addEventListener("pointerup", () => this.cover.removeEventListener("pointermove", move), { once: true });
  }

  // Arrows move the rectangle, with Shift they change its size.
  key(event) {
    const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [x, y, width, height] = this.value;
    this.set(event.shiftKey ? [x, y, width + step[0], height + step[1]] : [x + step[0], y + step[1], width, height]);
  }
}
