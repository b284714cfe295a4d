// The live stream: the samples of the last minutes first, then one a second. It is read with fetch, because an
// EventSource can't send the token.

import { check, send } from "./api.js";

const KEPT = 300;
const SILENT_MS = 5000; // a sample is due each second: after 5 s of silence the connection counts as dead
const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 10_000;

/** `state`: connecting, live or lost; `why`: the last error; `samples`: oldest first. */
export const live = { state: "connecting", why: null, samples: [] };
const listeners = new Set();

/** Calls `listener()` now and at each change, until the returned function is called. */
export function watch(listener) {
  listeners.add(listener);
  listener();
  return () => listeners.delete(listener);
}

export const last = () => live.samples.at(-1) ?? null;

function tell() {
  for (const listener of listeners) listener();
}

function take(event, data) {
  const told = JSON.parse(data);
  if (event === "history") live.samples = told.samples;
  else if (event === "sample") live.samples.push(told);
  else return;
  live.samples.splice(0, live.samples.length - KEPT);
  live.state = "live";
  live.why = null;
  tell();
}

/** Reads the events of a body; calls `alive` for each piece. */
async function read(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const lines of events.map((event) => event.split("\n"))) {
      const field = (name) =>
        lines
          .filter((line) => line.startsWith(`${name}: `))
          .map((line) => line.slice(name.length + 2))
          .join("\n");
      take(field("event"), field("data"));
    }
  }
}

// A browser opens at most six connections to a host, over all tabs, so a hidden tab closes its own. It misses
// nothing: the next stream begins with the last minutes.
let current = new AbortController();
const isSeen = () => document.visibilityState === "visible";
document.addEventListener("visibilitychange", () => {
  if (!isSeen()) current.abort();
});
addEventListener("pagehide", () => current.abort());

async function once() {
  current = new AbortController();
  const { signal } = current;
  let timer = 0;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => current.abort(), SILENT_MS);
  };
  try {
    // The first response may wait for a token that is being typed: silence is an error only after it.
    const response = await check(await send("GET", "live", { signal }));
    alive();
    await read(response.body, alive);
  } finally {
    clearTimeout(timer);
  }
}

const until = (event, target) => new Promise((done) => target.addEventListener(event, done, { once: true }));

/** Reads the stream for ever, with growing pauses after failures. */
export async function follow() {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    while (!isSeen()) await until("visibilitychange", document);
    const began = live.samples.at(-1);
    try {
      await once();
      live.why = null;
    } catch (error) {
      live.why = error.status ? error : null;
    }
    live.state = isSeen() ? "lost" : "connecting";
    tell();
    pause = live.samples.at(-1) === began ? Math.min(LAST_PAUSE_MS, pause * 2) : FIRST_PAUSE_MS;
    if (isSeen()) await new Promise((wake) => setTimeout(wake, pause));
  }
}

/** A deployment's row as the key of its series. */
export const keyOf = (row) => `${row.id} ${row.endpoint} ${row.stream}`;

/** By row, the points `[time, value]` of one figure, without unknown values. */
export function rowSeries(name) {
  const found = new Map();
  for (const { time, routes } of live.samples) {
    for (const row of routes) {
      const key = keyOf(row);
      if (!found.has(key)) found.set(key, []);
      if (row[name] !== null) found.get(key).push([time, row[name]]);
    }
  }
  return found;
}
