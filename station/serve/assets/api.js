// Every request of the page. All go to the station that served it.

import { askToken } from "./token.js";
import { t } from "./words.js";

const AGAIN_MS = 3000;
const HEADERS = { "X-Overflight": "page" };

async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...HEADERS, ...options.headers } });
  } catch {
    throw new Error(t("error.offline"));
  }
  if (answer.status === 401 && (await askToken())) return send(path, options);
  if (!answer.ok) throw Object.assign(new Error(await reason(answer)), { status: answer.status });
  return answer;
}

async function reason(answer) {
  try {
    const { error } = await answer.json();
    if (error) return error;
  } catch { /* the answer is no JSON: its status must do */ }
  return t("error.status", { status: answer.status });
}

const get = async (path) => (await send(path)).json();
const ask = (path, body) => send(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
const post = async (path, body) => (await ask(path, body)).json();
const raw = async (path, file) => (await send(path, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } })).json();

async function save(answer, fallback) {
  const named = /filename="?([^";]+)"?/.exec(answer.headers.get("Content-Disposition") ?? "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = named ? named[1] : fallback;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Widths come in few steps, so that a picture is made and kept once.
const STEPS = [168, 320, 480, 640, 960, 1280];
const step = (width) => STEPS.find((one) => one >= width) ?? STEPS[STEPS.length - 1];
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null));

// A picture is sent once, however often it is asked about, and again where the station has let it go since.
const sent = new WeakMap();
async function withUploads(pictures, use) {
  const old = pictures.filter((one) => sent.has(one));
  const names = [];
  for (const one of pictures) {
    if (!sent.has(one)) sent.set(one, (await api.upload(one)).upload);
    names.push(sent.get(one));
  }
  try {
    return await use(names);
  } catch (error) {
    if (error.status !== 404 || !old.length) throw error;
    for (const one of old) sent.delete(one);
    return withUploads(pictures, use);
  }
}

export const api = {
  state: () => get("/api/state"),
  // With the finding's number, which never changes, a browser may keep the picture: rows are numbered anew in each archive.
  pictureAddress: ({ row, number }, width) => `/api/rows/${row}/picture.jpg?${query({ width: step(width), of: number })}`,
  originalAddress: (row) => `/api/rows/${row}/original`,
  liveAddress: (id, frame) => `/api/live/${encodeURIComponent(id)}/picture.jpg?frame=${frame}`,
  row: (row) => get(`/api/rows/${row}`),
  neighbours: (row) => get(`/api/rows/${row}/neighbours?count=8`),
  ground: (row) => get(`/api/rows/${row}/ground`),
  search: (question) => post("/api/search", question),
  upload: (file) => raw(`/api/uploads?${query({ name: file.name })}`, file),

  findings: (filters) => get(`/api/findings?${query(filters)}`),
  mark: (number, decision) => post(`/api/findings/${encodeURIComponent(number)}`, decision),
  reviews: async () => save(await send("/api/review.zip"), "reviews.zip"),
  mergeReviews: (file) => raw(`/api/review/merge?${query({ name: file.name })}`, file),
  exportFindings: async (format, numbers) => save(await ask("/api/export", { format, numbers }), `findings.${format}`),

  teach: (chosen) => post("/api/teach", chosen),
  saveLabel: (label) => post("/api/banks", label),
  sendBank: (aircraft, bank, signature) => post(`/api/aircraft/${encodeURIComponent(aircraft)}/bank`, { bank: bank.id, ...(signature ? { signature } : {}) }),

  classify: (picture, asked) => withUploads([picture], ([upload]) => post("/api/classify", { upload, ...asked })),
  features: (pictures, format) => withUploads(pictures, async (uploads) => save(await ask("/api/features", { uploads, format }), `features.${format}`)),

  map: () => get("/api/map"),
  track: (id) => get(`/api/live/${encodeURIComponent(id)}/track`),
  addTiles: (path) => post("/api/tiles", { path }),

  // The browser connects again by itself after a loss, but not after an answer such as a proxy's 502.
  live({ aircraft, lost, found }) {
    let stream = null;
    let again = null;
    const open = () => {
      stream = new EventSource("/api/live");
      stream.addEventListener("aircraft", (event) => { found(); aircraft(JSON.parse(event.data)); });
      stream.addEventListener("error", () => {
        lost();
        if (stream.readyState === EventSource.CLOSED) again = setTimeout(open, AGAIN_MS);
      });
    };
    open();
    return { close() { clearTimeout(again); stream.close(); } };
  },
};
