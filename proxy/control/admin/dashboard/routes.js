// Every model at a provider with its live figures and its state.

import { list, repeat } from "./api.js";
import { sparkline } from "./charts.js";
import { badge, h, nothing, problem, say, table } from "./dom.js";
import { field } from "./forms.js";
import * as format from "./format.js";
import { keyOf, live, rowSeries, watch } from "./live.js";

export const title = "Routes";

const POLL_S = 3;

// The figures: their names in a row of the API and in a live sample, and their form.
const FIGURES = [
  {
    head: "First byte",
    live: "ttft_ms",
    colour: "--c3",
    text: format.ms,
    of: (row) => (row.first_byte_s === null ? null : row.first_byte_s * 1000),
  },
  {
    head: "Per output token",
    live: "ms_per_output_token",
    colour: "--c1",
    text: format.ms,
    of: (row) => (row.output_tokens_per_s ? 1000 / row.output_tokens_per_s : null),
  },
  {
    head: "Success",
    live: "success",
    colour: "--c2",
    text: format.percent,
    of: (row) => (row.finished ? row.success : null), // before that it is only the prior
  },
  {
    head: "Per request",
    live: "usd_per_request",
    colour: "--c4",
    text: format.usd,
    of: (row) => row.usd_per_request,
  },
];

const isUsed = ({ row }) =>
  row !== null && (row.finished > 0 || row.in_flight > 0 || row.first_byte_samples > 0);

function stateBadge(row) {
  if (!row.usable) return badge("calm", row.state);
  return badge(row.state === "ok" ? "good" : row.state === "ejected" ? "bad" : "warn", row.state);
}

function stateOf(row) {
  const left = row.ejected_until === null ? null : row.ejected_until - Date.now() / 1000;
  return [
    stateBadge(row),
    left !== null && left > 0 && h("span", { class: "hint" }, ` for ${format.ms(left * 1000)}`),
    row.reason && row.usable && h("span", { class: "hint block" }, row.reason),
  ];
}

function errorOf(row) {
  if (row.last_error === null) return h("span", { class: "hint" }, "none");
  return [
    h("span", {}, row.last_error),
    h("span", { class: "hint block" }, format.ago(row.last_error_age_s)),
  ];
}

/** One live row of the table. `update(row)` shows a row of the API, `tick` one of the live stream. */
function makeRow(grid, row) {
  const figures = FIGURES.map(({ colour }) => ({
    value: h("span", { class: "figure-value" }),
    line: sparkline(colour),
  }));
  const state = h("div", {});
  const flight = h("span", {});
  const error = h("div", { class: "error-text" });
  const element = grid.row([
    h(
      "div",
      {},
      h("code", { class: "strong" }, row.id),
      h("span", { class: "hint block" }, `${row.endpoint}, ${row.stream ? "streams" : "not streamed"}`),
    ),
    state,
    ...figures.map(({ value, line }) => h("div", { class: "figure" }, value, line.element)),
    flight,
    error,
  ]);
  const showFlight = (inFlight, awaiting) =>
    say(flight, awaiting ? `${inFlight} (${awaiting} waiting)` : `${inFlight}`);
  const update = (fresh) => {
    state.replaceChildren(...stateOf(fresh).filter(Boolean));
    error.replaceChildren(...[errorOf(fresh.row)].flat());
    FIGURES.forEach((one, index) => say(figures[index].value, one.text(one.of(fresh.row))));
    showFlight(fresh.row.in_flight, fresh.row.awaiting);
  };
  const tick = (sample, series) => {
    const now = sample.routes.find((one) => keyOf(one) === keyOf(row));
    FIGURES.forEach((one, index) => {
      if (now) say(figures[index].value, one.text(now[one.live]));
      figures[index].line.update(series[index].get(keyOf(row)) ?? [], sample.time);
    });
    if (now) showFlight(now.in_flight, now.awaiting);
  };
  return { element, update, tick };
}

function makeIdle(rows) {
  return rows.map((row) => h("li", {}, h("code", {}, row.id), " ", stateBadge(row)));
}

export function open(page) {
  const grid = table("Live figures of the models", [
    "Model",
    "State",
    ...FIGURES.map(({ head }) => head),
    { text: "In flight", number: true },
    "Last error",
  ]);
  const filter = field({
    name: "filter",
    label: "Filter",
    placeholder: "openai, gpt-4o, ejected …",
    type: "search",
  });
  const trouble = h("div", {});
  const empty = nothing(
    "No model has had a request yet.",
    h("p", {}, "Averages appear with the first request. Until then, default estimates are used."),
  );
  const idle = h("ul", { class: "chips" });
  const idlePanel = h("section", { class: "panel" }, h("h2", {}, "No requests yet"), idle);
  grid.element.hidden = true;
  empty.hidden = idlePanel.hidden = true;
  page.append(
    h(
      "div",
      { class: "toolbar" },
      filter.element,
      h(
        "p",
        { class: "hint" },
        "Averages are weighted over half_life (see [routing]). Lines show the last five minutes.",
      ),
    ),
    trouble,
    empty,
    grid.element,
    idlePanel,
  );
  let rows = [];
  const made = new Map();

  const show = () => {
    const wanted = filter.read().trim().toLowerCase();
    const found = rows.filter((row) =>
      `${row.id} ${row.state} ${row.endpoint ?? ""}`.toLowerCase().includes(wanted),
    );
    const used = found.filter(isUsed);
    const keys = new Set(used.map(keyOf));
    for (const [key, one] of made) {
      if (!keys.has(key)) {
        one.element.remove();
        made.delete(key);
      }
    }
    let at = grid.body.firstElementChild;
    for (const row of used) {
      if (!made.has(keyOf(row))) made.set(keyOf(row), makeRow(grid, row));
      const one = made.get(keyOf(row));
      one.update(row);
      if (one.element === at) at = at.nextElementSibling;
      else grid.body.insertBefore(one.element, at);
    }
    const usedIds = new Set(rows.filter(isUsed).map((row) => row.id));
    const unused = new Map(found.filter((row) => !usedIds.has(row.id)).map((row) => [row.id, row]));
    idle.replaceChildren(...makeIdle([...unused.values()]));
    idlePanel.hidden = unused.size === 0;
    grid.element.hidden = used.length === 0;
    empty.hidden = rows.length === 0 || rows.some(isUsed);
    tick();
  };
  const tick = () => {
    const sample = live.samples.findLast((one) => one.routes.length);
    if (!sample) return;
    const series = FIGURES.map((one) => rowSeries(one.live));
    for (const one of made.values()) one.tick(sample, series);
  };

  filter.input.addEventListener("input", show);
  const stop = repeat(POLL_S, async (signal) => {
    try {
      rows = await list("routes", {}, signal);
      trouble.replaceChildren();
      show();
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(problem(error));
    }
  });
  const unwatch = watch(tick);
  return () => {
    stop();
    unwatch();
  };
}
