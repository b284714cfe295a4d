// What is wrong with the page as it is shown now: a list of sentences. Run by browser.py.

const faults = [];
const isShown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
const nameOf = (element) =>
  [element.localName, element.id, element.getAttribute("class"), element.textContent.trim().slice(0, 40)]
    .filter(Boolean)
    .join(" ");

// ---------------------------------------------------------------------- names and structure

const says = (element) => {
  const by = element.getAttribute("aria-labelledby");
  if (by)
    return by
      .split(" ")
      .map((id) => document.getElementById(id)?.textContent ?? "")
      .join(" ")
      .trim();
  return (
    (
      element.getAttribute("aria-label") ??
      [...(element.labels ?? [])].map((one) => one.textContent).join(" ") ??
      ""
    ).trim() ||
    element.textContent.trim() ||
    (element.querySelector("img")?.alt ?? "")
  );
};
for (const element of document.querySelectorAll("button, a, dialog, section[aria-label]")) {
  if (isShown(element) && !says(element)) faults.push(`no name: ${nameOf(element)}`);
}
for (const element of document.querySelectorAll("input, select, textarea")) {
  const label =
    element.getAttribute("aria-label") ?? [...element.labels].map((one) => one.textContent).join("");
  if (isShown(element) && !label.trim()) faults.push(`no label: ${nameOf(element)} ${element.name}`);
}
for (const element of document.querySelectorAll("[aria-describedby], [aria-labelledby], label[for]")) {
  for (const attribute of ["aria-describedby", "aria-labelledby", "for"]) {
    for (const id of (element.getAttribute(attribute) ?? "").split(" ").filter(Boolean)) {
      if (!document.getElementById(id)) faults.push(`${attribute} names nothing: ${nameOf(element)} ${id}`);
    }
  }
}
for (const table of document.querySelectorAll("table")) {
  if (!table.caption?.textContent) faults.push(`no caption: ${nameOf(table)}`);
  if (!table.querySelector("thead th[scope=col]")) faults.push(`no heads: ${nameOf(table)}`);
}
for (const image of document.querySelectorAll("img")) {
  if (!image.hasAttribute("alt")) faults.push(`no alt: ${image.src}`);
}
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
for (const id of new Set(ids.filter((one, index) => ids.indexOf(one) !== index)))
  faults.push(`two of one id: ${id}`);
for (const element of document.querySelectorAll("[tabindex]")) {
  if (element.tabIndex > 0) faults.push(`an order of its own: ${nameOf(element)}`);
}
if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
if (!document.documentElement.lang) faults.push("no lang");

// ---------------------------------------------------------------------- room

const excess = document.documentElement.scrollWidth - innerWidth;
if (excess > 0) {
  const wide = [...document.querySelectorAll("body *")].filter(
    (one) => one.getBoundingClientRect().right > innerWidth + 1,
  );
  faults.push(`${excess} px too wide: ${wide.slice(0, 3).map(nameOf).join("; ")}`);
}

// ---------------------------------------------------------------------- contrast (WCAG 2.2, 1.4.3)

const parse = (colour) => {
  const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
  const scale = colour.startsWith("color(") ? 255 : 1;
  return { r: r * scale, g: g * scale, b: b * scale, a };
};
const over = (top, below) =>
  Object.fromEntries(
    ["r", "g", "b"].map((one) => [one, top[one] * top.a + below[one] * (1 - top.a)]).concat([["a", 1]]),
  );
const luminance = ({ r, g, b }) =>
  [r, g, b]
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
const groundOf = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    const layer = parse(getComputedStyle(one).backgroundColor);
    layers.push(layer);
    if (layer.a === 1) break;
  }
  return layers.reverse().reduce((below, layer) => over(layer, below), { r: 255, g: 255, b: 255, a: 1 });
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let checked = 0;
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (
    !node.data.trim() ||
    !isShown(element) ||
    element.closest(":disabled, .unseen, .skip, option, script, noscript")
  )
    continue;
  const ground = groundOf(element);
  const text = over(parse(getComputedStyle(element).color), ground);
  const [light, dark] = [luminance(text), luminance(ground)].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  checked += 1;
  if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${nameOf(element)}`);
}
if (checked < 10) faults.push(`only ${checked} texts are shown`);
return [...new Set(faults)];
