// Builds the page from elements, never from markup: names of keys and models are untrusted.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. An attribute that is false or null is left out, true makes an empty one, a function listens to an
 * event ("onclick"); `value`, `checked` and the like are set as properties. Children: nodes, text, lists of
 * them, or null for none.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "indeterminate", "open"]);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** An icon from the symbols in index.html. */
export function icon(name) {
  return svg("svg", { "aria-hidden": "true", class: "icon" }, svg("use", { href: `#i-${name}` }));
}

/** Sets the text only if it differs, so that an unchanged text is not announced or laid out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let serial = 0;

/** An unused element id. */
export function freshId() {
  serial += 1;
  return `e${serial}`;
}

/**
 * A table that becomes a list of cards on a narrow page. `heads`: texts, or `{text, number}`.
 * `row(cells)` makes a row, whose first cell is its header. The roles are explicit because a table with another
 * layout loses its own.
 */
export function table(caption, heads) {
  const columns = heads.map((head) => (typeof head === "string" ? { text: head } : head));
  const body = h("tbody", { role: "rowgroup" });
  const cellOf = (content, index) => {
    const column = columns[index];
    const attributes = { class: column.number ? "number" : null, "data-label": column.text };
    return index === 0
      ? h("th", { ...attributes, scope: "row", role: "rowheader" }, content)
      : h("td", { ...attributes, role: "cell" }, h("div", {}, content));
  };
  const element = h(
    "div",
    { class: "table" },
    h(
      "table",
      { role: "table" },
      h("caption", { class: "unseen" }, caption),
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map((column) =>
            h(
              "th",
              { scope: "col", role: "columnheader", class: column.number ? "number" : null },
              column.unseen ? h("span", { class: "unseen" }, column.text) : column.text,
            ),
          ),
        ),
      ),
      body,
    ),
  );
  return {
    element,
    body,
    width: columns.length,
    row: (cells, attributes = {}) => h("tr", { role: "row", ...attributes }, cells.map(cellOf)),
  };
}

const shown = new WeakMap();

/**
 * Shows items as the rows of a table's body; `make(item)` gives one or several rows. An unchanged item keeps its
 * rows, and with them focus, selection and open details. In a replaced row the focus goes to the element with the
 * same `data-name`.
 */
export function renew(body, items, keyOf, make) {
  const old = shown.get(body) ?? new Map();
  const fresh = new Map();
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const within = focused?.closest("tr");
  let wanted = null;
  for (const item of items) {
    const [key, says] = [keyOf(item), JSON.stringify(item)];
    const had = old.get(key);
    const rows = had?.says === says ? had.rows : [make(item)].flat();
    if (focused && had?.rows.includes(within) && rows !== had.rows) {
      wanted = rows[0].querySelector(`[data-name="${focused.dataset.name}"]`);
    }
    fresh.set(key, { says, rows });
  }
  const wholly = new Set([...fresh.values()].flatMap(({ rows }) => rows));
  for (const row of [...body.children]) if (!wholly.has(row)) row.remove();
  let at = body.firstElementChild;
  for (const row of wholly) {
    if (row === at) at = at.nextElementSibling;
    else body.insertBefore(row, at);
  }
  shown.set(body, fresh);
  wanted?.focus();
}

/** A state, by colour and by word. `mood`: good, warn, bad or calm. */
export function badge(mood, text, title = null) {
  return h("span", { class: `badge ${mood}`, title }, text);
}

/** The used part of a limit: a bar with a text. */
export function meter(label, share, text) {
  const mood = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "good";
  return h(
    "div",
    { class: "meter" },
    h("span", { class: "meter-text" }, text),
    bar(share, mood, `${label}: ${text}`),
  );
}

/** A bar, filled to a share of 0 to 1. */
export function bar(share, mood, label = null) {
  const inner = h("span", { class: `bar-fill ${mood}` });
  inner.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return h("span", { class: "bar", role: label ? "img" : null, "aria-label": label }, inner);
}

/** An error in place of a page's content: what happened, and what to do. */
export function problem(error, retry) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", {}, h("strong", {}, error.heading ?? "Something went wrong. "), error.message),
    retry && h("button", { type: "button", onclick: retry }, "Try again"),
  );
}

/** The text of an empty page: why it is empty, and what fills it. */
export function nothing(title, ...more) {
  return h("div", { class: "nothing" }, h("p", { class: "nothing-title" }, title), more);
}

/** A command to be copied. */
export function command(text) {
  const button = h(
    "button",
    {
      type: "button",
      class: "quiet",
      onclick: async () => {
        say(button, (await copy(text)) ? "Copied" : "Not allowed");
        setTimeout(() => say(button, "Copy"), 2000);
      },
    },
    "Copy",
  );
  return h("div", { class: "command" }, h("pre", { tabindex: "0" }, text), button);
}

/** Copies to the clipboard; false if the browser forbids it, as it does except on localhost and https. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

let gone = 0;

/** A short message at the edge of the page, announced to screen readers. */
export function notify(text) {
  const place = document.getElementById("notice");
  say(place, text);
  place.classList.add("shown");
  clearTimeout(gone);
  gone = setTimeout(() => place.classList.remove("shown"), 6000);
}
