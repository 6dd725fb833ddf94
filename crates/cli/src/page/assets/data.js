// What the daemon says: the objects, kept up to date by its feed, and requests about one of them.

const token = { value: "" };

// The token is in the part of an address that is never sent; from there it goes into this tab's memory.
export function takeToken(text = location.hash) {
  const found = /token=([\w-]+)/.exec(text) ?? /^\s*([\w-]{20,})\s*$/.exec(text);
  if (found) {
    sessionStorage.setItem("token", found[1]);
    if (location.hash.includes("token=")) history.replaceState(null, "", location.pathname);
  }
  token.value = sessionStorage.getItem("token") ?? "";
  return Boolean(token.value);
}

// A token that was refused is of an oncelet that has ended: nobody is sent it again.
export function dropToken() {
  sessionStorage.removeItem("token");
  token.value = "";
}

export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export async function request(path, options = {}) {
  const response = await fetch(`data/${path}`, {
    ...options,
    headers: { Authorization: `Bearer ${token.value}` },
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Refused(response.status, told.message ?? `${response.status} ${response.statusText}`);
}

export const objectPath = (kind, key) => `${kind}s/${key.split("/").map(encodeURIComponent).join("/")}`;

// The objects of a stream of JSON, one a line, as they come.
export async function* lines(path, signal) {
  const { body } = await request(path, { signal });
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

// How an object is doing: bad, busy, wait or good.
export function tone(kind, it) {
  if (kind === "exec") {
    if (["Interrupted", "Unknown", "FailedToStart"].includes(it.state)) return "bad";
    if (it.state === "Finished") return it.exit === 0 ? "good" : "bad";
    return ["Claimed", "Starting", "Running"].includes(it.state) ? "busy" : "wait";
  }
  if (["FailedToStart", "Unknown"].includes(it.state) || it.health === "Unhealthy") return "bad";
  if (it.state === "Exited") return it.exit ? "bad" : "wait";
  if (it.state === "Running") return "good";
  return it.state === "Starting" ? "busy" : "wait";
}

export class Objects extends EventTarget {
  kinds = { exec: new Map(), container: new Map() };
  complete = { exec: false, container: false };
  #stale = { exec: null, container: null };
  #ended = null;
  #pause = 1000;
  #let = false;

  constructor() {
    super();
    document.addEventListener("visibilitychange", () => this.#look());
  }

  // Whoever looks is let in.
  start() {
    this.#let = true;
    this.#look();
  }

  // Follows the feed for as long as somebody looks; a tab in the background gives its connection back.
  #look() {
    if (document.hidden) {
      this.#ended?.abort();
      this.#ended = null;
    } else if (this.#let && !this.#ended) {
      this.#ended = new AbortController();
      this.#follow(this.#ended.signal);
    }
  }

  async #follow(signal) {
    while (!signal.aborted) {
      try {
        for await (const told of lines("feed", signal)) {
          this.#pause = 1000;
          this.#take(told);
        }
        this.#say("line", "oncelet has ended");
      } catch (error) {
        if (signal.aborted) return;
        if (error.code === 401) {
          dropToken();
          this.#ended = null;
          this.#let = false;
          this.#say("refused", error.message);
          return;
        }
        this.#say("line", "oncelet does not answer");
      }
      await new Promise((done) => setTimeout(done, this.#pause));
      this.#pause = Math.min(this.#pause * 1.5, 10000);
    }
  }

  #take(told) {
    if (told.trouble) return this.#say("line", told.trouble);
    this.#say("line", "");
    if (told.begin) {
      this.#stale[told.begin] = new Set(this.kinds[told.begin].keys());
    } else if (told.all) {
      for (const key of this.#stale[told.all] ?? []) this.#set(told.all, key);
      this.#stale[told.all] = null;
      this.complete[told.all] = true;
      this.#say("changed", { kind: told.all });
    } else if (told.kind) {
      this.#stale[told.kind]?.delete(told.key);
      this.#set(told.kind, told.key, told.it);
    }
  }

  #set(kind, key, it) {
    if (it) this.kinds[kind].set(key, { ...it, key, tone: tone(kind, it) });
    else this.kinds[kind].delete(key);
    this.#say("changed", { kind, key });
  }

  #say(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
