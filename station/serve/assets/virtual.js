// Shows the visible part of a long list only: 10,000 entries cost as many elements as fit the screen, and a few more.

import { h } from "./dom.js";

const SPARE = 6;

// `render(index, element)` fills a reused element. Rows have one height; columns follow the width of the scroller.
export class VirtualList {
  constructor(scroller, { height, least = 0, render, onRange = () => {}, role = "list", itemRole = "listitem" }) {
    Object.assign(this, { scroller, height, least, render, onRange, itemRole, count: 0, columns: 1 });
    this.shown = new Map();
    this.spare = [];
    this.body = h("div", { class: "virtual", role });
    scroller.append(this.body);
    this.frame = 0;
    const ask = () => { this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(); }); };
    scroller.addEventListener("scroll", ask, { passive: true });
    this.watch = new ResizeObserver(() => { this.measure(); ask(); });
    this.watch.observe(scroller);
    this.measure();
  }

  measure() {
    const width = this.body.clientWidth || this.scroller.clientWidth;
    const columns = this.least ? Math.max(1, Math.floor(width / this.least)) : 1;
    if (columns !== this.columns || width !== this.width) {
      [this.columns, this.width] = [columns, width];
      this.clear();
    }
    this.rowHeight = typeof this.height === "function" ? this.height(width / columns) : this.height;
    this.body.style.height = `${Math.ceil(this.count / this.columns) * this.rowHeight}px`;
  }

  setCount(count) {
    this.count = count;
    this.clear();
    this.measure();
    this.draw();
  }

  clear() {
    for (const element of this.shown.values()) this.retire(element);
    this.shown.clear();
  }

  retire(element) {
    element.hidden = true;
    this.spare.push(element);
  }

  draw() {
    const top = this.scroller.scrollTop - this.body.offsetTop;
    const first = Math.max(0, Math.floor(top / this.rowHeight) - SPARE) * this.columns;
    const rows = Math.ceil(this.scroller.clientHeight / this.rowHeight) + 2 * SPARE;
    const last = Math.min(this.count, first + rows * this.columns);
    for (const [index, element] of this.shown) {
      if (index < first || index >= last) {
        this.shown.delete(index);
        this.retire(element);
      }
    }
    for (let index = first; index < last; index += 1) if (!this.shown.has(index)) this.place(index);
    this.onRange(first, last);
  }

  place(index) {
    let element = this.spare.pop();
    element ??= h("div", { class: "virtual-item", role: this.itemRole });
    // The order of the elements is that of the list, for screen readers and the Tab key.
    const before = this.shown.get(index - 1);
    if (before) before.after(element);
    else this.body.prepend(element);
    const row = Math.floor(index / this.columns);
    const width = this.width / this.columns;
    element.hidden = false;
    element.style.transform = `translate(${(index % this.columns) * width}px, ${row * this.rowHeight}px)`;
    element.style.width = `${width}px`;
    element.style.height = `${this.rowHeight}px`;
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", this.count);
    this.shown.set(index, element);
    this.render(index, element);
  }

  refresh(from = 0, to = this.count) {
    for (const [index, element] of this.shown) if (index >= from && index < to) this.render(index, element);
  }

  reveal(index) {
    const top = Math.floor(index / this.columns) * this.rowHeight + this.body.offsetTop;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + clientHeight) this.scroller.scrollTop = top + this.rowHeight - clientHeight;
    this.draw();
  }

  close() {
    this.watch.disconnect();
    cancelAnimationFrame(this.frame);
  }
}
