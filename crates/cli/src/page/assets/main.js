// The page: a list of objects, and one of them in full beside it.

import { Objects, takeToken } from "./data.js";
import { Detail, containerSentence, sentence } from "./detail.js";
import { $, Rows, el, when } from "./parts.js";

const CHIPS = [["bad", "Failed"], ["busy", "Running"], ["wait", "Waiting"], ["good", "Done"]];
const CONTAINER_CHIPS = [["bad", "Failed"], ["busy", "Starting"], ["wait", "Stopped"], ["good", "Running"]];
const ORDER = { bad: 0, busy: 1, wait: 2, good: 3 };
const ROW = 44;

const objects = new Objects();
const list = $("#list");
const detail = new Detail($("#detail"), objects, open);
const rows = new Rows(list, ROW, row);
const now = { kind: "exec", key: null, only: null, shown: [] };

// ---- The list

function matching() {
  const words = $("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...objects.kinds[now.kind].values()].filter((it) => {
    if (now.only && it.tone !== now.only) return false;
    if (!words.length) return true;
    const text = `${it.key} ${it.container ?? ""} ${it.command ?? it.image ?? ""} ${it.state ?? ""} ${it.message ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const latest = (it) => it.finished ?? it.started ?? it.created ?? "";
  return found.sort((one, two) => ORDER[one.tone] - ORDER[two.tone] || (latest(one) < latest(two) ? 1 : latest(one) > latest(two) ? -1 : one.key < two.key ? -1 : 1));
}

function draw() {
  now.shown = matching();
  const total = objects.kinds[now.kind].size;
  rows.show(now.shown.length);
  list.classList.toggle("empty", now.shown.length === 0);
  list.dataset.empty = total ? "Nothing matches." : objects.complete[now.kind] ? "" : "…";
  $("#start")?.remove();
  if (!total && objects.complete[now.kind]) list.append(start());
  for (const button of $("#kinds").children) {
    const { kind } = button.dataset;
    button.setAttribute("aria-selected", String(kind === now.kind));
    button.querySelector(".count").textContent = objects.kinds[kind].size.toLocaleString();
  }
  const counts = { bad: 0, busy: 0, wait: 0, good: 0 };
  for (const it of objects.kinds[now.kind].values()) counts[it.tone]++;
  $("#chips").replaceChildren(...(now.kind === "exec" ? CHIPS : CONTAINER_CHIPS).map(([tone, name]) =>
    el("button", {
      className: `chip ${counts[tone] ? tone : "none"}`,
      "aria-pressed": String(now.only === tone),
      onclick: () => {
        now.only = now.only === tone ? null : tone;
        list.scrollTop = 0;
        draw();
      },
    }, `${name} ${counts[tone].toLocaleString()}`)));
  const failed = [...objects.kinds.exec.values()].filter((it) => it.tone === "bad").length;
  document.title = failed ? `(${failed}) oncelet` : "oncelet";
  select();
}

function start() {
  return el("div", { id: "start", className: "pad dim" },
    el("p", {}, now.kind === "exec" ? "No program has been asked for yet." : "There are no Container objects yet."),
    el("pre", {}, "export KUBECONFIG=…\nkubectl apply -f deploy/samples/"));
}

function row(index) {
  const it = now.shown[index];
  const [namespace, name] = it.key.split("/");
  const text = now.kind === "exec" ? sentence(it) : containerSentence(it);
  const at = it.finished ?? it.started ?? it.created;
  return el("div", { className: `row ${it.tone}`, role: "option", id: `row-${index}`, title: text, "aria-selected": String(it.key === now.key) },
    el("span", { className: `dot ${it.tone}` }),
    el("span", { className: "name" }, namespace !== "default" && el("span", { className: "dim" }, `${namespace}/`), name),
    el("span", { className: "dim at" }, at && when(at)),
    el("span", { className: "text" }, text),
    el("span", { className: "dim where" }, it.container ?? it.image ?? ""));
}

function select() {
  const index = now.shown.findIndex((it) => it.key === now.key);
  if (index >= 0) list.setAttribute("aria-activedescendant", `row-${index}`);
  else list.removeAttribute("aria-activedescendant");
  return index;
}

function open(kind, key) {
  if (kind !== now.kind) {
    now.only = null;
    now.kind = kind;
  }
  now.key = key;
  history.replaceState(null, "", key ? `#/${kind}/${key}` : location.pathname);
  draw();
  const index = select();
  if (index >= 0) rows.reveal(index);
  detail.show(kind, key);
}

function move(by) {
  if (!now.shown.length) return;
  const index = select();
  const next = index < 0 ? (by > 0 ? 0 : now.shown.length - 1) : Math.min(now.shown.length - 1, Math.max(0, index + by));
  open(now.kind, now.shown[next].key);
}

// ---- Light and dark

function theme(next) {
  const wanted = next ?? localStorage.getItem("theme");
  if (wanted) {
    document.documentElement.dataset.theme = wanted;
    localStorage.setItem("theme", wanted);
  }
}

function turnTheme() {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  theme(dark === "dark" ? "light" : "dark");
}

// ---- Keys

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  Home: () => move(-Infinity), End: () => move(Infinity), PageDown: () => move(10), PageUp: () => move(-10),
  "/": () => $("#search").focus(), e: () => open("exec", null), c: () => open("container", null),
  1: () => detail.tab(0), 2: () => detail.tab(1), 3: () => detail.tab(2), 4: () => detail.tab(3),
  l: () => detail.searchOutput(), f: () => detail.follow(),
  r: () => detail.rerun(), s: () => detail.stop(), x: () => detail.forget(),
  t: turnTheme, "?": () => $("#help").showModal(),
  Escape: () => open(now.kind, null),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target } = event;
  const typing = target.matches("input:not([type=checkbox])");
  if (typing) {
    if (event.key === "Escape") target.blur();
    else if (target.id === "search" && (event.key === "ArrowDown" || event.key === "Enter")) {
      list.focus();
      move(event.key === "Enter" && select() >= 0 ? 0 : 1);
      event.preventDefault();
    }
    return;
  }
  // The output scrolls by these.
  if (target.matches(".lines") && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// ---- Beginning

let waiting = false;
objects.addEventListener("changed", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
});
objects.addEventListener("line", ({ detail: trouble }) => {
  const line = $("#line");
  if (line.dataset.trouble === trouble) return;
  line.dataset.trouble = trouble;
  line.textContent = trouble || "live";
  line.className = trouble ? "bad" : "live";
  line.title = trouble ? "What is shown may be old." : "";
});
objects.addEventListener("refused", ({ detail: message }) => enter(message));

