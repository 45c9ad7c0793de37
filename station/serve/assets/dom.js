// Builds elements. Text always becomes a text node, so nothing that comes from a file is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function apply(element, properties) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function h(name, properties, ...children) {
  const element = document.createElement(name);
  apply(element, properties);
  append(element, children);
  return element;
}

export function svg(name, properties, ...children) {
  const element = document.createElementNS(SVG, name);
  apply(element, properties);
  append(element, children);
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

// One path each on a grid of 24: lines of weight 1.6, round ends.
const ICONS = {
  live: "M12 14a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM7.8 16.2a6 6 0 0 1 0-8.4M16.2 7.8a6 6 0 0 1 0 8.4M4.9 19.1a10 10 0 0 1 0-14.2M19.1 4.9a10 10 0 0 1 0 14.2",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4",
  review: "M4 6h9M4 12h6M4 18h9M14 13l3 3 5-6",
  upload: "M12 16V4M7 9l5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3",
  teach: "M12 4l9 4.5-9 4.5-9-4.5L12 4ZM7 11v5c0 1.500 2.500 3 5 3s5-1.500 5-3v-5M21 9v6",
  map: "M9 4L3 6.500v13.500l6-2.500 6 2.500 6-2.500V4l-6 2.500L9 4ZM9 4v13.500M15 6.500V20",
  light: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 3v1.500M12 19.500V21M3 12h1.500M19.500 12H21M5.600 5.600l1.100 1.100M17.300 17.300l1.100 1.100M5.600 18.400l1.100-1.100M17.300 6.700l1.100-1.100",
  dark: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500Z",
  help: "M9.200 9a2.800 2.800 0 1 1 4 2.600c-.8.400-1.200 1-1.200 1.900M12 17v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.500l4.500 4.500L19 7.500",
  cross: "M7 7l10 10M17 7L7 17",
  note: "M5 5h14v10H10l-5 4V5Z",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  picture: "M4 5h16v14H4V5ZM4 16l5-5 4 4 2-2 5 5M15.500 9.500v.01",
  filter: "M4 6h16M7 12h10M10 18h4",
  download: "M12 4v12M7 11l5 5 5-5M4 20h16",
  wall: "M4 4h7v7H4V4ZM13 4h7v7h-7V4ZM4 13h7v7H4v-7ZM13 13h7v7h-7v-7Z",
  open: "M14 4h6v6M20 4l-9 9M18 14v5a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1h5",
  crop: "M7 3v14h14M3 7h14v14",
  send: "M21 3L10 14M21 3l-7 18-4-7-7-4 18-7Z",
  merge: "M6 4v4a6 6 0 0 0 6 6h7M15 10l4 4-4 4M6 14v6",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  question: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM8 12h8",
};

export function icon(name) {
  const path = svg("path", { d: ICONS[name] });
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, path);
}

export function button(label, options = {}) {
  const { symbol, kind = "", only = false, ...rest } = options;
  return h(
    "button",
    { type: "button", class: `button ${kind}`, ...(only ? { "aria-label": label, title: label } : {}), ...rest },
    symbol && icon(symbol), only ? null : h("span", null, label),
  );
}
