// The frame of the page: words, tabs, and one view at a time, loaded when it is first opened.

import { api } from "./api.js";
import { choices } from "./choices.js";
import { button, fill, h, icon } from "./dom.js";
import { bindKeys, keyHelp } from "./keys.js";
import { problem } from "./notices.js";
import { language, loadWords, setLanguage, t } from "./words.js";

const VIEWS = ["live", "search", "review", "upload", "teach", "map"];
const app = document.getElementById("app");
let main = null;
let leave = () => {};
let turn = 0;

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: VIEWS.includes(path) ? path : "live", query: new URLSearchParams(query) };
}

function tab(name) {
  return h("a", { href: `#/${name}`, "data-view": name }, icon(name), h("span", null, t(`tab.${name}`)));
}

function otherTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
}

function frame() {
  const other = language === "zh" ? "en" : "zh";
  const switchLanguage = () => { setLanguage(other); frame(); show(); };
  const skip = h("a", { class: "button skip", href: "#main" }, t("frame.skip"));
  skip.addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
  main = h("main", { id: "main", tabindex: "-1" });
  fill(app, skip,
    h("header", { class: "top" },
      h("a", { class: "brand", href: "#/live" }, h("img", { src: "/assets/mark.svg", alt: "", width: 28, height: 28 }), "Overflight"),
      h("nav", { class: "tabs", "aria-label": t("frame.views") }, VIEWS.map(tab)),
      h("div", { class: "tools" },
        button(t("frame.other_language"), { kind: "quiet tiny", lang: other === "zh" ? "zh-Hans" : "en", id: "language", onclick: switchLanguage }),
        button(t("frame.theme"), { symbol: "dark", only: true, kind: "quiet round", id: "theme", onclick: otherTheme }),
        button(t("frame.help"), { symbol: "help", only: true, kind: "quiet round", id: "help", onclick: keyHelp }))),
    main,
    h("div", { id: "announce", class: "unseen", role: "status", "aria-live": "polite" }));
}

async function show() {
  const { view, query } = address();
  const mine = ++turn;
  leave();
  leave = () => {};
  bindKeys([]);
  for (const link of app.querySelectorAll(".tabs a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${t(`tab.${view}`)} · Overflight`;
  main.className = view;
  main.removeAttribute("data-ready");
  fill(main, h("p", { class: "wait" }, t("frame.loading")));
  try {
    const [module, state] = await Promise.all([import(`/assets/views/${view}.js`), api.state()]);
    if (mine !== turn) return;
    fill(main);
    choices.only(state.flights);
    const gone = await module.show(main, { query, state });
    if (mine === turn) leave = gone ?? leave;
    else gone?.();
  } catch (error) {
    if (mine === turn) fill(main, problem(error, show));
  }
  if (mine === turn) main.setAttribute("data-ready", view);
}

import(`/assets/views/${address().view}.js`).catch(() => {}); // fetched while the words come
await loadWords();
frame();
addEventListener("hashchange", () => { show(); scrollTo(0, 0); });
await show();
