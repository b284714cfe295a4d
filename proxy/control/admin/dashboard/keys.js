// Keys: create (shown once), edit, rotate, revoke; and the use of each against its limits.

import { list, patch, post, remove, repeat } from "./api.js";
import { badge, copy, h, nothing, notify, problem, renew, say, table } from "./dom.js";
import { confirm, modal } from "./forms.js";
import * as format from "./format.js";
import { section } from "./groups.js";
import * as limits from "./limits.js";
import { changes, orComplaints } from "./limits.js";

export const title = "Keys";

const POLL_S = 5;
const FIELDS = ["name", ...limits.SETTINGS, "group", "models", "expires", "on_disconnect", "tags"];
const SOON_S = 7 * 86_400;

// ---------------------------------------------------------------------- the table

const isInUse = (key) => key.revoked === null && (key.expires === null || key.expires > Date.now() / 1000);

function stateOf(key) {
  const isRotating = isInUse(key) && key.old_secret_until > Date.now() / 1000;
  const former = isRotating && `old secret works until ${format.moment(key.old_secret_until)}`;
  return [endOf(key), former && h("span", { class: "hint block" }, former)];
}

function endOf(key) {
  const now = Date.now() / 1000;
  if (key.revoked !== null)
    return [badge("bad", "revoked"), h("span", { class: "hint block" }, format.moment(key.revoked))];
  if (key.expires === null) return badge("good", "active");
  const until = h("span", { class: "hint block" }, format.moment(key.expires));
  if (key.expires <= now) return [badge("bad", "expired"), until];
  return [badge(key.expires - now < SOON_S ? "warn" : "good", "active until"), until];
}

function makeRow(grid, key, reload) {
  const button = (text, act, quiet) =>
    h(
      "button",
      {
        type: "button",
        class: quiet ? "quiet" : "",
        "data-name": text,
        "aria-label": `${text} ${key.name}`,
        onclick: act,
      },
      text,
    );
  return grid.row(
    [
      h(
        "div",
        {},
        h("a", { class: "strong", href: `#/key?${new URLSearchParams({ id: key.id })}` }, key.name),
        h("code", { class: "hint block nowrap" }, key.id),
        key.group && h("span", { class: "hint block" }, `group ${key.group}`),
      ),
      stateOf(key),
      limits.spent(key),
      limits.tokens(key),
      limits.limitsOf(key),
      key.models === null ? h("span", { class: "hint" }, "all") : h("code", {}, key.models.join(", ")),
      [
        h("span", { class: "nowrap" }, key.last_used === null ? "never" : format.moment(key.last_used)),
        h(
          "a",
          {
            class: "block hint",
            href: `#/requests?${new URLSearchParams({ key: key.id })}`,
            "aria-label": `Requests of ${key.name}`,
          },
          "requests",
        ),
      ],
      h(
        "div",
        { class: "actions" },
        button("Edit", () => edit(key, reload)),
        isInUse(key) && button("Rotate", () => rotate(key, reload), true),
        key.revoked === null && button("Revoke", () => revoke(key, reload), true),
      ),
    ],
    { class: key.revoked === null ? null : "over" },
  );
}

// ---------------------------------------------------------------------- dialogs

const isoMoment = (unix) => new Date(unix * 1000).toISOString().replace(".000", "");

let groups = []; // names

/** The form's values for a key; empty for a new one. */
function textsOf(key) {
  return {
    ...limits.textsOf(key),
    name: key?.name ?? "",
    group: key?.group ?? "",
    models: (key?.models ?? []).join(", "),
    expires: key === null || key.expires === null ? "" : isoMoment(key.expires),
    on_disconnect: key?.on_disconnect ?? "",
    tags: Object.entries(key?.tags ?? {})
      .map(([name, value]) => `${name}=${value}`)
      .join(", "),
  };
}

function formFields(texts) {
  const one = (name, label, hint, more = {}) => ({ name, label, hint, value: texts[name], ...more });
  const names = [...new Set([...groups, texts.group])].filter((name) => name !== "");
  return [
    one("name", "Name", "the owner of the key", { required: true, class: "whole" }),
    ...limits.fieldsOf(texts),
    one("group", "Group", names.length ? "its limits hold too" : "no group exists yet", {
      options: [["", "none"], ...names.map((name) => [name, name])],
    }),
    one("models", "Models", "ids, aliases or globs such as openai/*, separated by commas; empty for all", {
      class: "whole",
      placeholder: "all",
    }),
    one("expires", "Expires", "2027-01-31, or 90d from now", { placeholder: "never" }),
    one("on_disconnect", "When the client disconnects", null, {
      options: [
        ["", "default: as set for the alias"],
        ["cancel", "cancel the request"],
        ["drain", "drain: read the response to its end"],
      ],
    }),
    one("tags", "Tags", "team=search, feature=rag: names that [usage] tags lists; they win over the client’s", {
      class: "whole",
    }),
  ];
}

