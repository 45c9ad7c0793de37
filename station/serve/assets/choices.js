// The pictures chosen as "more like this" and "not this", kept while the tab is open.

const KEY = "choices";
const read = () => { try { return JSON.parse(sessionStorage.getItem(KEY)) ?? { more: [], less: [] }; } catch { return { more: [], less: [] }; } };
const slim = ({ row, number, flight, flight_name, frame, tile, name, label }) => ({ row, number, flight, flight_name, frame, tile, name, label });

export const choices = {
  kept: read(),
  listeners: new Set(),

  get count() { return this.kept.more.length + this.kept.less.length; },
  get rows() { return { more: this.kept.more.map((hit) => hit.row), less: this.kept.less.map((hit) => hit.row) }; },

  has(kind, row) { return this.kept[kind].some((hit) => hit.row === row); },

  // Choosing again takes it back; a picture is in one of the two lists only.
  toggle(kind, hit) {
    const had = this.has(kind, hit.row);
    for (const one of ["more", "less"]) this.kept[one] = this.kept[one].filter(({ row }) => row !== hit.row);
    if (!had) this.kept[kind].push(slim(hit));
    this.save();
  },

  // What was chosen in another archive, which this address has shown before, means other rows here.
  only(flights) {
    const known = new Set(flights.map((one) => one.id));
    const kept = { more: this.kept.more.filter((hit) => known.has(hit.flight)), less: this.kept.less.filter((hit) => known.has(hit.flight)) };
    if (kept.more.length + kept.less.length === this.count) return;
    this.kept = kept;
    this.save();
  },

  clear() {
    this.kept = { more: [], less: [] };
    this.save();
  },

  save() {
    sessionStorage.setItem(KEY, JSON.stringify(this.kept));
    for (const listener of this.listeners) listener();
  },
};
