// Usage by any dimension, tags included, of all requests or some: a chart, a table, a file for spreadsheets.

import { check, list, send } from "./api.js";
import { bars } from "./charts.js";
import { freshId, h, nothing, problem, table } from "./dom.js";
import { field } from "./forms.js";
import * as format from "./format.js";

export const title = "Usage";

const DAY_MS = 86_400_000;
const PARTS = 5; // the eye can distinguish five colours beside that of all others
const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5"];
const DIMENSIONS = ["key", "group", "alias", "endpoint", "model", "provider", "day"];
const SPANS = [
  ["7d", "7 days"],
  ["30d", "30 days"],
  ["90d", "90 days"],
];
const METRICS = {
  usd: ["USD", format.usd],
  requests: ["Requests", format.compact],
  errors: ["Errors", format.compact],
  input_tokens: ["Input tokens", format.compact],
  output_tokens: ["Output tokens", format.compact],
  saved_usd: ["USD saved by caches", format.usd],
};
const COLUMNS = [
  ["requests", "Requests", format.count],
  ["errors", "Errors", format.count],
  ["input_tokens", "Input", format.count],
  ["cached_tokens", "Cached input", format.count],
  ["output_tokens", "Output", format.count],
  ["usd", "USD", format.usd],
  ["saved_usd", "Saved", format.usd],
  ["estimated", "Estimated", format.count],
];

const nameOf = (row, dimension) => row[dimension] ?? `no ${dimension}`;
const idOf = (row, dimension) => row[dimension === "key" ? "key_id" : dimension] ?? "";

// ---------------------------------------------------------------------- chart

/** All days from the first to the last of the query, or of the rows found. */
export function daysOf(rows, since, until) {
  const found = rows.map((row) => row.day).sort();
  const first = since || found[0] || until;
  const last = until || [found.at(-1) ?? "", format.isoDay(new Date())].sort().at(-1);
  const days = [];
  for (let at = Date.parse(first); at <= Date.parse(last); at += DAY_MS)
    days.push(format.isoDay(new Date(at)));
  return days;
}

/** The largest groups by the metric, each with its value on each day, and all others as one. */
export function partsOf(rows, days, dimension, metric) {
  const sums = new Map();
  for (const row of rows) {
    const id = dimension ? idOf(row, dimension) : "";
    if (!sums.has(id))
      sums.set(id, { label: dimension ? nameOf(row, dimension) : "all", total: 0, byDay: new Map() });
    const one = sums.get(id);
    one.total += row[metric];
    one.byDay.set(row.day, (one.byDay.get(row.day) ?? 0) + row[metric]);
  }
  const ranked = [...sums.values()].sort((a, b) => b.total - a.total);
  const values = (group) => days.map((day) => group.reduce((sum, one) => sum + (one.byDay.get(day) ?? 0), 0));
  const parts = ranked
    .slice(0, PARTS)
    .map((one, index) => ({ label: one.label, colour: COLOURS[index], values: values([one]) }));
  const others = ranked.slice(PARTS);
  if (others.length) parts.push({ label: `${others.length} more`, colour: "--c6", values: values(others) });
  return parts;
}

// ---------------------------------------------------------------------- table

/** Tiles with the sums of rows. */
export function totals(rows) {
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  const tile = (label, value, more) =>
    h(
      "div",
      { class: "tile small" },
      h("h2", { class: "tile-label" }, label),
      h("p", { class: "tile-figure" }, h("span", { class: "tile-value" }, value)),
      h("p", { class: "tile-more" }, more),
    );
  const requests = sum("requests");
  return h(
    "div",
    { class: "tiles five" },
    tile("Spent", format.usd(sum("usd")), estimatedText(sum("estimated"))),
    tile(
      "Requests",
      format.compact(requests),
      requests ? `${format.percent(sum("errors") / requests)} errors` : "none",
    ),
    tile(
      "Input tokens",
      format.compact(sum("input_tokens")),
      `${format.compact(sum("cached_tokens"))} cached`,
    ),
    tile(
      "Output tokens",
      format.compact(sum("output_tokens")),
      `${format.compact(sum("reasoning_tokens"))} for reasoning`,
    ),
    tile(
      "Saved by caches",
      format.usd(sum("saved_usd")),
      sum("input_tokens")
        ? `${format.percent(sum("cached_tokens") / sum("input_tokens"))} of input cached`
        : "none",
    ),
  );
}

const estimatedText = (count) => `${format.count(count)} ${count === 1 ? "request" : "requests"} estimated`;

function makeTable(rows, by, metric) {
  const grid = table("Totals", [
    ...(by.length ? by.map(capital) : ["All"]),
    ...COLUMNS.map(([, text]) => ({ text, number: true })),
  ]);
  const sorted = [...rows].sort(
    (a, b) => (by.includes("day") ? b.day.localeCompare(a.day) : 0) || b[metric] - a[metric],
  );
  grid.body.append(
    ...sorted.map((row) =>
      grid.row([
        ...(by.length
          ? by.map((name) =>
              name === "day" ? row.day : h("span", { title: idOf(row, name) }, nameOf(row, name)),
            )
          : ["everything"]),
        ...COLUMNS.map(([name, , text]) => text(row[name])),
      ]),
    ),
  );
  return grid.element;
}

// ---------------------------------------------------------------------- the page

const capital = (name) => name[0].toUpperCase() + name.slice(1);

