// The words of the page in the reader's language, from one catalogue. English stands in for a missing entry.

let catalogue = {};
export let language = "en";

export async function loadWords() {
  const kept = localStorage.getItem("language");
  const wanted = kept ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  language = wanted === "zh" ? "zh" : "en";
  catalogue = await (await fetch("/assets/catalogue.json")).json();
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
}

export function setLanguage(wanted) {
  localStorage.setItem("language", wanted);
  language = wanted;
  document.documentElement.lang = wanted === "zh" ? "zh-Hans" : "en";
}

// "{count} {count|finding|findings}": a value, and a word that depends on a number.
export function t(key, values = {}) {
  const entry = catalogue[key];
  const text = entry?.[language] ?? entry?.en ?? key;
  return text.replace(/\{(\w+)(?:\|([^|}]*)\|([^}]*))?\}/g, (_, name, one, many) => {
    const value = values[name];
    if (one !== undefined) return Number(value) === 1 ? one : many;
    return typeof value === "number" ? number(value) : String(value ?? "");
  });
}

const locale = () => (language === "zh" ? "zh-CN" : "en-GB");

export function number(value, digits) {
  const options = digits === undefined ? { maximumFractionDigits: 3 } : { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(locale(), options).format(value);
}

export const percent = (share, digits = 0) =>
  new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: digits }).format(share);

export function moment(utcNs) {
  if (utcNs === null || utcNs === undefined) return t("time.unknown");
  const options = { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" };
  return `${new Intl.DateTimeFormat(locale(), options).format(new Date(Number(utcNs) / 1e6))} UTC`;
}

export function clock(utcNs) {
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false, timeZone: "UTC" };
  return new Intl.DateTimeFormat(locale(), options).format(new Date(Number(utcNs) / 1e6));
}

export function place(latDeg, lonDeg, errorM) {
  if (latDeg === null || latDeg === undefined) return "";
  const error = errorM ? ` ± ${number(Math.round(errorM))} m` : "";
  return `${latDeg.toFixed(5)}, ${lonDeg.toFixed(5)}${error}`;
}
