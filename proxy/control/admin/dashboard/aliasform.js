// The dialog that makes an alias or changes one.

import { put, Refused } from "./api.js";
import { notify } from "./dom.js";
import { explainAny, STRATEGIES } from "./explain.js";
import { byField, modal } from "./forms.js";
import { memberEditor } from "./members.js";

const SETTINGS = ["strategy", "sticky", "peek", "hedge", "keepalive", "on_disconnect", "split", "models"];

function formFields(alias) {
  return [
    {
      name: "strategy",
      label: "Strategy",
      value: alias.strategy ?? "",
      options: [["", "default of [routing]"], ...STRATEGIES.map((one) => [one, one])],
    },
    {
      name: "on_disconnect",
      label: "When a client leaves",
      value: alias.on_disconnect ?? "",
      options: [
        ["", "default: cancel"],
        ["cancel", "cancel the answer"],
        ["drain", "drain: read it to its end"],
      ],
    },
    {
      name: "sticky",
      label: "Sticky",
      value: alias.sticky,
      hint: "key or header:NAME keeps a caller on one side of a split",
    },
    {
      name: "hedge",
      label: "Hedge",
      value: alias.hedge,
      hint: "p95 or 800ms: then a second member is asked",
    },
    {
      name: "keepalive",
      label: "Keep-alive",
      value: alias.keepalive,
      hint: "15s: a comment into streams silent that long",
    },
    {
      name: "peek",
      label: "Peek",
      type: "checkbox",
      value: alias.peek,
      hint: "a stream that begins with an error fails over",
    },
  ];
}

/** The settings as the API wants them: whole, and null for what is not set. */
const settingsOf = (values, members) => ({
  models: members.models,
  split: members.split,
  strategy: values.strategy || null,
  sticky: values.sticky.trim() || null,
  peek: values.peek,
  hedge: values.hedge.trim() || null,
  keepalive: values.keepalive.trim() || null,
  on_disconnect: values.on_disconnect || null,
});

/** The field that a complaint is about. */
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
  sticky: null,
  peek: false,
  hedge: null,
  keepalive: null,
  on_disconnect: null,
};

/** `alias`: null for a new one. `state`: of the page, see aliases.js. */
export function edit(alias, state) {
  const isNew = alias === null;
  const old = alias ?? EMPTY;
  const editor = memberEditor(old, state.names());
  modal({
    title: isNew ? "New alias" : `Edit ${old.name}`,
    submit: isNew ? "Create alias" : "Save",
    wide: true,
    intro:
      "Written into routes.toml, whose comments stay, and in effect for the next request of every worker.",
    fields: [
      ...(isNew
        ? [
            {
              name: "name",
              label: "Name",
              required: true,
              class: "whole",
              hint: "what requests say as their model",
            },
          ]
        : []),
      editor,
      ...formFields(old),
    ],
    onsubmit: async (values) => {
      const name = isNew ? values.name.trim() : old.name;
      if (!name) return { name: "Give the alias a name." };
      if (isNew && state.aliases.some((one) => one.name === name))
        return { name: "There is an alias of that name: edit it." };
      const members = editor.read();
      try {
        await put(`aliases/${encodeURIComponent(name)}`, settingsOf(values, members));
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
      "": `${error.message} Nothing was changed. Close this to see what the file says now.`,
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
        ? " Requests are divided by share."
        : ` The next request goes to ${told.choice ?? "nobody"}.`;
  } catch {
    /* its card says why */
  }
  notify(`${name} is saved.${where}`);
}