list.addEventListener("click", (event) => {
  const it = now.shown[rows.at(event)];
  if (it && event.target.closest(".row")) open(now.kind, it.key);
});
$("#search").addEventListener("input", () => {
  list.scrollTop = 0;
  draw();
});
$("#theme").addEventListener("click", turnTheme);
$("#help-button").addEventListener("click", () => $("#help").showModal());
for (const button of $("#kinds").children) button.addEventListener("click", () => open(button.dataset.kind, null));
// What is going on shows how long it has.
setInterval(() => { if (!document.hidden) { rows.draw(); detail.tick(); } }, 1000);

function enter(message = "") {
  const dialog = $("#enter");
  dialog.querySelector(".bad").textContent = message;
  if (!dialog.open) dialog.showModal();
}

$("#enter").addEventListener("close", () => {
  const input = $("#enter input");
  const taken = takeToken(input.value);
  input.value = "";
  if (taken) objects.start();
  else enter("That is neither the address nor the token.");
});
// The address with a new token, given to this tab.
addEventListener("hashchange", () => {
  if (!location.hash.includes("token=") || !takeToken()) return;
  if ($("#enter").open) $("#enter").close();
  else objects.start();
});
$("#enter").addEventListener("cancel", (event) => event.preventDefault());

theme();
const wanted = /^#\/(exec|container)\/([^/]+\/[^/]+)$/.exec(location.hash);
if (wanted) open(wanted[1], decodeURIComponent(wanted[2]));
draw();
if (takeToken()) objects.start();
else enter();