/** `alias=premium, team=search` as parameters; what is no dimension is a tag. */
function filters(text) {
  const pairs = text.split(",").map((pair) => pair.trim());
  const found = {};
  const tags = [];
  for (const pair of pairs.filter(Boolean)) {
    const at = pair.indexOf("=");
    const name = pair.slice(0, Math.max(at, 0)).trim();
    if (name !== "day" && DIMENSIONS.includes(name)) found[name] = pair.slice(at + 1).trim();
    else tags.push(pair);
  }
  return tags.length ? { ...found, tag: tags.join(",") } : found;
}

function makeForm(query, tags) {
  const chosen = (query.get("by") ?? "model").split(",");
  const since = query.get("since") ?? format.isoDay(new Date(Date.now() - 6 * DAY_MS));
  const inputs = {
    since: field({ name: "since", label: "From", type: "date", value: since }),
    until: field({ name: "until", label: "Until", type: "date", value: query.get("until") ?? "" }),
    only: field({
      name: "only",
      label: "Only",
      value: query.get("only") ?? "",
      placeholder: "team=search",
    }),
    metric: field({
      name: "metric",
      label: "Chart and order",
      value: query.get("metric") ?? "usd",
      options: Object.entries(METRICS).map(([name, [text]]) => [name, text]),
    }),
  };
  const boxes = [...DIMENSIONS, ...tags].map((name) => {
    const id = freshId();
    const input = h("input", { type: "checkbox", id, value: name, checked: chosen.includes(name) });
    return {
      input,
      element: h("label", { class: "inline", for: id }, input, tags.includes(name) ? name : capital(name)),
    };
  });
  const read = () => ({
    by: boxes.filter(({ input }) => input.checked).map(({ input }) => input.value),
    since: inputs.since.read(),
    until: inputs.until.read(),
    only: inputs.only.read().trim(),
    metric: inputs.metric.read(),
  });
  return { inputs, boxes, read };
}

async function download({ by, since, until, only }) {
  const query = { by: by.join(","), since, until, format: "csv", ...filters(only) };
  const response = await check(await send("GET", "usage", { query }));
  const address = URL.createObjectURL(await response.blob());
  h("a", {
    href: address,
    download: `tokenhub-usage${since && `-${since}`}${until && `-${until}`}.csv`,
  }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export function open(page, query) {
  const content = h("div", { class: "stack", "aria-live": "off" });
  let close = null;
  let isOpen = true;
  const begin = async () => {
    try {
      const tags = (await list("tags")).map((tag) => tag.name);
      if (isOpen) close = show(page, query, tags, content);
    } catch (error) {
      if (isOpen) content.replaceChildren(problem(error, begin));
    }
  };
  page.append(content);
  begin();
  return () => {
    isOpen = false;
    close?.();
  };
}

function show(page, query, tags, content) {
  const form = makeForm(query, tags);
  let chart = null;
  let turn = 0;

  const load = async () => {
    turn += 1;
    const mine = turn;
    const { by, since, until, only, metric } = form.read();
    const dimension = by.find((name) => name !== "day") ?? null;
    const asked = { since, until, ...filters(only) };
    try {
      const [rows, daily] = await Promise.all([
        list("usage", { ...asked, by: by.join(",") }),
        list("usage", { ...asked, by: [dimension, "day"].filter(Boolean).join(",") }),
      ]);
      if (mine !== turn) return; // the query has changed
      fill(rows, daily, { by, dimension, since, until, metric });
    } catch (error) {
      if (mine === turn) content.replaceChildren(problem(error, load));
    }
  };
  const fill = (rows, daily, { by, dimension, since, until, metric }) => {
    chart?.close();
    chart = null;
    if (daily.length === 0) {
      content.replaceChildren(
        nothing(
          "No usage in this period.",
          h("p", {}, "Requests are counted when they finish. Simulated responses are counted and cost nothing."),
        ),
      );
      return;
    }
    const days = daysOf(daily, since, until);
    const [label, text] = METRICS[metric];
    chart = bars(
      `${label} by day${dimension ? ` and ${dimension}` : ""}`,
      days.map(format.day),
      partsOf(daily, days, dimension, metric),
      text,
    );
    content.replaceChildren(totals(rows), chart.element, makeTable(rows, by, metric));
    chart.attached();
  };
  const changed = () => {
    const { by, ...rest } = form.read();
    const search = new URLSearchParams(Object.entries({ by: by.join(","), ...rest }));
    history.replaceState(null, "", `#/usage?${search}`);
    load();
  };
  const save = h(
    "button",
    {
      type: "button",
      onclick: async () => {
        try {
          await download(form.read());
        } catch (error) {
          content.prepend(problem(error));
        }
      },
    },
    "Download CSV",
  );
  const spans = SPANS.map(([span, text]) =>
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        onclick: () => {
          form.inputs.since.input.value = format.isoDay(
            new Date(Date.now() - (parseInt(span, 10) - 1) * DAY_MS),
          );
          form.inputs.until.input.value = "";
          changed();
        },
      },
      text,
    ),
  );
  for (const { input } of [...Object.values(form.inputs), ...form.boxes])
    input.addEventListener("change", changed);
  page.querySelector(".page-head").append(save);
  content.before(
    h(
      "div",
      { class: "toolbar" },
      form.inputs.since.element,
      form.inputs.until.element,
      h("div", { class: "spans", role: "group", "aria-label": "Time" }, spans),
      form.inputs.metric.element,
      form.inputs.only.element,
      h(
        "fieldset",
        { class: "choice" },
        h("legend", {}, "By"),
        form.boxes.map(({ element }) => element),
      ),
    ),
  );
  content.after(h("p", { class: "hint" }, "Days are in UTC."));
  load();
  return () => chart?.close();
}
