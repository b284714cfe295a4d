// The latest requests that have finished, each with its attempts.

import { list, repeat } from "./api.js";
import { badge, command, h, icon, nothing, problem, renew, say, table } from "./dom.js";
import { field } from "./forms.js";
import * as format from "./format.js";

export const title = "Requests";

const POLL_S = 2;
const LIMITS = ["50", "200", "1000"];
const CODES = ["200", "400", "401", "402", "403", "404", "422", "429", "499", "500", "502", "503", "504"];
const STATUSES = [["", "all"], ["error", "all errors"], ...CODES.map((code) => [code, code])];
const REASONS = {
  connect: "could not be reached",
  timeout: "no first byte in time",
  reset: "the connection broke",
  error: "the stream began with an error",
  hedged: "was slower than the hedged attempt",
};

const tagsOf = (row) => Object.entries(row.tags).map(([name, value]) => `${name}=${value}`);

const statusBadge = (status) =>
  badge(
    status < 400 ? "good" : status < 500 ? "warn" : "bad",
    status === 499 ? "499 client left" : `${status}`,
  );

/** The failed attempts in `failed_attempts`, such as `openai:503:412ms, mistral:connect:3ms`. */
function failures(story) {
  return story
    .split(", ")
    .filter(Boolean)
    .map((told) => {
      const [provider, reason, took] = told.split(":");
      return { provider, reason: REASONS[reason] ?? reason, took };
    });
}

function attempts(row) {
  const failed = failures(row.failed_attempts);
  const steps = failed.map(({ provider, reason, took }) =>
    h(
      "li",
      { class: "failed" },
      h("strong", {}, provider),
      ` ${reason}`,
      took && h("span", { class: "hint" }, ` after ${took.replace("ms", " ms")}`),
    ),
  );
  if (row.attempts > failed.length && row.model !== null) {
    steps.push(
      h(
        "li",
        { class: row.status < 400 ? "served" : "failed" },
        h("strong", {}, row.provider),
        ` ${row.status}`,
        row.ttft_ms !== null &&
          h("span", { class: "hint" }, ` first byte ${format.ms(row.ttft_ms)} after the start`),
      ),
    );
  }
  if (steps.length === 0) return h("p", { class: "hint" }, "No provider was asked.");
  return h("ol", { class: "attempts" }, steps);
}

