// Builds elements, figures and curves. Texts are always inserted as text, and never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Create an element with a class and children, which are elements or texts. */
function make(tag, kind = "", ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set a text only if it differs, so that selections and screen readers are not disturbed. */
function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

function setClass(element, kind) {
  if (element.className !== kind) element.className = kind;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (count >= 999.5 && at < units.length - 1) { count /= 1000; at += 1; }
  return `${at && count < 99.5 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

function many(count, thing) {
  return `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
}

/** Format a duration in its two largest units. */
function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  const [size, unit] = parts[first];
  const next = parts[first + 1];
  const rest = next ? Math.floor((whole % size) / next[0]) : 0;
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${next[1]}` : ""}`;
}

function milliseconds(value) {
  if (value === null) return "–";
  return value < 10 ? `${value.toFixed(1)} ms` : value < 10000 ? `${Math.round(value)} ms` : duration(value / 1000);
}

function clock(iso) {
  return new Date(iso).toLocaleString(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** One or more curves over the same time; null is a gap. ``unit`` is the minimum of the full scale. */
class Spark {
  constructor(kinds, unit) {
    this.unit = unit;
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("class", "spark");
    this.element.setAttribute("viewBox", "0 0 100 30");
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("aria-hidden", "true");
    this.path("base").setAttribute("d", "M0 29.5H100");
    this.curves = kinds.map((kind) => [this.path(`area ${kind}`), this.path(`line ${kind}`)]);
  }

  path(kind) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", kind);
    this.element.append(path);
    return path;
  }

  show(series, length) {
    const top = Math.max(this.unit, ...series.flat().filter((value) => value !== null));
    series.forEach((values, which) => {
      const points = values.map((value, at) => value === null ? null : [
        (100 * (length - values.length + at)) / (length - 1), 29 - (27 * value) / top,
      ]);
      const runs = points.reduce((found, point) => {
        if (point === null) found.push([]); else found.at(-1).push(point);
        return found;
      }, [[]]).filter((run) => run.length);
      const lines = runs.map((run) => `M${run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}${run.length === 1 ? "h0.6" : ""}`);
      const areas = runs.map((run, at) => `${lines[at]}L${run.at(-1)[0].toFixed(1)} 29.5L${run[0][0].toFixed(1)} 29.5Z`);
      this.curves[which][0].setAttribute("d", areas.join(""));
      this.curves[which][1].setAttribute("d", lines.join(""));
    });
  }
}

/** The latest values of a quantity, one per refresh. */
class History {
  constructor(length) {
    this.length = length;
    this.values = [];
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > this.length) this.values.shift();
  }
}

/** Keep one child per item, in order: created once, updated each time, moved only if necessary. */
function reconcile(parent, items, keyOf, makeOne, update) {
  const known = parent.rendered ??= new Map();
  const wanted = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let made = known.get(key);
    if (!made) known.set(key, made = makeOne(item));
    update(made, item);
    for (const element of made.elements) {
      if (element === place) place = place.nextSibling;
      else parent.insertBefore(element, place);
    }
  }
  for (const [key, made] of known) {
    if (wanted.has(key)) continue;
    made.elements.forEach((element) => element.remove());
    known.delete(key);
  }
}
