// Small things that everything is made of.

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "role") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

export const $ = (selector) => document.querySelector(selector);

// ---- Times

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

export function length(milliseconds) {
  if (milliseconds < SECOND) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 10 * SECOND) return `${(milliseconds / SECOND).toFixed(1)} s`;
  if (milliseconds < MINUTE) return `${Math.floor(milliseconds / SECOND)} s`;
  if (milliseconds < HOUR) return `${Math.floor(milliseconds / MINUTE)} min ${Math.floor((milliseconds % MINUTE) / SECOND)} s`;
  if (milliseconds < DAY) return `${Math.floor(milliseconds / HOUR)} h ${Math.floor((milliseconds % HOUR) / MINUTE)} min`;
  return `${Math.floor(milliseconds / DAY)} d`;
}

export function ago(time) {
  const passed = Date.now() - new Date(time);
  if (passed < 5 * SECOND) return "now";
  if (passed < MINUTE) return `${Math.floor(passed / SECOND)} s ago`;
  if (passed < HOUR) return `${Math.floor(passed / MINUTE)} min ago`;
  if (passed < DAY) return `${Math.floor(passed / HOUR)} h ago`;
  return `${Math.floor(passed / DAY)} d ago`;
}

export const clock = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
export const day = (time) => new Date(time).toLocaleDateString([], { weekday: "short", year: "numeric", month: "short", day: "numeric" });
export const when = (time) => el("time", { dateTime: time, title: new Date(time).toLocaleString() }, ago(time));

// ---- A list of rows of one height, of which only those in sight are there.

export class Rows {
  #draw;
  #count = 0;
  #inside = el("div", { className: "rows" });
  #nodes = new Map();

  constructor(frame, height, draw) {
    this.frame = frame;
    this.height = height;
    this.#draw = draw;
    frame.append(this.#inside);
    frame.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(frame);
  }

  show(count) {
    this.#count = count;
    this.#inside.style.height = `${count * this.height}px`;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.frame.scrollTop / this.height) - 5);
    const last = Math.min(this.#count, Math.ceil((this.frame.scrollTop + this.frame.clientHeight) / this.height) + 5);
    for (const [index, node] of this.#nodes) {
      if (index >= first && index < last) continue;
      node.remove();
      this.#nodes.delete(index);
    }
    for (let index = first; index < last; index++) {
      const row = this.#draw(index);
      row.style.top = `${index * this.height}px`;
      const old = this.#nodes.get(index);
      if (!old) {
        this.#nodes.set(index, row);
        this.#inside.append(row);
      } else if (!old.isEqualNode(row)) {
        // The row itself stays: who presses a button on it, releases it on the same one.
        for (const { name, value } of row.attributes) old.setAttribute(name, value);
        for (const name of old.getAttributeNames()) if (!row.hasAttribute(name)) old.removeAttribute(name);
        old.replaceChildren(...row.childNodes);
      }
    }
  }

  // The row under a pointer.
  at(event) {
    return Math.floor((event.clientY - this.#inside.getBoundingClientRect().top) / this.height);
  }

  reveal(index) {
    const top = index * this.height;
    if (top < this.frame.scrollTop) this.frame.scrollTop = top;
    else if (top + this.height > this.frame.scrollTop + this.frame.clientHeight) {
      this.frame.scrollTop = top + this.height - this.frame.clientHeight;
    }
  }

  center(index) {
    this.frame.scrollTop = index * this.height - (this.frame.clientHeight - this.height) / 2;
  }

  get isAtEnd() {
    return this.frame.scrollTop + this.frame.clientHeight >= this.#count * this.height - this.height / 2;
  }

  toEnd() {
    this.frame.scrollTop = this.#count * this.height;
  }
}

// ---- Asking first

export function confirmed(title, text, act) {
  const dialog = $("#confirm");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = text;
  dialog.querySelector("[value=yes]").textContent = act;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
}

// ---- ANSI escape sequences (ECMA-48): colours and styles are kept, everything else is left out.

const SEQUENCE = /\x1b(?:\[([0-9;:]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f]/g;
const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };

function indexed(index) {
  if (index < 16) return index;
  if (index >= 232) return `rgb(${Array(3).fill(8 + (index - 232) * 10)})`;
  const part = (value) => (value ? 55 + value * 40 : 0);
  const rest = index - 16;
  return `rgb(${part(Math.floor(rest / 36))},${part(Math.floor(rest / 6) % 6)},${part(rest % 6)})`;
}

function restyle(style, codes) {
  const now = { ...style };
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 0) for (const name of Object.keys(now)) delete now[name];
    else if (STYLES[code]) now[STYLES[code]] = true;
    else if (OFF[code]) for (const name of OFF[code]) delete now[name];
    else if (code >= 30 && code <= 37) now.front = code - 30;
    else if (code >= 90 && code <= 97) now.front = code - 82;
    else if (code >= 40 && code <= 47) now.back = code - 40;
    else if (code >= 100 && code <= 107) now.back = code - 92;
    else if (code === 39) delete now.front;
    else if (code === 49) delete now.back;
    else if (code === 38 || code === 48) {
      const side = code === 38 ? "front" : "back";
      if (codes[at + 1] === 5) now[side] = indexed(codes[(at += 2)] ?? 0);
      else if (codes[at + 1] === 2) {
        now[side] = `rgb(${codes.slice(at + 2, at + 5)})`;
        at += 4;
      }
    }
  }
  return now;
}

// A line as pieces of one style, and the style that the next line begins with.
export function ansi(text, style = {}) {
  const pieces = [];
  let from = 0;
  const push = (piece) => {
    const clean = piece.replace(CONTROLS, "");
    if (clean) pieces.push({ text: clean, style });
  };
  for (const found of text.matchAll(SEQUENCE)) {
    push(text.slice(from, found.index));
    from = found.index + found[0].length;
    if (found[2] === "m") style = restyle(style, (found[1] || "0").split(/[;:]/).map(Number));
  }
  push(text.slice(from));
  return { pieces, style };
}

export function styled({ text, style }) {
  const names = Object.keys(style);
  if (!names.length) return document.createTextNode(text);
  const node = el("span", {}, text);
  for (const name of names) {
    if (name !== "front" && name !== "back") node.classList.add(name);
    else if (typeof style[name] === "number") node.classList.add(`${name}-${style[name]}`);
    else node.style[name === "front" ? "color" : "backgroundColor"] = style[name];
  }
  return node;
}
