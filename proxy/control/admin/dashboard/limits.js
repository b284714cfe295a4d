// Limits of keys and groups: what is used of them, and the fields of their forms.

import { Refused } from "./api.js";
import { h, meter } from "./dom.js";
import { byField } from "./forms.js";
import * as format from "./format.js";

const NUMBERS = [
  "monthly_usd",
  "monthly_tokens",
  "daily_usd",
  "daily_tokens",
  "rpm",
  "tpm",
  "concurrency",
  "max_tokens",
];
/** The settings that keys and groups have. */
export const SETTINGS = [...NUMBERS, "soft"];

// ---------------------------------------------------------------------- what is used

function used(label, amount, limit, text) {
  if (limit === null) return null;
  return meter(label, amount / limit, `${text(amount)} of ${text(limit)}`);
}

function inWindows({ day, month, limits }, what, kind, text) {
  const monthly = used(`${what} this month`, month[kind], limits[`monthly_${kind}`], text);
  const daily = used(`${what} today`, day[kind], limits[`daily_${kind}`], (amount) => text(amount));
  return [
    monthly ?? h("div", {}, text(month[kind]), h("span", { class: "hint block" }, "no limit")),
    daily && h("div", { class: "today" }, h("span", { class: "hint block" }, "today"), daily),
  ];
}

/** What a key or a group has spent in this month, and on this day if that is limited. */
export const spent = (row) => inWindows(row, "Spent", "usd", format.usd);
export const tokens = (row) => inWindows(row, "Tokens", "tokens", format.compact);

/** The other limits of a key or a group. */
export function limitsOf({ limits, soft }) {
  const told = [
    ["rpm", "requests/min"],
    ["tpm", "tokens/min"],
    ["concurrency", "in parallel"],
    ["max_tokens", "tokens/response"],
  ]
    .filter(([name]) => limits[name] !== null)
    .map(([name, text]) => h("li", { class: "nowrap" }, `${format.count(limits[name])} ${text}`));
  if (soft) told.push(h("li", { class: "nowrap" }, "soft: alerts only"));
  return told.length ? h("ul", { class: "plain" }, told) : h("span", { class: "hint" }, "none");
}

// ---------------------------------------------------------------------- forms

/** The form's values for the limits of a key or a group; empty without one. */
export function textsOf(row) {
  const textOf = (name) => (row === null || row.limits[name] === null ? "" : String(row.limits[name]));
  return { ...Object.fromEntries(NUMBERS.map((name) => [name, textOf(name)])), soft: row?.soft ?? false };
}

export function fieldsOf(texts) {
  const number = (name, label) => ({
    name,
    label,
    value: texts[name],
    inputmode: "decimal",
    placeholder: "no limit",
  });
  return [
    number("monthly_usd", "USD per month"),
    number("monthly_tokens", "Tokens per month"),
    number("daily_usd", "USD per day"),
    number("daily_tokens", "Tokens per day"),
    number("rpm", "Requests per minute"),
    number("tpm", "Tokens per minute"),
    number("concurrency", "Requests in parallel"),
    number("max_tokens", "Tokens per response"),
    {
      name: "soft",
      label: "Only alert at the limits of the day and the month",
      hint: "no request is refused for them",
      type: "checkbox",
      value: texts.soft,
    },
  ];
}

/** The changed settings, as the API takes them: null for one that was emptied. */
export function changes(values, before) {
  const trimmed = Object.entries(values).map(([name, value]) => [name, value.trim?.() ?? value]);
  const changed = trimmed.filter(([name, value]) => value !== before[name]);
  return Object.fromEntries(
    changed.map(([name, value]) => {
      if (value === "" && name !== "name") return [name, null];
      const isNumber = NUMBERS.includes(name) && /^\d+(\.\d+)?$/.test(value);
      return [name, isNumber ? Number(value) : value];
    }),
  );
}

/** Does the work of a form; the complaints of the API by `fields`, or null. */
export async function orComplaints(work, fields) {
  try {
    await work();
    return null;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.code === "key_name_taken" || error.code === "group_name_taken") return { name: error.message };
    if (error.status !== 422) throw error;
    return byField(error.message, (_text, quoted) => quoted.find((name) => fields.includes(name)) ?? "");
  }
}
