// Charts with uPlot, and the small lines in tables. Colours come from the style sheet, so that they follow
// the theme.

import { h, say, svg } from "./dom.js";

const SYNC = "live";
const WINDOW_S = 300;
const probe = h("span", { class: "unseen" });
const colours = new Map();
const drawn = new Set();

/** The colour of a style sheet variable, in a form that canvas takes. */
function colour(variable) {
  if (!colours.has(variable)) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(${variable})`;
    colours.set(variable, getComputedStyle(probe).color);
  }
  return colours.get(variable);
}

/** The theme has changed. */
export function recolour() {
  colours.clear();
  for (const chart of drawn) chart.redraw();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

function axes(format, extra = {}) {
  const common = {
    stroke: () => colour("--muted"),
    font: "11px Inter, system-ui, sans-serif",
    ticks: { show: false },
  };
  return [
    { ...common, grid: { show: false }, size: 24, gap: 4, ...extra },
    {
      ...common,
      grid: { stroke: () => colour("--line"), width: 1 },
      size: 58,
      gap: 6,
      splits: nearFour,
      values: (_chart, values) => values.map(format),
    },
  ];
}

/** Up to four round values for the axis; the same for all charts, so that they become familiar. */
function nearFour(_chart, _axis, _low, high) {
  if (!(high > 0)) return [0];
  const rough = high / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let value = 0; value <= high * 1.0001; value += step) found.push(value);
  return found;
}

/** The legend, with the values under the pointer. */
function legend(series) {
  const values = series.map(() => h("span", { class: "legend-value" }));
  const element = h(
    "ul",
    { class: "legend" },
    series.map((one, index) => {
      const swatch = h("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", `var(${one.colour})`);
      return h("li", {}, swatch, `${one.label} `, values[index]);
    }),
  );
  return { element, show: (texts) => texts.forEach((text, index) => say(values[index], text)) };
}

/** uPlot in a box that it fills at any width; the box's label describes the chart in words. */
function place(box, options, data, height) {
  const chart = new uPlot(
    { width: box.clientWidth || 300, height, legend: { show: false }, ...options },
    data,
    box,
  );
  drawn.add(chart);
  const sizes = new ResizeObserver(() => chart.setSize({ width: box.clientWidth || 300, height }));
  sizes.observe(box);
  return {
    chart,
    close: () => {
      sizes.disconnect();
      drawn.delete(chart);
      chart.destroy();
    },
  };
}

/**
 * The last minutes of some figures, live. `series`: `{label, colour, of(sample), fill}`; `format` turns a value
 * into text.
 */
export function timeline(title, series, format) {
  const box = h("div", { class: "chart", role: "img" });
  const keys = legend(series);
  const element = h(
    "section",
    { class: "panel" },
    h("div", { class: "panel-head" }, h("h2", {}, title), keys.element),
    box,
  );
  let made = null;
  let samples = [];
  const show = (index) => {
    const sample = samples[index ?? samples.length - 1];
    keys.show(series.map((one) => (sample ? format(one.of(sample)) : "")));
  };
  const options = {
    padding: [8, 10, 0, 0],
    cursor: {
      sync: { key: SYNC, setSeries: false },
      drag: { x: false, y: false },
      y: false,
      points: { size: 6 },
    },
    scales: {
      x: {
        range: () => {
          const end = samples.at(-1)?.time ?? 0;
          return [end - WINDOW_S, end];
        },
      },
      y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.1 : 1] },
    },
    axes: axes(format, {
      space: 70,
      values: [
        [60, "{HH}:{mm}"],
        [1, "{HH}:{mm}:{ss}"],
      ].map(([incr, text]) => [incr, text, null, null, null, null, null, null, 1]),
    }),
    series: [
      {},
      ...series.map((one) => ({
        stroke: () => colour(one.colour),
        width: 1.5,
        fill: one.fill ? () => colour(`${one.colour}-soft`) : undefined,
        points: { show: false },
      })),
    ],
    hooks: { setCursor: [(chart) => show(chart.cursor.idx)] },
  };
  const update = (latest) => {
    samples = latest;
    const data = [samples.map((sample) => sample.time), ...series.map((one) => samples.map(one.of))];
    if (made === null) made = place(box, options, data, 170);
    else made.chart.setData(data);
    show(made.chart.cursor.idx);
    const now = samples.at(-1);
    if (now)
      box.setAttribute(
        "aria-label",
        `${title}: ${series.map((one) => `${one.label} ${format(one.of(now))}`).join(", ")}`,
      );
  };
  return { element, update, close: () => made?.close() };
}

/**
 * Stacked bars by day. `days`: texts; `parts`: `{label, colour, values}`, one value a day.
 */
export function bars(title, days, parts, format) {
  const box = h("div", {
    class: "chart",
    role: "img",
    "aria-label": `${title}, ${days.length} days. The table below has the figures.`,
  });
  const keys = legend(parts);
  const total = (part) => part.values.reduce((sum, value) => sum + value, 0);
  const show = (index) =>
    keys.show(
      parts.map((part) => format(index === null || index === undefined ? total(part) : part.values[index])),
    );
  const when = h("span", { class: "hint" });
  // Sums, highest first: each is drawn over the one before and leaves its top visible.
  const sums = parts.map((_, upTo) =>
    days.map((_day, index) => parts.slice(0, upTo + 1).reduce((sum, part) => sum + part.values[index], 0)),
  );
  const order = parts.map((_, index) => parts.length - 1 - index);
  const options = {
    padding: [8, 10, 0, 0],
    cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
    scales: {
      x: { time: false, range: () => [-0.6, Math.max(days.length, 7) - 0.4] },
      y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.1 : 1] },
    },
    axes: axes(format, {
      space: 60,
      incrs: [1, 2, 5, 7, 14, 28, 56, 112],
      values: (_chart, splits) => splits.map((index) => days[index] ?? ""),
    }),
    series: [
      {},
      ...order.map((index) => ({
        fill: () => colour(parts[index].colour),
        width: 0,
        points: { show: false },
        paths: uPlot.paths.bars({ size: [0.7, 44], radius: index === parts.length - 1 ? [0.12, 0] : 0 }),
      })),
    ],
    hooks: {
      setCursor: [
        (chart) => {
          show(chart.cursor.idx);
          say(
            when,
            chart.cursor.idx === null || chart.cursor.idx === undefined ? "in all" : days[chart.cursor.idx],
          );
        },
      ],
    },
  };
  show(null);
  say(when, "in all");
  const element = h(
    "section",
    { class: "panel" },
    h("div", { class: "panel-head" }, h("h2", {}, title, " ", when), keys.element),
    box,
  );
  let made = null;
  return {
    element,
    attached: () => {
      made = place(box, options, [days.map((_, index) => index), ...order.map((index) => sums[index])], 240);
    },
    close: () => made?.close(),
  };
}

const SPARK_WIDTH = 88;
const SPARK_HEIGHT = 22;

/**
 * A small line without axes. `update(points, end)` takes `[time, value]` and the time of its right edge.
 * `stretches`: the line takes all the width, and has no dot at its end, which stretching would distort.
 */
export function sparkline(colourName = "--c1", stretches = false) {
  const line = svg("polyline", { class: "spark-line" });
  const dot = svg("circle", { class: "spark-dot", r: "1.8" });
  const element = svg(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`,
      "aria-hidden": "true",
      preserveAspectRatio: stretches ? "none" : null,
    },
    line,
    !stretches && dot,
  );
  element.style.color = `var(${colourName})`;
  const update = (points, end) => {
    const values = points.map(([, value]) => value);
    const high = Math.max(...values);
    const low = Math.min(...values);
    // A change of less than a fifth is drawn as a small one.
    const span = Math.max(high - low, high * 0.2) || 1;
    const middle = (high + low) / 2;
    const at = ([time, value]) =>
      [
        (SPARK_WIDTH - 3) * (1 - Math.min(1, (end - time) / WINDOW_S)),
        SPARK_HEIGHT / 2 - ((value - middle) / span) * (SPARK_HEIGHT - 5),
      ]
        .map((number) => number.toFixed(1))
        .join(",");
    const places = points.map(at);
    line.setAttribute("points", places.join(" "));
    element.toggleAttribute("hidden", places.length === 0);
    const [x, y] = (places.at(-1) ?? "0,0").split(",");
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
  };
  return { element, update };
}