function details(row) {
  const facts = [
    ["Id", h("code", {}, row.id)],
    ["Finished", format.moment(row.time)],
    ["Endpoint", `${row.endpoint}${row.stream ? ", streamed" : ""}`],
    ["Requested model", h("code", {}, row.model_requested ?? "none")],
    ["Served by", row.model === null ? "none" : h("code", {}, row.model)],
    [
      "Key",
      row.key === null && row.key_id === null ? "none" : [row.key ?? "", " ", h("code", {}, row.key_id)],
    ],
    ["Tags", tagsOf(row).join(", ") || "none"],
    ["Gateway overhead", format.us(row.overhead_us)],
    ["Input tokens", `${format.count(row.input_tokens)} (${format.count(row.cached_tokens)} cached)`],
    ["Output tokens", format.count(row.output_tokens)],
    ["Counted by", { provider: "the provider", estimated: "an estimate" }[row.usage_source] ?? "–"],
  ];
  return h(
    "div",
    { class: "details" },
    h("div", {}, h("h2", {}, "Attempts"), attempts(row)),
    h(
      "dl",
      { class: "facts" },
      facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
  );
}

/** A row, and the row of details below it that its first cell opens. */
function makeRows(grid, row, opened) {
  const cell = h("td", { role: "cell", colspan: String(grid.width) });
  const below = h("tr", { role: "row", class: "more" }, cell);
  const button = h(
    "button",
    { type: "button", class: "quiet opener", "data-name": "open" },
    icon("open"),
    format.clock(row.time),
  );
  const toggle = (isOpen) => {
    button.setAttribute("aria-expanded", String(isOpen));
    below.hidden = !isOpen;
    if (isOpen) {
      opened.add(row.id);
      cell.replaceChildren(details(row));
    } else opened.delete(row.id);
  };
  button.addEventListener("click", () => toggle(below.hidden));
  toggle(opened.has(row.id));
  return [
    grid.row([
      button,
      statusBadge(row.status),
      h(
        "div",
        {},
        h("code", { class: "strong" }, row.model ?? row.model_requested ?? "–"),
        row.model !== null &&
          row.model_requested !== row.model &&
          h("span", { class: "hint block" }, "requested as ", h("code", {}, row.model_requested ?? "none")),
      ),
      row.key ?? row.key_id ?? h("span", { class: "hint" }, "no key"),
      row.attempts > 1 ? badge("warn", `${row.attempts}`) : `${row.attempts}`,
      format.ms(row.ttft_ms),
      format.ms(row.total_ms),
      format.us(row.overhead_us),
      row.input_tokens === null
        ? "–"
        : `${format.compact(row.input_tokens)} / ${format.compact(row.output_tokens)}`,
      [
        format.usd(row.usd),
        row.usage_source === "estimated" && h("span", { class: "hint block" }, "estimated"),
      ],
    ]),
    below,
  ];
}

function makeFilters(query) {
  return [
    field({
      name: "model",
      label: "Model or alias",
      type: "search",
      list: "known-models",
      value: query.get("model") ?? "",
      placeholder: "all",
    }),
    field({
      name: "key",
      label: "Key",
      type: "search",
      list: "known-keys",
      value: query.get("key") ?? "",
      placeholder: "all",
    }),
    field({ name: "status", label: "Status", options: STATUSES, value: query.get("status") ?? "" }),
    field({
      name: "limit",
      label: "Rows",
      options: LIMITS.map((one) => [one, one]),
      value: query.get("limit") ?? LIMITS[0],
    }),
  ];
}

async function fillLists(models, keys, signal) {
  const [routes, aliases, owners] = await Promise.all(
    ["routes", "aliases", "keys"].map((path) => list(path, {}, signal)),
  );
  const options = (values) => [...new Set(values)].map((value) => h("option", { value }));
  models.replaceChildren(...options([...aliases.map((one) => one.name), ...routes.map((one) => one.id)]));
  keys.replaceChildren(...options(owners.map((one) => one.name)));
}

export function open(page, query) {
  const grid = table("The latest requests, newest first", [
    "Finished",
    "Status",
    "Model",
    "Key",
    { text: "Attempts", number: true },
    { text: "First byte", number: true },
    { text: "Total", number: true },
    { text: "Overhead", number: true },
    { text: "Tokens in / out", number: true },
    { text: "USD", number: true },
  ]);
  const filters = makeFilters(query);
  const [models, keys] = [h("datalist", { id: "known-models" }), h("datalist", { id: "known-keys" })];
  const trouble = h("div", {});
  const empty = h("div", {});
  const opened = new Set();
  let isPaused = false;
  const pause = h(
    "button",
    {
      type: "button",
      "aria-pressed": "false",
      onclick: () => {
        isPaused = !isPaused;
        pause.setAttribute("aria-pressed", String(isPaused));
        say(pause, isPaused ? "Resume" : "Pause");
        if (!isPaused) load();
      },
    },
    "Pause",
  );
  const asked = () => Object.fromEntries(filters.map((one) => [one.name, one.read().trim()]));

  const show = (rows) => {
    const isFiltered = Object.entries(asked()).some(([name, value]) => name !== "limit" && value);
    renew(
      grid.body,
      rows,
      (row) => row.id,
      (row) => makeRows(grid, row, opened),
    );
    grid.element.hidden = rows.length === 0;
    if (rows.length > 0) empty.replaceChildren();
    else if (isFiltered)
      empty.replaceChildren(
        nothing(
          "No recent request matches.",
          h("p", {}, "This page shows the last 1,000 requests. Totals of older ones are under Usage."),
        ),
      );
    else if (!empty.hasChildNodes())
      empty.replaceChildren(
        nothing(
          "No request has finished yet.",
          h("p", {}, "Send one:"),
          command('tokenhub chat balanced "Why is the sky blue?"'),
        ),
      );
  };
  let turn = 0;
  const load = async (signal) => {
    turn += 1;
    const mine = turn;
    try {
      const rows = await list("requests", asked(), signal);
      if (mine !== turn) return; // the filters have changed
      trouble.replaceChildren();
      show(rows);
    } catch (error) {
      if (!signal?.aborted) trouble.replaceChildren(problem(error, () => load()));
    }
  };
  const changed = () => {
    const search = new URLSearchParams(
      Object.entries(asked()).filter(([, value]) => value && value !== LIMITS[0]),
    );
    history.replaceState(null, "", `#/requests${search.size ? `?${search}` : ""}`);
    load();
  };
  for (const one of filters) one.input.addEventListener("input", changed);
  page.append(
    h(
      "div",
      { class: "toolbar" },
      filters.map((one) => one.element),
      models,
      keys,
      pause,
    ),
    trouble,
    empty,
    grid.element,
  );
  grid.element.hidden = true;
  const ending = new AbortController();
  fillLists(models, keys, ending.signal).catch(() => {}); // suggestions only; the list below shows the error
  const stop = repeat(POLL_S, (signal) => (isPaused ? null : load(signal)));
  return () => {
    stop();
    ending.abort();
  };
}
