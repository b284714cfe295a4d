// Model aliases: the members of each, and the one that the next request would go to.

import { edit } from "./aliasform.js";
import { list, remove, repeat } from "./api.js";
import { badge, bar, h, nothing, notify, problem, say } from "./dom.js";
import { explainAny, preview, scoreOf, usualKind } from "./explain.js";
import { confirm } from "./forms.js";

export const title = "Model aliases";

const POLL_S = 5;

function memberRow(candidate, told) {
  const isChosen = candidate.id === told.choice && told.strategy !== "split";
  return h(
    "li",
    { class: candidate.skipped ? "skipped" : isChosen ? "chosen" : null },
    h("span", { class: "member-name" }, h("code", {}, candidate.id), isChosen && badge("good", "next")),
    told.strategy === "split" && !candidate.skipped && bar(candidate.score, "calm"),
    h("span", { class: "member-score" }, candidate.skipped ?? scoreOf(candidate)),
  );
}

function resolved(told) {
  const kind = `${told.endpoint}${told.stream ? ", streamed" : ""}`;
  return [
    h(
      "ul",
      { class: "members" },
      told.candidates.map((one) => memberRow(one, told)),
    ),
    h(
      "p",
      { class: "hint" },
      told.choice === null
        ? `No member can serve a request (${kind}): ${told.why}.`
        : told.strategy === "split"
          ? `Requests (${kind}) are split by weight.`
          : `Next request (${kind}): ${told.choice}, ${told.why}.`,
    ),
  ];
}

const OPTIONS = [
  ["fallback", (value) => `then ${value.join(", ")}`],
  ["sticky", (value) => `sticky by ${value}`],
  ["hedge", (value) => `hedge ${value}`],
  ["max_first_token", (value) => `first token within ${value}`],
  ["peek", () => "peek"],
  ["keepalive", (value) => `keepalive ${value}`],
  ["on_disconnect", (value) => `${value} on disconnect`],
];

function makeCard(alias, state) {
  const members = h("div", { class: "card-body" }, h("p", { class: "hint" }, alias.models.join(", ")));
  const strategy = badge("calm", alias.split ? "A/B split" : (alias.strategy ?? "default strategy"));
  const button = (text, name, act, quiet = "") =>
    h(
      "button",
      {
        type: "button",
        class: quiet,
        "data-name": name,
        "aria-label": `${text} ${alias.name}`,
        onclick: act,
      },
      text,
    );
  const element = h(
    "article",
    { class: "panel card", "aria-label": alias.name },
    h(
      "div",
      { class: "card-head" },
      h("h2", {}, h("code", {}, alias.name)),
      strategy,
      OPTIONS.filter(([name]) => alias[name]).map(([name, text]) => badge("calm", text(alias[name]))),
    ),
    members,
    h(
      "div",
      { class: "card-foot" },
      button("Edit", "edit", () => edit(alias, state)),
      button("Preview", "preview", () => preview(alias, state.kind)),
      button("Remove", "remove", () => ask(alias, state), "quiet"),
    ),
  );
  const update = async () => {
    try {
      const told = await explainAny(alias, state.kind);
      if (!alias.split && !alias.strategy) say(strategy, `${told.strategy}, the default`);
      members.replaceChildren(...resolved(told));
    } catch (error) {
      members.replaceChildren(problem(error));
    }
  };
  return { element, update };
}

function ask(alias, state) {
  confirm({
    title: `Remove ${alias.name}?`,
    text: "Requests for this alias will get a 404. The rest of routes.toml is not changed.",
    submit: "Remove",
    act: async () => {
      await remove(`aliases/${encodeURIComponent(alias.name)}`);
      notify(`Removed ${alias.name}.`);
      await state.reload();
    },
  });
}

// ---------------------------------------------------------------------- the page

export function open(page) {
  const add = h(
    "button",
    { type: "button", class: "primary", onclick: () => edit(null, state) },
    "New alias",
  );
  page.querySelector(".page-head").append(add);
  const cards = h("div", { class: "cards" });
  const trouble = h("div", {});
  page.append(
    h(
      "p",
      { class: "lead" },
      "A request for an alias goes to the member that its strategy picks at that moment.",
    ),
    trouble,
    cards,
  );
  let made = [];
  let said = "";
  const state = {
    aliases: [],
    routes: [],
    kind: { endpoint: "chat", stream: false },
    names: () => [
      ...new Set([
        ...state.routes.map((one) => one.id),
        ...state.routes.map((one) => one.model),
        ...state.aliases.map((one) => one.name),
      ]),
    ],
    reload: () => load(),
  };
  const show = () => {
    made = state.aliases.map((alias) => makeCard(alias, state));
    cards.replaceChildren(
      ...(made.length
        ? made.map((one) => one.element)
        : [
            nothing(
              "There are no aliases.",
              h("p", {}, "Create one, and requests can use its name as their model."),
            ),
          ]),
    );
  };
  const load = async (signal) => {
    try {
      [state.aliases, state.routes] = await Promise.all([
        list("aliases", {}, signal),
        list("routes", {}, signal),
      ]);
      state.kind = usualKind(state.routes);
      trouble.replaceChildren();
      const says = JSON.stringify(state.aliases);
      if (says !== said) show();
      said = says;
      await Promise.all(made.map((one) => one.update()));
    } catch (error) {
      if (!signal?.aborted) trouble.replaceChildren(problem(error, () => load()));
    }
  };
  return repeat(POLL_S, load);
}
