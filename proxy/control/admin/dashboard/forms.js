// Dialogs with forms. Errors of the server are shown beside the fields that they name.

import { freshId, h, say } from "./dom.js";

/** A labelled input. `spec`: name, label, hint, type, value, options (of a select), rows (of a text), list. */
export function field(spec) {
  const id = freshId();
  const hint = spec.hint ? h("span", { class: "hint", id: `${id}-hint` }, spec.hint) : null;
  const wrong = h("span", { class: "wrong", id: `${id}-wrong`, role: "alert" });
  const common = {
    id,
    name: spec.name,
    "aria-describedby": `${hint ? `${id}-hint ` : ""}${id}-wrong`,
    required: spec.required,
  };
  const input = control(spec, common);
  const label = h("label", { for: id }, spec.label);
  const element =
    spec.type === "checkbox"
      ? h("div", { class: "field check" }, input, h("div", {}, label, hint, wrong))
      : h("div", { class: `field ${spec.class ?? ""}` }, label, input, hint, wrong);
  const complain = (text) => {
    say(wrong, text);
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  const read = () => (spec.type === "checkbox" ? input.checked : input.value);
  return { name: spec.name, element, input, complain, read };
}

function control(spec, common) {
  if (spec.options) {
    return h(
      "select",
      common,
      spec.options.map(([value, text]) =>
        h("option", { value, selected: value === (spec.value ?? "") }, text),
      ),
    );
  }
  if (spec.rows)
    return h("textarea", { ...common, rows: spec.rows, spellcheck: "false", value: spec.value ?? "" });
  if (spec.type === "checkbox")
    return h("input", { ...common, type: "checkbox", checked: Boolean(spec.value) });
  return h("input", {
    ...common,
    type: spec.type ?? "text",
    value: spec.value ?? "",
    list: spec.list,
    inputmode: spec.inputmode,
    placeholder: spec.placeholder,
    autocomplete: spec.autocomplete ?? "off",
    spellcheck: "false",
  });
}

/**
 * A dialog with a form, shown at once. `fields`: specs of fields, `{element, fields}` for existing ones, or
 * elements; `submit` and `close`: the texts of the buttons. `onsubmit(values)` resolves with null on success, or
 * with error messages by field name; "" stands for the whole form. An exception is shown as a message too.
 */
export function modal({
  title,
  intro,
  fields = [],
  submit,
  close,
  danger = false,
  wide = false,
  onsubmit,
  onclose,
}) {
  const made = fields.map((one) => (one instanceof Node ? { element: one } : one.element ? one : field(one)));
  const named = () => made.flatMap((one) => (one.name ? [one] : (one.fields?.() ?? [])));
  const top = h("p", { class: "wrong top", role: "alert" });
  const send = submit && h("button", { type: "submit", class: danger ? "danger" : "primary" }, submit);
  const titleId = freshId();
  const dialog = h("dialog", { class: wide ? "wide" : null, "aria-labelledby": titleId });
  const cancel = h(
    "button",
    { type: "button", onclick: () => dialog.close() },
    close ?? (submit ? "Cancel" : "Close"),
  );
  const complain = (complaints) => {
    for (const one of named()) one.complain(complaints[one.name] ?? "");
    say(top, complaints[""] ?? "");
    const first = named().find((one) => complaints[one.name]);
    if (first) first.input.focus();
  };
  const form = h(
    "form",
    {
      novalidate: true,
      onsubmit: async (event) => {
        event.preventDefault();
        if (!send || send.disabled) return;
        send.disabled = true;
        complain({});
        let complaints;
        try {
          complaints = await onsubmit(Object.fromEntries(named().map((one) => [one.name, one.read()])));
        } catch (error) {
          complaints = { "": error.message };
        }
        send.disabled = false;
        if (complaints === null) dialog.close();
        else complain(complaints);
      },
    },
    h("h2", { id: titleId }, title),
    intro && h("p", { class: "intro" }, intro),
    top,
    h(
      "div",
      { class: "fields" },
      made.map((one) => one.element),
    ),
    h("div", { class: "buttons" }, cancel, send),
  );
  const before = document.activeElement;
  dialog.append(form);
  dialog.addEventListener("close", () => {
    dialog.remove();
    // The browser restores the focus by itself, unless the element that had it was replaced.
    if (!before?.isConnected) document.querySelector("h1")?.focus();
    onclose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  form.querySelector("input, select, textarea")?.focus();
  return { dialog, complain };
}

/** Asks for confirmation, then calls `act`. An exception of `act` is shown. */
export function confirm({ title, text, submit, act }) {
  modal({
    title,
    intro: text,
    submit,
    danger: true,
    onsubmit: async () => {
      await act();
      return null;
    },
  });
}

const BEGINS = /^(['"]|unknown |alias |model |there is no\b)/i;

/**
 * The parts of an error message of the admin API, which joins several errors with semicolons. A part begins with
 * the name of a setting or with one of these words; other text belongs to the part before it.
 */
export function complaints(message) {
  const found = [];
  for (const part of message.split("; ")) {
    if (found.length && !BEGINS.test(part)) found[found.length - 1] += `; ${part}`;
    else found.push(part);
  }
  return found;
}

/** A message's errors by field. `fieldOf(text, quoted)` names the field, or "" for the whole form. */
export function byField(message, fieldOf) {
  const found = {};
  for (const text of complaints(message)) {
    const quoted = [...text.matchAll(/'([^']*)'/g)].map((match) => match[1]);
    const name = fieldOf(text, quoted);
    found[name] = found[name] ? `${found[name]} ${text}` : text;
  }
  return found;
}
