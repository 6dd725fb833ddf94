// One object in full.

import { objectPath, request, tone } from "./data.js";
import { Log } from "./log.js";
import { clock, confirmed, day, el, length, when } from "./parts.js";

const TABS = {
  exec: ["Output", "Program", "Timeline", "Events"],
  container: ["Timeline", "Execs", "Container", "Events"],
};

export class Detail {
  #frame;
  #objects;
  #open;
  #shown = null;
  #tab = { exec: "Output", container: "Timeline" };
  #log = null;
  #told = null;
  #asking = 0;
  #timer = 0;

  constructor(frame, objects, open) {
    this.#frame = frame;
    this.#objects = objects;
    this.#open = open;
    this.show(null, null);
    objects.addEventListener("changed", ({ detail: { kind, key } }) => {
      if (!this.#shown || kind !== this.#shown.kind || (key && key !== this.#shown.key)) return;
      // Changes come in groups.
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#ask(), 80);
    });
  }

  show(kind, key) {
    if (key && this.#shown?.kind === kind && this.#shown.key === key) return;
    this.#log?.close();
    this.#log = null;
    this.#told = null;
    this.#shown = key ? { kind, key } : null;
    this.#frame.classList.toggle("open", Boolean(key));
    if (!key) return this.#frame.replaceChildren(el("p", { className: "dim hint" }, "Choose one by a click, or by the keys j and k."));
    this.#frame.replaceChildren(el("p", { className: "dim pad" }, "…"));
    this.#ask();
  }

  async #ask() {
    if (!this.#shown) return;
    const { kind, key } = this.#shown;
    const turn = ++this.#asking;
    let told;
    try {
      told = await (await request(objectPath(kind, key))).json();
    } catch (error) {
      if (turn !== this.#asking) return;
      if (error.code === 404) return this.show(null, null);
      this.#problem(error.message);
      return;
    }
    if (turn !== this.#asking) return;
    this.#told = told;
    this.#draw();
  }

  // What goes on shows how long it has.
  tick() {
    const place = this.#shown?.kind === "exec" && this.#frame.querySelector("header > .state.busy");
    if (place && this.#it) place.textContent = sentence(this.#it);
  }

  get #it() {
    return this.#objects.kinds[this.#shown.kind].get(this.#shown.key);
  }

  #draw() {
    const { kind, key } = this.#shown;
    const it = this.#it;
    if (!it || !this.#told) return;
    const [namespace, name] = key.split("/");
    const tabs = TABS[kind].map((tab, index) =>
      el("button", { role: "tab", title: `${tab} (${index + 1})`, "aria-selected": String(tab === this.#tab[kind]), onclick: () => this.tab(index) }, tab));
    const head = el("header", {},
      el("h2", {}, el("button", { className: "icon back", "aria-label": "Back", onclick: () => this.#open(kind, null) }, "‹"),
        el("span", { className: `dot ${it.tone}` }), name, namespace !== "default" && el("small", {}, ` in ${namespace}`)),
      kind === "exec" ? this.#acts(it) : "",
      el("p", { className: `state ${it.tone}` }, kind === "exec" ? sentence(it) : containerSentence(it)),
      kind === "exec" && el("ul", { className: "why" }, this.#told.explanation.map(reason)),
      el("p", { className: "problem bad", role: "alert" }),
      el("div", { className: "tabs", role: "tablist" }, tabs));
    const body = el("div", { className: "body" }, this.#body(kind, it));
    const before = this.#frame.querySelector(".body");
    const scrolled = before?.dataset.tab === this.#tab[kind] ? before.scrollTop : 0;
    body.dataset.tab = this.#tab[kind];
    // The output stays where it is: moving it would lose its place.
    if (before && this.#log && before.firstChild === this.#log.node && this.#tab[kind] === "Output") {
      this.#frame.querySelector("header").replaceWith(head);
    } else {
      this.#frame.replaceChildren(head, body);
      body.scrollTop = scrolled;
    }
  }

  #body(kind, it) {
    switch (this.#tab[kind]) {
      case "Output": return this.#output(it);
      case "Program": return program(this.#told.object);
      case "Timeline": return this.#timeline(it);
      case "Execs": return this.#execs(it);
      case "Container": return container(this.#told.object);
      default: return events(this.#told.events);
    }
  }

  tab(index) {
    const { kind } = this.#shown ?? {};
    const tab = kind && TABS[kind][index];
    if (!tab) return;
    this.#tab[kind] = tab;
    this.#draw();
  }

  #output(it) {
    if (it.run === null || it.run === undefined) return el("p", { className: "dim pad" }, "It has not run, so there is no output.");
    // A start that failed is tried again under the number of the same run, with an output of its own.
    const which = `${it.run} ${it.state === "FailedToStart"}`;
    if (this.#log?.which !== which) {
      this.#log?.close();
      this.#log = new Log(it.run);
      this.#log.which = which;
    }
    return this.#log.node;
  }

  searchOutput() {
    if (this.#shown?.kind !== "exec") return;
    this.tab(0);
    this.#log?.search.focus();
  }

  follow() {
    this.#log?.follow.click();
  }

  // ---- What can be done

  #acts(it) {
    const running = it.tone === "busy";
    return el("div", { className: "acts" },
      el("button", { title: "r", onclick: () => this.rerun(), disabled: running }, "Run once more"),
      el("button", { title: "s", onclick: () => this.stop(), disabled: !running || it.stopping }, it.stopping && running ? "Stopping…" : "Stop"),
      el("button", { title: "x", onclick: () => this.forget(), disabled: running || !it.run }, "Forget"));
  }

  async #act(ask, path) {
    if (!(await confirmed(...ask))) return;
    this.#problem("");
    try {
      await request(path, { method: "POST" });
    } catch (error) {
      this.#problem(error.message);
    }
    this.#ask();
  }

  #problem(text) {
    const place = this.#frame.querySelector(".problem");
    if (place) place.textContent = text;
    else this.#frame.replaceChildren(el("p", { className: "problem bad pad", role: "alert" }, text));
  }

  rerun() {
    if (this.#shown?.kind !== "exec" || this.#it?.tone === "busy") return;
    const { key } = this.#shown;
    this.#act([`Run ${key} once more?`, `Its program is started again in ${this.#it.container ?? "its container"}. What it did before is not undone.`, "Run once more"], `${objectPath("exec", key)}/rerun`);
  }

  stop() {
    if (this.#shown?.kind !== "exec" || this.#it?.tone !== "busy") return;
    const { key } = this.#shown;
    this.#act([`Stop ${key}?`, "The program and its children are asked to end, and killed where they do not. It counts as run: it is not started again by itself.", "Stop"], `${objectPath("exec", key)}/stop`);
  }

  forget() {
    if (this.#shown?.kind !== "exec" || !this.#it?.run || this.#it.tone === "busy") return;
    const { key } = this.#shown;
    const { run } = this.#it;
    this.#act([`Forget run ${run} of ${key}?`, "Its outcome and output are removed, here and in its container. Its program runs again when an object asks for it; this one may do so at once.", "Forget"], `runs/${run}/forget`);
  }

  // ---- Tabs

  #timeline(it) {
    const entries = this.#told.runs.map((run) => ({ at: run.started ?? run.claimed, run }));
    for (const exec of this.#objects.kinds.exec.values()) {
      if (exec.restored && exec.container === it.container) entries.push({ at: exec.created, exec });
    }
    if (!entries.length) return el("p", { className: "dim pad" }, "Nothing has run in this container.");
    entries.sort((one, two) => (one.at < two.at ? 1 : -1));
    const took = (run) => (run.started && run.finished ? new Date(run.finished) - new Date(run.started) : 0);
    const longest = Math.max(1, ...this.#told.runs.map(took));
    const nodes = [];
    let date, id;
    for (const { at, run, exec } of entries) {
      if (day(at) !== date) nodes.push(el("h3", {}, (date = day(at))));
      if (run && id && run.container !== id) nodes.push(el("p", { className: "dim cut" }, `container ${id.slice(0, 12)} was made anew`));
      if (run) id = run.container;
      nodes.push(run ? ran(run, took(run), longest) : this.#restored(exec));
    }
    return el("div", { className: "timeline" }, nodes);
  }

  #restored(exec) {
    return el("div", { className: "entry quiet" },
      el("time", { dateTime: exec.created }, clock(exec.created)), el("span", { className: "dot hollow" }),
      el("span", { className: "name" }, plain(exec.key)), el("span", { className: "dim" }, `asked for again; run ${exec.run} was restored, nothing was started`));
  }

  #execs(it) {
    const execs = [...this.#objects.kinds.exec.values()].filter((exec) =>
      exec.object === this.#shown.key.split("/")[1] || (it.container && exec.container === it.container));
    if (!execs.length) return el("p", { className: "dim pad" }, "No exec is for this container.");
    return el("div", { className: "timeline" }, execs.map((exec) =>
      el("button", { className: "entry", onclick: () => this.#open("exec", exec.key) },
        el("span", { className: `dot ${exec.tone}` }), el("span", { className: "name" }, plain(exec.key)), el("span", { className: exec.tone === "bad" ? "bad" : "dim" }, sentence(exec)))));
  }
}

const plain = (key) => key.replace(/^default\//, "");

function reason(line) {
  return el("li", { className: line.startsWith("  ") ? "difference" : "" }, line.trimEnd());
}

function ran(run, took, longest) {
  const how = tone("exec", run);
  const what = run.state === "Finished" ? `exit ${run.exit}` : run.state;
  const bar = el("span", { className: `bar ${how}` });
  bar.style.width = `${4 + 76 * (Math.log1p(took) / Math.log1p(longest))}px`;
  return el("div", { className: "entry", title: run.message || undefined },
    el("time", { dateTime: run.started ?? run.claimed }, clock(run.started ?? run.claimed)), el("span", { className: `dot ${how}` }),
    el("span", { className: "name" }, plain(run.name)),
    el("span", { className: how === "bad" ? "bad" : "dim" }, bar, took ? `${what}, ${length(took)}` : what), el("span", { className: "dim number" }, `run ${run.run}`));
}

export function sentence(it) {
  const took = it.started && it.finished ? ` after ${length(new Date(it.finished) - new Date(it.started))}` : "";
  switch (it.state) {
    case "Finished": return `${it.restored ? "restored: " : ""}exit ${it.exit}${took}`;
    case "Running": return it.stopping ? "is being stopped" : `running for ${length(Date.now() - new Date(it.started))}`;
    case "Claimed":
    case "Starting": return "being started";
    case "FailedToStart": return `could not be started: ${it.message ?? ""}`;
    case "Interrupted": return `interrupted${took}: ${it.message ?? ""}`;
    case "Unknown": return `outcome unknown: ${it.message ?? ""}`;
    default: return it.message ? `waiting: ${it.message}` : "waiting";
  }
}

export function containerSentence(it) {
  const health = it.health ? `, ${it.health.toLowerCase()}` : "";
  const exit = it.exit === null || it.exit === undefined || it.state === "Running" ? "" : ` with exit code ${it.exit}`;
  return `${(it.state ?? "not looked at yet").toLowerCase()}${health}${exit}${it.message ? `: ${it.message}` : ""}`;
}

function table(rows) {
  const shown = rows.filter(([, value]) => value !== undefined && value !== null && value !== "" && value.length !== 0);
  return el("dl", { className: "fields" }, shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function program({ spec, status = {} }) {
  const args = status.effectiveArgs ?? spec.args ?? [];
  const variables = status.effectiveEnv ?? [];
  return el("div", { className: "pad" },
    table([
      ["Command", el("code", {}, spec.command)],
      ["Arguments", args.map((arg) => el("code", { className: "arg" }, arg))],
      ["Directory", spec.workingDirectory],
      ["User", spec.user],
      ["Container", [status.containerName ?? spec.containerName ?? spec.engineContainer, status.containerId && el("small", { className: "dim" }, ` ${status.containerId.slice(0, 12)}`)]],
      ["Run", status.runId?.toString()],
      ["Watched by", status.capture && [status.capture, status.captureReason && el("small", { className: "dim" }, ` ${status.captureReason}`)]],
      ["Started", status.startupTimestamp && new Date(status.startupTimestamp).toLocaleString()],
      ["Finished", status.finishTimestamp && new Date(status.finishTimestamp).toLocaleString()],
    ]),
    el("h3", {}, "Environment"),
    variables.length
      ? el("dl", { className: "fields env" }, variables.flatMap(({ name, value }) => [el("dt", {}, el("code", {}, name)), el("dd", {}, el("code", {}, value))]))
      : el("p", { className: "dim" }, "No variables were set for it."));
}

function container({ spec, status = {} }) {
  const port = (port) => `${port.hostIP}:${port.hostPort} → ${port.containerPort}/${port.protocol.toLowerCase()}`;
  return el("div", { className: "pad" }, table([
    ["Engine's name", status.containerName],
    ["ID", status.containerId && el("code", {}, status.containerId)],
    ["Engine", status.engine],
    ["Image", spec.image],
    ["Mode", spec.mode],
    ["Ports", (status.ports ?? []).map((each) => el("div", {}, port(each)))],
    ["Address", status.address],
    ["Lifecycle key", status.lifecycleKey && el("code", {}, status.lifecycleKey)],
    ["Started", status.startupTimestamp && new Date(status.startupTimestamp).toLocaleString()],
    ["Ended", status.finishTimestamp && new Date(status.finishTimestamp).toLocaleString()],
  ]));
}

function events(events) {
  if (!events.length) return el("p", { className: "dim pad" }, "No events.");
  return el("div", { className: "timeline" }, events.map((event) =>
    el("div", { className: "entry event" }, event.at ? when(event.at) : el("time"),
      el("span", { className: `dot ${event.type === "Warning" ? "bad" : "hollow"}` }),
      el("strong", {}, event.reason), el("span", {}, event.message))));
}
