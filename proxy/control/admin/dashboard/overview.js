// Figures of the gateway: now, and over the last five minutes.

import { sparkline, timeline } from "./charts.js";
import { badge, command, h, nothing, problem, say } from "./dom.js";
import * as format from "./format.js";
import { last, live, watch } from "./live.js";

export const title = "Overview";

const tokens = (sample) => sample.input_tokens_per_s + sample.output_tokens_per_s;
const quantile = (group, name) => (sample) => sample[group]?.[name] ?? null;

const TILES = [
  {
    label: "Requests",
    unit: "/s",
    of: (s) => s.requests_per_s,
    text: format.rate,
    colour: "--c1",
    more: (s) => `${format.count(s.in_flight)} in flight`,
  },
  {
    label: "Errors",
    unit: "/s",
    of: (s) => s.errors_per_s,
    text: format.rate,
    colour: "--bad",
    more: () => errorShare(),
  },
  {
    label: "Tokens",
    unit: "/s",
    of: tokens,
    text: format.rate,
    colour: "--c2",
    more: (s) => `${format.rate(s.input_tokens_per_s)} in, ${format.rate(s.output_tokens_per_s)} out`,
  },
  {
    label: "Spent today",
    unit: "",
    of: (s) => s.usd_today,
    text: format.usd,
    colour: "--c4",
    more: (s) => (s.simulated ? "simulated responses are free" : "since midnight UTC"),
  },
  {
    label: "Time to first token",
    unit: "",
    of: quantile("ttft_ms", "p50"),
    text: format.ms,
    colour: "--c3",
    more: (s) => tail(s.ttft_ms, format.ms),
  },
  {
    label: "Gateway overhead",
    unit: "",
    of: quantile("overhead_us", "p50"),
    text: format.us,
    colour: "--c5",
    more: (s) => tail(s.overhead_us, format.us),
  },
];

const FACTS = [
  ["Connections", (s) => format.count(s.connections)],
  ["In flight", (s) => format.count(s.in_flight)],
  ["Workers", (s) => format.count(s.workers)],
  ["Event loop lag", (s) => format.ms(s.event_loop_lag_ms)],
];

function tail(group, text) {
  return group === null ? "no requests finished recently" : `p95 ${text(group.p95)}, p99 ${text(group.p99)}`;
}

function errorShare() {
  const sum = (of) => live.samples.reduce((total, sample) => total + of(sample), 0);
  const requests = sum((sample) => sample.requests_per_s);
  return requests === 0
    ? "no recent requests"
    : `${format.percent(sum((s) => s.errors_per_s) / requests)} in 5 min`;
}

function makeTile({ label, unit, of, text, more, colour }) {
  const value = h("span", { class: "tile-value" });
  const below = h("p", { class: "tile-more" });
  const line = sparkline(colour, true);
  const element = h(
    "div",
    { class: "tile" },
    h("h2", { class: "tile-label" }, label),
    h("p", { class: "tile-figure" }, value, unit && h("span", { class: "tile-unit" }, unit)),
    below,
    line.element,
  );
  const update = (sample) => {
    say(value, text(of(sample)));
    say(below, more(sample));
    line.update(
      live.samples.map((s) => [s.time, of(s)]).filter(([, one]) => one !== null),
      sample.time,
    );
  };
  return { element, update };
}

const quantiles = (group) =>
  ["p50", "p95", "p99"].map((name, index) => ({
    label: name,
    colour: ["--c1", "--c3", "--c5"][index],
    of: quantile(group, name),
  }));

function makeCharts() {
  return [
    timeline(
      "Requests per second",
      [
        { label: "requests", colour: "--c1", of: (s) => s.requests_per_s, fill: true },
        { label: "errors", colour: "--bad", of: (s) => s.errors_per_s, fill: true },
      ],
      format.rate,
    ),
    timeline(
      "Tokens per second",
      [
        { label: "in", colour: "--c2", of: (s) => s.input_tokens_per_s, fill: true },
        { label: "out", colour: "--c4", of: (s) => s.output_tokens_per_s, fill: true },
      ],
      format.rate,
    ),
    timeline("Time to first token, last minute", quantiles("ttft_ms"), format.ms),
    timeline("Gateway overhead, last minute", quantiles("overhead_us"), format.us),
  ];
}

const NO_KEY = "no credentials";

/** The models that are not available. Those without credentials are only counted: most are so on purpose. */
function attention(rows) {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const without = [...byId.values()].filter((row) => row.state === NO_KEY).length;
  const out = [...byId.values()].filter((row) => row.state !== "ok" && row.state !== NO_KEY);
  return [
    out.length === 0 &&
      h(
        "p",
        {},
        badge("good", "Healthy"),
        ` ${byId.size - without} of ${byId.size} models available`,
      ),
    out.length > 0 &&
      h(
        "ul",
        { class: "plain" },
        out.map((row) =>
          h("li", {}, badge(row.state === "ejected" ? "bad" : "warn", row.state), " ", h("code", {}, row.id)),
        ),
      ),
    without > 0 &&
      h("p", { class: "hint" }, `Without credentials: ${without}. Set the variables that routes.toml names.`),
    h("p", {}, h("a", { href: "#/routes" }, "All routes")),
  ];
}

function makeBottom() {
  const list = h("div", {});
  const facts = FACTS.map(([name, of]) => ({ name, of, value: h("dd", {}) }));
  const element = h(
    "div",
    { class: "pair" },
    h("section", { class: "panel" }, h("h2", {}, "Models"), list),
    h(
      "section",
      { class: "panel" },
      h("h2", {}, "Gateway"),
      h(
        "dl",
        { class: "facts" },
        facts.map(({ name, value }) => h("div", {}, h("dt", {}, name), value)),
      ),
    ),
  );
  let said = "";
  const update = (sample) => {
    for (const { of, value } of facts) say(value, of(sample));
    const rows = live.samples.findLast((one) => one.routes.length)?.routes ?? [];
    const says = JSON.stringify(rows.map(({ id, state }) => [id, state]));
    if (says !== said) list.replaceChildren(...attention(rows).filter(Boolean));
    said = says;
  };
  return { element, update };
}

const isQuiet = () => live.samples.every((s) => s.requests_per_s === 0 && s.usd_today === 0);

export function open(page) {
  const tiles = TILES.map(makeTile);
  const charts = makeCharts();
  const bottom = makeBottom();
  const quiet = nothing(
    "No request in the last five minutes.",
    h("p", {}, "Send one; it appears here within a second:"),
    command('tokenhub chat balanced "Why is the sky blue?"'),
  );
  const waiting = h("p", { class: "hint" }, "Waiting for the first sample…");
  const trouble = h("div", {});
  const content = h(
    "div",
    { class: "stack", hidden: true },
    quiet,
    h(
      "div",
      { class: "tiles" },
      tiles.map((tile) => tile.element),
    ),
    h(
      "div",
      { class: "pair" },
      charts.map((chart) => chart.element),
    ),
    bottom.element,
  );
  page.append(trouble, waiting, content);
  let why = null;
  const unwatch = watch(() => {
    const sample = last();
    if (live.why !== why) trouble.replaceChildren(...(live.why ? [problem(live.why)] : []));
    why = live.why;
    waiting.hidden = sample !== null || live.state === "lost";
    if (sample === null) return;
    content.hidden = false;
    quiet.hidden = !isQuiet();
    for (const one of [...tiles, bottom]) one.update(sample);
    for (const chart of charts) chart.update(live.samples);
  });
  return () => {
    unwatch();
    for (const chart of charts) chart.close();
  };
}
