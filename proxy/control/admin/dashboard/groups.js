// Groups: limits that several keys share. A section of the page of keys.

import { list, patch, post, remove } from "./api.js";
import { h, notify, renew, table } from "./dom.js";
import { confirm, modal } from "./forms.js";
import { changes, fieldsOf, limitsOf, orComplaints, SETTINGS, spent, textsOf, tokens } from "./limits.js";

const FIELDS = ["name", ...SETTINGS];

function makeRow(grid, group, reload) {
  const button = (text, act, quiet) =>
    h(
      "button",
      {
        type: "button",
        class: quiet ? "quiet" : "",
        "data-name": text,
        "aria-label": `${text} group ${group.name}`,
        onclick: act,
      },
      text,
    );
  return grid.row([
    h("strong", {}, group.name),
    String(group.keys),
    spent(group),
    tokens(group),
    limitsOf(group),
    h(
      "div",
      { class: "actions" },
      button("Edit", () => edit(group, reload)),
      group.keys === 0 && button("Delete", () => drop(group, reload), true),
    ),
  ]);
}

function edit(group, reload) {
  const before = textsOf(group);
  modal({
    title: `Edit group ${group.name}`,
    submit: "Save",
    wide: true,
    fields: fieldsOf(before),
    intro: "Changes apply to the next request of its keys. What was used stays counted.",
    onsubmit: (values) =>
      orComplaints(async () => {
        await patch(`groups/${encodeURIComponent(group.name)}`, changes(values, before));
        notify(`Saved group ${group.name}.`);
        await reload();
      }, FIELDS),
  });
}

function create(reload) {
  const before = textsOf(null);
  const name = {
    name: "name",
    label: "Name",
    hint: "letters, digits, '.', '_' and '-'; it can’t be changed",
    required: true,
    class: "whole",
  };
  modal({
    title: "New group",
    submit: "Create group",
    wide: true,
    fields: [name, ...fieldsOf(before)],
    intro: "A request is bound by the limits of its key and by those of its key’s group.",
    onsubmit: (values) =>
      orComplaints(async () => {
        await post("groups", { ...changes(values, before), name: values.name.trim() });
        notify(`Created group ${values.name.trim()}.`);
        await reload();
      }, FIELDS),
  });
}

function drop(group, reload) {
  confirm({
    title: `Delete group ${group.name}?`,
    text: "It has no keys. A group that is made again under this name goes on with what this one has used.",
    submit: "Delete",
    act: async () => {
      await remove(`groups/${encodeURIComponent(group.name)}`);
      notify(`Deleted group ${group.name}.`);
      await reload();
    },
  });
}

/** The section: its element, the button that makes a group, and `load(signal)`, which resolves to the names. */
export function section(reload) {
  const grid = table("Groups", [
    "Group",
    "Keys",
    "Spent this month",
    "Tokens this month",
    "Limits",
    { text: "Actions", unseen: true },
  ]);
  const element = h("section", { class: "groups", hidden: true }, h("h2", {}, "Groups"), grid.element);
  const button = h("button", { type: "button", onclick: () => create(reload) }, "New group");
  const load = async (signal) => {
    const groups = await list("groups", {}, signal);
    renew(
      grid.body,
      groups,
      (group) => group.name,
      (group) => makeRow(grid, group, reload),
    );
    element.hidden = groups.length === 0;
    return groups.map((group) => group.name);
  };
  return { element, button, load };
}
