// The findings of a review, fetched in pages as the list is scrolled, and their small pictures when scrolling rests.

import { api } from "./api.js";

const PAGE = 250;
const REST_MS = 90;

export class Findings {
  constructor(changed) {
    this.changed = changed;
    this.wanted = new Map();
    this.reset();
  }

  reset() {
    this.turn = (this.turn ?? 0) + 1;
    this.pages = new Map();
    this.asked = new Map();
    this.total = 0;
  }

  async start(filters) {
    this.reset();
    this.filters = filters;
    await this.fetchPage(0);
    return this.total;
  }

  fetchPage(page) {
    const known = this.asked.get(page);
    if (known) return known;
    const turn = this.turn;
    const asking = api.findings({ ...this.filters, offset: page * PAGE, limit: PAGE }).then(({ total, items }) => {
      if (turn !== this.turn) return;
      this.pages.set(page, items);
      this.total = total;
      this.changed();
    });
    asking.catch(() => this.asked.delete(page));
    this.asked.set(page, asking);
    return asking;
  }

  need(first, last) {
    if (last <= first) return;
    for (let page = Math.floor(first / PAGE); page <= Math.floor((last - 1) / PAGE); page += 1) this.fetchPage(page).catch(() => {});
  }

  at(index) {
    return index < 0 ? undefined : this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  async wait(index) {
    await this.fetchPage(Math.floor(index / PAGE));
    return this.at(index);
  }

  change(index, changed) {
    const page = this.pages.get(Math.floor(index / PAGE));
    if (page) page[index % PAGE] = { ...page[index % PAGE], ...changed };
  }

  // A picture is asked for only when the list rests: a fast scroll over thousands asks for none.
  picture(element, finding) {
    const address = finding ? api.pictureAddress(finding, 168) : "";
    if (element.dataset.address === address) return;
    element.dataset.address = address;
    element.removeAttribute("src");
    this.wanted.set(element, address);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      for (const [image, source] of this.wanted) if (source && image.isConnected) image.src = source;
      this.wanted.clear();
    }, REST_MS);
  }

  close() {
    clearTimeout(this.timer);
    this.turn += 1;
  }
}
