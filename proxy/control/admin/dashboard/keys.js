// Keys: made (and shown once), changed, rotated, revoked; what each has used of its limits.

import { list, patch, post, Refused, remove, repeat } from "./api.js";
import { badge, copy, h, meter, nothing, notify, problem, renew, say, table } from "./dom.js";
import { byField, confirm, modal } from "./forms.js";
import * as format from "./format.js";

export const title = "Keys";

const POLL_S = 5;
const NUMBERS = ["rpm", "tpm", "concurrency", "monthly_usd", "monthly_tokens", "max_tokens"];
const FIELDS = ["name", ...NUMBERS, "models", "expires", "on_disconnect"];
const SOON_S = 7 * 86_400;

// ---------------------------------------------------------------------- the table

const isInUse = (key) => key.revoked === null && (key.expires === null || key.expires > Date.now() / 1000);

function stateOf(key) {
  const isRotating = isInUse(key) && key.old_secret_until > Date.now() / 1000;
  const former = isRotating && `former secret until ${format.moment(key.old_secret_until)}`;
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

function used(label, amount, limit, text) {
  if (limit === null) return [text(amount), h("span", { class: "hint block" }, "no limit")];
  return meter(label, amount / limit, `${text(amount)} of ${text(limit)}`);
}

function limitsOf({ limits }) {
  const told = [
    ["rpm", "requests/min"],
    ["tpm", "tokens/min"],
    ["concurrency", "at a time"],
    ["max_tokens", "tokens/answer"],
  ]
    .filter(([name]) => limits[name] !== null)
    .map(([name, text]) => h("li", { class: "nowrap" }, `${format.count(limits[name])} ${text}`));
  return told.length ? h("ul", { class: "plain" }, told) : h("span", { class: "hint" }, "none");
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
      h("div", {}, h("strong", {}, key.name), h("code", { class: "hint block nowrap" }, key.id)),
      stateOf(key),
      used("Spent this month", key.month.usd, key.limits.monthly_usd, format.usd),
      used("Tokens this month", key.month.tokens, key.limits.monthly_tokens, format.compact),
      limitsOf(key),
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

/** What the form shows of a key; a new one has nothing. */
function textsOf(key) {
  if (key === null) return Object.fromEntries(FIELDS.map((name) => [name, ""]));
  const numbers = Object.fromEntries(
    NUMBERS.map((name) => [name, key.limits[name] === null ? "" : String(key.limits[name])]),
  );
  return {
    name: key.name,
    ...numbers,
    models: (key.models ?? []).join(", "),
    expires: key.expires === null ? "" : isoMoment(key.expires),
    on_disconnect: key.on_disconnect ?? "",
  };
}

function formFields(texts) {
  const one = (name, label, hint, more = {}) => ({ name, label, hint, value: texts[name], ...more });
  const number = (name, label, hint) =>
    one(name, label, hint, { inputmode: "decimal", placeholder: "no limit" });
  return [
    one("name", "Name", "whose key it is", { required: true, class: "whole" }),
    number("monthly_usd", "USD a month"),
    number("monthly_tokens", "Tokens a month"),
    number("rpm", "Requests a minute"),
    number("tpm", "Tokens a minute"),
    number("concurrency", "Requests at a time"),
    number("max_tokens", "Tokens an answer"),
    one("models", "Models", "ids, aliases or globs such as openai/*, with commas between; empty for all", {
      class: "whole",
      placeholder: "all",
    }),
    one("expires", "Expires", "2027-01-31, or 90d from now", { placeholder: "never" }),
    one("on_disconnect", "When a client leaves", null, {
      options: [
        ["", "as the alias says"],
        ["cancel", "cancel the answer"],
        ["drain", "drain: read it to its end"],
      ],
    }),
  ];
}

/** What was changed, as the API wants it: null for what was emptied. */
function changes(values, before) {
  const changed = Object.entries(values).filter(([name, text]) => text.trim() !== before[name]);
  return Object.fromEntries(
    changed.map(([name, text]) => {
      const written = text.trim();
      if (written === "" && name !== "name") return [name, null];
      const isNumber = NUMBERS.includes(name) && /^\d+(\.\d+)?$/.test(written);
      return [name, isNumber ? Number(written) : written];
    }),
  );
}

async function orComplaints(work, fields = FIELDS) {
  try {
    await work();
    return null;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.code === "key_name_taken") return { name: error.message };
    if (error.status !== 422) throw error;
    return byField(error.message, (_text, quoted) => quoted.find((name) => fields.includes(name)) ?? "");
  }
}

function edit(key, reload) {
  const before = textsOf(key);
  modal({
    title: `Edit ${key.name}`,
    submit: "Save",
    wide: true,
    fields: formFields(before),
    intro: "In effect for the next request of every worker. What was used in this month stays counted.",
    onsubmit: (values) =>
      orComplaints(async () => {
        await patch(`keys/${key.id}`, changes(values, before));
        notify(`${values.name.trim()} is saved.`);
        await reload();
      }),
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
      }),
  });
}

/** The one time that a key can be read. It closes by its button only, not by a key that was meant for the form. */
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
        say(said, isCopied ? "Copied." : "It is selected: copy it with the keyboard.");
      },
    },
    "Copy key",
  );
  const { dialog } = modal({
    title: `The key of ${name}`,
    intro:
      "Copy it now: this is the only time it is shown. The gateway keeps no more than its hash." +
      (closes ? " It is the first key: from now on requests need one." : ""),
    fields: [h("div", { class: "whole secret-line" }, text, button), h("div", { class: "whole" }, said)],
  });
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  button.focus();
}

function rotate(key, reload) {
  modal({
    title: `Rotate ${key.name}`,
    submit: "Make a new secret",
    intro:
      "The key stays the same, with its limits and what it has used. A secret from before the last rotation " +
      "ends at once.",
    fields: [
      {
        name: "overlap",
        label: "The present secret works on for",
        hint: "such as 24h or 7d, up to 30d; 0 ends it now",
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
    text: "From its next request on it is refused with 401. A revoked key can’t be taken into use again.",
    submit: "Revoke",
    act: async () => {
      await remove(`keys/${key.id}`);
      notify(`${key.name} is revoked.`);
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
      "While all listeners are local, requests need no key, unless [auth] required = true is in routes.toml. The " +
        "first key ends that: each needs one then.",
    ),
  );
  const load = async (signal) => {
    try {
      const keys = await list("keys", {}, signal);
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
      h("button", { type: "button", class: "primary", onclick: () => create(() => load()) }, "New key"),
    );
  page.append(trouble, empty, grid.element, h("p", { class: "hint" }, "Months are calendar months in UTC."));
  return repeat(POLL_S, load);
}
