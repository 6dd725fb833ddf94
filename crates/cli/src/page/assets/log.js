// What a run wrote and writes.

import { lines } from "./data.js";
import { Rows, ansi, clock, el, styled } from "./parts.js";

const LINE = 18;

export class Log {
  #all = [];
  #shown = [];
  #open = { stdout: null, stderr: null };
  #style = { stdout: {}, stderr: {} };
  #hits = [];
  #hit = -1;
  #drawing = false;
  #ended = new AbortController();
  #stream = "both";
  #over = false;

  constructor(run) {
    this.run = run;
    this.follow = el("input", { type: "checkbox", checked: true, onchange: () => this.#draw() });
    this.times = el("input", { type: "checkbox", onchange: () => this.#draw() });
    this.search = el("input", {
      type: "search",
      placeholder: "Search the output  l",
      oninput: () => this.#find(),
      onkeydown: (event) => {
        if (event.key === "Enter") this.#step(event.shiftKey ? -1 : 1);
      },
    });
    this.search.setAttribute("aria-label", "Search the output");
    this.found = el("span", { className: "dim found", role: "status" });
    this.state = el("span", { className: "dim state", role: "status" });
    const streams = ["both", "stdout", "stderr"].map((name) =>
      el("button", { "aria-pressed": String(name === "both"), onclick: (event) => this.#choose(name, event.target) }, name));
    this.frame = el("div", { className: "lines", tabIndex: 0, role: "log", "aria-label": "Output" });
    this.node = el("div", { className: "log" },
      el("div", { className: "bar" },
        el("div", { className: "segments small", role: "group", "aria-label": "Stream" }, streams),
        this.search, this.found,
        el("label", {}, this.follow, "follow"), el("label", {}, this.times, "times"), this.state),
      this.frame);
    this.rows = new Rows(this.frame, LINE, (index) => this.#row(this.#shown[index]));
    // Whoever looks elsewhere is left there, and whoever comes back to the end goes on with it.
    this.frame.addEventListener("scroll", () => { this.follow.checked = this.rows.isAtEnd; }, { passive: true });
    this.#read();
  }

  close() {
    this.#ended.abort();
  }

  async #read() {
    const { signal } = this.#ended;
    try {
      for await (const told of lines(`runs/${this.run}/log`, signal)) {
        if (told.end) this.#over = true;
        else if (told.trouble) this.#note(told.trouble);
        else if (told.missing) this.#note(`${told.missing.toLocaleString()} bytes of ${told.stream} are missing here: it is longer than logLimitBytes, or there was no room for it`);
        else if (told.skipped) this.#note(`${told.skipped.toLocaleString()} bytes of ${told.stream} before this are not shown; oncelet logs ${this.run} prints them`);
        else this.#append(told);
        this.#draw();
      }
      if (!this.#over) this.#note("oncelet has ended; what it wrote since is not shown");
    } catch (error) {
      if (!signal.aborted) this.#note(`the output cannot be read: ${error.message}`);
    }
    this.#draw();
  }

  #note(text) {
    this.#add({ stream: "note", pieces: [{ text, style: {} }], text: "" });
  }

  #append({ stream, at, text }) {
    const parts = text.split("\n");
    parts.forEach((part, index) => {
      let line = this.#open[stream];
      if (!line && (part || index < parts.length - 1)) {
        line = { stream, at, raw: "", begin: this.#style[stream] };
        this.#open[stream] = line;
        this.#add(line);
      }
      if (!line) return;
      line.raw += part;
      // A progress bar goes back to the beginning of its line and writes it again.
      const last = line.raw.replace(/\r+$/, "").split("\r").at(-1);
      const parsed = ansi(last, line.begin);
      line.pieces = parsed.pieces;
      line.text = parsed.pieces.map((piece) => piece.text).join("");
      this.#style[stream] = parsed.style;
      if (index < parts.length - 1) this.#open[stream] = null;
    });
  }

  #add(line) {
    this.#all.push(line);
    if (this.#passes(line)) this.#shown.push(line);
  }

  #passes(line) {
    return this.#stream === "both" || line.stream === "note" || line.stream === this.#stream;
  }

  #choose(name, button) {
    this.#stream = name;
    for (const each of button.parentNode.children) each.setAttribute("aria-pressed", String(each === button));
    this.#shown = this.#all.filter((line) => this.#passes(line));
    this.#draw();
  }

  // Once a frame, however fast the output comes.
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#look();
      this.rows.show(this.#shown.length);
      if (this.follow.checked) this.rows.toEnd();
      const bytes = this.#all.length === 0 ? (this.#over ? "nothing was written" : "nothing written yet") : `${this.#all.length.toLocaleString()} ${this.#all.length === 1 ? "line" : "lines"}`;
      this.state.textContent = this.#over ? bytes : `${bytes}, goes on`;
      this.frame.classList.toggle("empty", this.#all.length === 0);
    });
  }

  #look() {
    const wanted = this.search.value.toLowerCase();
    this.#hits = [];
    if (wanted) {
      this.#shown.forEach((line, index) => {
        if (line.text.toLowerCase().includes(wanted)) this.#hits.push(index);
      });
    }
    if (this.#hit >= this.#hits.length) this.#hit = -1;
    const at = this.#hit >= 0 ? `${this.#hit + 1} of ` : "";
    this.found.textContent = wanted ? `${at}${this.#hits.length.toLocaleString()} lines` : "";
  }

  #find() {
    this.#hit = -1;
    this.#look();
    this.#step(1);
  }

  #step(by) {
    if (this.#hits.length) {
      this.#hit = (this.#hit + by + this.#hits.length) % this.#hits.length;
      this.rows.center(this.#hits[this.#hit]);
    }
    this.#draw();
  }

  #row(line) {
    const isHit = this.#hit >= 0 && this.#shown[this.#hits[this.#hit]] === line;
    const content = marked(line, this.search.value.toLowerCase());
    return el("div", { className: `line ${line.stream}${isHit ? " hit" : ""}` },
      this.times.checked && el("span", { className: "dim at" }, line.at ? clock(line.at) : ""), content);
  }
}

// A line with what is searched for in it marked, whatever styles it has on the way.
function marked({ text, pieces }, wanted) {
  if (!wanted) return pieces.map(styled);
  const edges = [];
  const lower = text.toLowerCase();
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, at + wanted.length)) edges.push(at, at + wanted.length);
  const nodes = [];
  let [offset, inside] = [0, false];
  for (const { text: piece, style } of pieces) {
    for (let from = 0; from < piece.length; ) {
      const to = Math.min(piece.length, (edges[0] ?? Infinity) - offset);
      if (to > from) {
        const node = styled({ text: piece.slice(from, to), style });
        nodes.push(inside ? el("mark", {}, node) : node);
      }
      if (offset + to === edges[0]) {
        edges.shift();
        inside = !inside;
      }
      from = to;
    }
    offset += piece.length;
  }
  return nodes;
}
