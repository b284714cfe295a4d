// The editor of an alias's members: their order, and their weights in a split.

import { freshId, h, icon, say } from "./dom.js";
import * as format from "./format.js";

/** The whole number that a text holds. Other text is returned as it is: the server reports what is wrong. */
const numberOf = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : text);

function makeLine(name, weight, listId, actions) {
  const id = freshId();
  const wrong = h("span", { class: "wrong", id: `${id}-wrong`, role: "alert" });
  const input = h("input", {
    type: "text",
    value: name,
    list: listId,
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": `${id}-wrong`,
    placeholder: "provider/model, model or alias",
  });
  const share = h("input", {
    type: "text",
    inputmode: "numeric",
    class: "weight",
    value: weight,
    autocomplete: "off",
    oninput: actions.count,
  });
  const part = h("output", { class: "part" });
  const press = (name, act) => h("button", { type: "button", class: "quiet icon", onclick: act }, icon(name));
  const line = { input, share, part };
  const [up, down, drop] = [
    press("up", () => actions.move(line, -1)),
    press("down", () => actions.move(line, 1)),
    press("remove", () => actions.drop(line)),
  ];
  line.element = h(
    "li",
    { class: "line" },
    input,
    h("span", { class: "shares" }, share, part),
    h("span", { class: "moves" }, up, down, drop),
    wrong,
  );
  line.complain = (text) => {
    say(wrong, text);
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  line.renumber = (index, count) => {
    input.setAttribute("aria-label", `Member ${index + 1}`);
    share.setAttribute("aria-label", `Weight of member ${index + 1}`);
    up.setAttribute("aria-label", `Move member ${index + 1} up`);
    down.setAttribute("aria-label", `Move member ${index + 1} down`);
    drop.setAttribute("aria-label", `Remove member ${index + 1}`);
    up.disabled = index === 0;
    down.disabled = index === count - 1;
  };
  return line;
}

/** A group of fields for forms.js; `read()` gives `{models, split}`. `names`: suggestions. */
export function memberEditor(alias, names) {
  const listId = freshId();
  const splitId = freshId();
  const lines = [];
  const place = h("ol", { class: "lines" });
  const general = h("span", { class: "wrong", role: "alert" });
  const isSplit = h("input", {
    type: "checkbox",
    id: splitId,
    checked: alias.split !== null,
    onchange: () => count(),
  });

  const count = () => {
    place.classList.toggle("split", isSplit.checked);
    const total = lines.reduce((sum, line) => sum + (Number(line.share.value) || 0), 0);
    for (const line of lines) {
      const weight = Number(line.share.value) || 0;
      say(line.part, weight > 0 ? format.percent(weight / total) : "stand-in");
    }
  };
  const renumber = () => {
    lines.forEach((line, index) => line.renumber(index, lines.length));
    count();
  };
  const actions = {
    count,
    move: (line, by) => {
      const from = lines.indexOf(line);
      lines.splice(from, 1);
      lines.splice(from + by, 0, line);
      const focused = document.activeElement;
      place.replaceChildren(...lines.map((one) => one.element));
      renumber();
      (focused.disabled ? line.input : focused).focus();
    },
    drop: (line) => {
      const from = lines.indexOf(line);
      lines.splice(from, 1);
      line.element.remove();
      renumber();
      (lines[Math.min(from, lines.length - 1)]?.input ?? add).focus();
    },
  };
  const append = (name, weight) => {
    const line = makeLine(name, weight, listId, actions);
    lines.push(line);
    place.append(line.element);
    renumber();
    return line;
  };
  const add = h("button", { type: "button", onclick: () => append("", "").input.focus() }, "Add member");
  const shares = alias.split ?? {};
  for (const name of new Set([...alias.models, ...Object.keys(shares)]))
    append(name, String(shares[name] ?? ""));

  const filled = () => lines.filter((line) => line.input.value.trim());
  const read = () => ({
    models: filled().map((line) => line.input.value.trim()),
    split: isSplit.checked
      ? Object.fromEntries(
          filled()
            .filter((line) => line.share.value.trim())
            .map((line) => [line.input.value.trim(), numberOf(line.share.value.trim())]),
        )
      : null,
  });
  // An error about one member is shown beside it, one about all of them below the list.
  const fields = () => [
    ...lines.map((line) => ({
      name: `member:${line.input.value.trim()}`,
      input: line.input,
      complain: line.complain,
      read: () => null,
    })),
    ...["models", "split"].map((name) => ({
      name,
      input: name === "split" ? isSplit : (lines[0]?.input ?? add),
      read: () => null,
      complain: (text) =>
        say(general, name === "models" ? text : [general.textContent, text].filter(Boolean).join(" ")),
    })),
  ];
  const element = h(
    "fieldset",
    { class: "whole editor" },
    h("legend", {}, "Members, in order"),
    h(
      "datalist",
      { id: listId },
      names.map((name) => h("option", { value: name })),
    ),
    place,
    general,
    h(
      "div",
      { class: "editor-foot" },
      add,
      h("label", { class: "inline", for: splitId }, isSplit, "A/B split by weight"),
      h("span", { class: "hint" }, "A member without a weight is used only when no weighted member is available."),
    ),
  );
  return { element, fields, read };
}