function edit(key, reload) {
  const before = textsOf(key);
  modal({
    title: `Edit ${key.name}`,
    submit: "Save",
    wide: true,
    fields: formFields(before),
    intro: "Changes apply to the next request at every worker. This month’s usage stays counted.",
    onsubmit: (values) =>
      orComplaints(async () => {
        await patch(`keys/${key.id}`, changes(values, before));
        notify(`Saved ${values.name.trim()}.`);
        await reload();
      }, FIELDS),
  });
}

function create(reload) {
  const before = textsOf(null);
  modal({
    title: "New key",
    submit: "Create key",
    wide: true,
    fields: formFields(before),
    onsubmit: (values) =>
      orComplaints(async () => {
        const made = await post("keys", { name: values.name, ...changes(values, before) });
        showSecret(made); // before anything else can fail
        reload();
      }, FIELDS),
  });
}

/** Shows a new key, this one time. Only its button closes it: Escape may have been meant for the form before. */
function showSecret({ name, key, closes_gateway: closes }) {
  const text = h("input", {
    type: "text",
    readonly: true,
    value: key,
    "aria-label": "The key",
    class: "secret",
  });
  const said = h("span", { class: "hint", role: "status" });
  const button = h(
    "button",
    {
      type: "button",
      class: "primary",
      onclick: async () => {
        text.select();
        const isCopied = (await copy(key)) || document.execCommand("copy");
        say(said, isCopied ? "Copied." : "The key is selected: copy it with the keyboard.");
      },
    },
    "Copy key",
  );
  const { dialog } = modal({
    title: `New key: ${name}`,
    intro:
      "Copy the key now: it won’t be shown again, because the gateway keeps only its hash." +
      (closes ? " This is the first key: from now on every request needs one." : ""),
    fields: [h("div", { class: "whole secret-line" }, text, button), h("div", { class: "whole" }, said)],
  });
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  button.focus();
}

function rotate(key, reload) {
  modal({
    title: `Rotate ${key.name}`,
    submit: "Create new secret",
    intro:
      "The key keeps its id, its limits and its usage. A secret from before the last rotation stops working " +
      "at once.",
    fields: [
      {
        name: "overlap",
        label: "Keep the old secret working for",
        hint: "such as 24h or 7d, up to 30d; 0: it stops working now",
        value: "24h",
        class: "whole",
      },
    ],
    onsubmit: (values) =>
      orComplaints(
        async () => {
          const made = await post(`keys/${key.id}/rotate`, { overlap: values.overlap.trim() || null });
          showSecret(made); // before anything else can fail
          reload();
        },
        ["overlap"],
      ),
  });
}

function revoke(key, reload) {
  confirm({
    title: `Revoke ${key.name}?`,
    text: "Its next request will get a 401. This can’t be undone.",
    submit: "Revoke",
    act: async () => {
      await remove(`keys/${key.id}`);
      notify(`Revoked ${key.name}.`);
      await reload();
    },
  });
}

// ---------------------------------------------------------------------- the page

export function open(page) {
  const grid = table("Keys", [
    "Key",
    "State",
    "Spent this month",
    "Tokens this month",
    "Limits",
    "Models",
    "Last used",
    { text: "Actions", unseen: true },
  ]);
  const trouble = h("div", {});
  const empty = nothing(
    "There are no keys.",
    h(
      "p",
      {},
      "As long as no key exists and all listeners are local, anyone on this machine can use the gateway, unless " +
        "routes.toml has [auth] required = true. Creating the first key turns this off: every request then needs one.",
    ),
  );
  const shared = section(() => load());
  const load = async (signal) => {
    try {
      const [keys, names] = await Promise.all([list("keys", {}, signal), shared.load(signal)]);
      groups = names;
      trouble.replaceChildren();
      keys.sort((a, b) => (a.revoked !== null) - (b.revoked !== null) || b.created - a.created);
      renew(
        grid.body,
        keys,
        (key) => key.id,
        (key) => makeRow(grid, key, () => load()),
      );
      grid.element.hidden = keys.length === 0;
      empty.hidden = keys.length > 0;
    } catch (error) {
      if (!signal?.aborted) trouble.replaceChildren(problem(error, () => load()));
    }
  };
  grid.element.hidden = empty.hidden = true;
  page
    .querySelector(".page-head")
    .append(
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "primary", onclick: () => create(() => load()) }, "New key"),
        shared.button,
      ),
    );
  page.append(
    trouble,
    empty,
    grid.element,
    shared.element,
    h("p", { class: "hint" }, "Days and months are those of the calendar in UTC."),
  );
  return repeat(POLL_S, load);
}
