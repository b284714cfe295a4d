// The preview of routing: the model that a request for an alias would go to now, and why.

import { post } from "./api.js";
import { badge, h, table } from "./dom.js";
import { modal } from "./forms.js";
import * as format from "./format.js";

const ENDPOINTS = [
  "chat",
  "completions",
  "embeddings",
  "responses",
  "messages",
  "moderations",
  "rerank",
  "speech",
  "images",
];
export const STRATEGIES = ["latency", "throughput", "cost", "availability", "round-robin", "order"];
const SCORES = {
  s: (value) => format.ms(value * 1000),
  USD: format.usd,
  ratio: format.percent,
  share: format.percent,
  turns: (value) => `${format.count(value)} ${value === 1 ? "turn" : "turns"}`,
};

export const scoreOf = ({ score, unit }) => (score === null ? "" : (SCORES[unit] ?? String)(score));

/** The reason for a choice. Shares of a split are called weights, as in the form. */
export const whyOf = ({ strategy, why }) => (strategy === "split" ? "by weight" : why);

/** The most frequent kind of request: averages are kept for each kind. */
export function usualKind(routes) {
  const counts = new Map();
  for (const { endpoint, stream, row } of routes) {
    if (row === null) continue;
    const key = JSON.stringify([endpoint, stream]);
    counts.set(key, (counts.get(key) ?? 0) + row.finished);
  }
  const [most] = [...counts].sort(([, a], [, b]) => b - a);
  const [endpoint, stream] = most && most[1] > 0 ? JSON.parse(most[0]) : ["chat", false];
  return { endpoint, stream };
}

const explain = (model, { endpoint, stream, strategy = null, more = {} }) =>
  post("explain", {
    body: { messages: [{ role: "user", content: "Hello" }], ...more, model, stream },
    endpoint,
    strategy,
  });

// The endpoint that each alias serves, found once. Embedding models rarely serve another.
const served = new Map();
const guess = (alias, kind) =>
  alias.models.every((name) => name.includes("embed")) ? "embeddings" : kind.endpoint;

/** Explains the usual endpoint, or else the first that the alias serves. :throws Refused: it serves none. */
export async function explainAny(alias, kind) {
  let first = null;
  for (const endpoint of new Set([served.get(alias.name) ?? guess(alias, kind), ...ENDPOINTS])) {
    try {
      const told = await explain(alias.name, { endpoint, stream: kind.stream && endpoint === kind.endpoint });
      served.set(alias.name, endpoint);
      return told;
    } catch (error) {
      if (error.code !== "unsupported_endpoint") throw error;
      first ??= error;
    }
  }
  throw first;
}

/** A dialog that explains a request of any kind. */
export function preview(alias, kind) {
  const result = h("div", { class: "result", role: "status" });
  const dialog = modal({
    title: `Where would a request for ${alias.name} go?`,
    intro:
      "The gateway answers from its live figures. Nothing is sent to a provider, and nothing changes.",
    submit: "Ask again",
    close: "Close",
    wide: true,
    fields: [
      {
        name: "endpoint",
        label: "Endpoint",
        options: ENDPOINTS.map((one) => [one, one]),
        value: kind.endpoint,
      },
      {
        name: "strategy",
        label: "Strategy",
        value: "",
        options: [["", "the alias’s own"], ...STRATEGIES.map((one) => [one, `${one} (by header)`])],
      },
      { name: "stream", label: "Streamed", type: "checkbox", value: kind.stream },
      {
        name: "body",
        label: "Rest of the request’s body, as JSON",
        rows: 3,
        class: "whole",
        value: '{"messages": [{"role": "user", "content": "Hello"}]}',
      },
      result,
    ],
    onsubmit: async ({ endpoint, strategy, stream, body }) => {
      result.replaceChildren();
      let more;
      try {
        more = JSON.parse(body || "{}");
      } catch (error) {
        return { body: `This is not valid JSON: ${error.message}` };
      }
      result.replaceChildren(
        ...candidateTable(await explain(alias.name, { endpoint, stream, strategy: strategy || null, more })),
      );
      return {};
    },
  });
  dialog.dialog.querySelector("form").requestSubmit();
}

function candidateTable(told) {
  const grid = table("Candidates", [
    "Candidate",
    "Score, or why it is skipped",
    { text: "Success", number: true },
    { text: "In flight", number: true },
  ]);
  grid.body.append(
    ...told.candidates.map((one) =>
      grid.row([
        [
          h("code", { class: "strong" }, one.id),
          " ",
          one.id === told.choice && badge("good", told.strategy === "split" ? "likeliest" : "next"),
        ],
        one.skipped ? h("span", { class: "hint" }, one.skipped) : scoreOf(one) || "named in the request",
        format.percent(one.row?.finished ? one.row.success : null),
        format.count(one.row?.in_flight),
      ]),
    ),
  );
  return [
    h(
      "p",
      {},
      told.choice === null
        ? `No model can serve this request: ${told.why}.`
        : ["It would go to ", h("strong", {}, told.choice), ` (${whyOf(told)}).`],
    ),
    grid.element,
  ];
}
