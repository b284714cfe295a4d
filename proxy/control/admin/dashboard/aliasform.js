// The dialog that creates or edits an alias.

import { put, Refused } from "./api.js";
import { notify } from "./dom.js";
import { explainAny, STRATEGIES } from "./explain.js";
import { byField, modal } from "./forms.js";
import { memberEditor } from "./members.js";

const SETTINGS = [
  "strategy", "sticky", "peek", "hedge", "max_first_token", "keepalive", "on_disconnect", "split", "fallback",
  "models",
];

// Settings that the dialog leaves as they are: those of the file are written back.
const UNSHOWN = ["fail_on", "deadline", "connect", "first_byte", "first_token", "idle", "total"];

function formFields(alias) {
  return [
    {
      name: "strategy",
      label: "Strategy",
      value: alias.strategy ?? "",
      options: [["", "default from [routing]"], ...STRATEGIES.map((one) => [one, one])],
    },
    {
      name: "on_disconnect",
      label: "When the client disconnects",
      value: alias.on_disconnect ?? "",
      options: [
        ["", "default: cancel"],
        ["cancel", "cancel the request"],
        ["drain", "drain: read the response to its end"],
      ],
    },
    {
      name: "fallback",
      label: "Fallback",
      value: (alias.fallback ?? []).join(", "),
      hint: "economy, openai/gpt-4o: names to try in order after the members",
    },
    {
      name: "sticky",
      label: "Sticky",
      value: alias.sticky,
      hint: "key or header:NAME: keep each caller on one side of a split",
    },
    {
      name: "hedge",
      label: "Hedge",
      value: alias.hedge,
      hint: "auto, off, p95 or 800ms: when a second member is asked",
    },
    {
      name: "max_first_token",
      label: "First token within",
      value: alias.max_first_token,
      hint: "10s: with cost, leave members aside that are slower to begin",
    },
    {
      name: "keepalive",
      label: "Keep-alive",
      value: alias.keepalive,
      hint: "15s: send a comment line when a stream is silent this long",
    },
    {
      name: "peek",
      label: "Hold streams until output",
      value: alias.peek === null ? "" : String(alias.peek),
      options: [["", "default from [routing]"], ["true", "yes, so that they can fail over"], ["false", "no"]],
    },
  ];
}

/** The names in a text with commas; null for none. */
function namesOf(text) {
  const names = text.split(",").map((name) => name.trim());
  return names.some(Boolean) ? names.filter(Boolean) : null;
}

/** All settings, as the API takes them: null for one that is not set. */
const settingsOf = (values, members) => ({
  models: members.models,
  split: members.split,
  strategy: values.strategy || null,
  fallback: namesOf(values.fallback),
  sticky: values.sticky.trim() || null,
  peek: values.peek ? values.peek === "true" : null,
  hedge: values.hedge.trim() || null,
  max_first_token: values.max_first_token.trim() || null,
  keepalive: values.keepalive.trim() || null,
  on_disconnect: values.on_disconnect || null,
});

/** The field that an error is about. */
function fieldOf(text, quoted, members) {
  if (text.startsWith("alias cycle") || /empty list/.test(text)) return "models";
  for (const name of quoted) {
    if (members.includes(name)) return `member:${name}`;
    if (SETTINGS.includes(name)) return name;
  }
  return text.startsWith("alias ") ? "name" : "";
}

const EMPTY = {
  name: "",
  models: [""],
  strategy: null,
  split: null,
  fallback: null,
  sticky: null,
  peek: null,
  hedge: null,
  max_first_token: null,
  keepalive: null,
  on_disconnect: null,
};

/** `alias`: null for a new one. `state`: that of the page, see aliases.js. */
export function edit(alias, state) {
  const isNew = alias === null;
  const old = alias ?? EMPTY;
  const kept = Object.fromEntries(UNSHOWN.map((name) => [name, old[name] ?? null]));
  const editor = memberEditor(old, state.names());
  modal({
    title: isNew ? "New alias" : `Edit ${old.name}`,
    submit: isNew ? "Create alias" : "Save",
    wide: true,
    intro:
      "Saved to routes.toml; its comments are kept. The change applies to the next request at every worker.",
    fields: [
      ...(isNew
        ? [
            {
              name: "name",
              label: "Name",
              required: true,
              class: "whole",
              hint: "the name that requests send as their model",
            },
          ]
        : []),
      editor,
      ...formFields(old),
    ],
    onsubmit: async (values) => {
      const name = isNew ? values.name.trim() : old.name;
      if (!name) return { name: "Enter a name." };
      if (isNew && state.aliases.some((one) => one.name === name))
        return { name: "An alias with this name exists. Edit that one instead." };
      const members = editor.read();
      try {
        await put(`aliases/${encodeURIComponent(name)}`, { ...kept, ...settingsOf(values, members) });
      } catch (error) {
        return complaintsOf(error, members.models);
      }
      await state.reload();
      announce(name, state);
      return null;
    },
  });
}

function complaintsOf(error, members) {
  if (!(error instanceof Refused)) throw error;
  if (error.status === 409) {
    return {
      "": `${error.message} Nothing was changed. Close this dialog to see the current file.`,
    };
  }
  if (error.status !== 422) throw error;
  return byField(error.message, (text, quoted) => fieldOf(text, quoted, members));
}

async function announce(name, state) {
  let where = "";
  try {
    const told = await explainAny(
      state.aliases.find((one) => one.name === name),
      state.kind,
    );
    where =
      told.strategy === "split"
        ? " Requests are split by weight."
        : told.choice === null
          ? " No member can serve a request now."
          : ` The next request goes to ${told.choice}.`;
  } catch {
    /* its card says why */
  }
  notify(`Saved ${name}.${where}`);
}
