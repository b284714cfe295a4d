// One key: what it has used by day and model, against its limits; and what its cached tokens saved.

import { get, list } from "./api.js";
import { bars } from "./charts.js";
import { h, meter, nothing, problem } from "./dom.js";
import * as format from "./format.js";
import { daysOf, partsOf, totals } from "./usage.js";

export const title = "Key";
export const parent = "keys"; // the page in the navigation

const DAY_MS = 86_400_000;
const DAYS = 30;

function used(label, amount, limit, forecast, text) {
  const end = forecast !== null && `${text(forecast)} at the month’s end, if it goes on so`;
  const shown =
    limit === null
      ? h("p", {}, `${text(amount)}, no limit`)
      : meter(label, amount / limit, `${text(amount)} of ${text(limit)}`);
  return h("section", { class: "panel" }, h("h2", {}, label), shown, end && h("p", { class: "hint" }, end));
}

function facts(key) {
  const tags = Object.entries(key.tags).map(([name, value]) => `${name}=${value}`);
  const links = [
    ["usage", { only: `key=${key.id}` }, "Usage"],
    ["requests", { key: key.id }, "Latest requests"],
  ].map(([page, query, text]) =>
    h("li", {}, h("a", { href: `#/${page}?${new URLSearchParams(query)}` }, text)),
  );
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, key.name),
    h("code", { class: "hint" }, key.id),
    h("p", {}, tags.length ? `Tags: ${tags.join(", ")}` : "No tags"),
    h("ul", { class: "plain" }, links),
  );
}

export function open(page, query) {
  const id = query.get("id") ?? "";
  const content = h("div", { class: "stack", "aria-live": "off" });
  let chart = null;
  let isOpen = true;

  const load = async () => {
    try {
      const key = await get(`keys/${encodeURIComponent(id)}`);
      const since = format.isoDay(new Date(Date.now() - (DAYS - 1) * DAY_MS));
      const [daily, [month]] = await Promise.all([
        list("usage", { key: key.id, since, by: "model,day" }),
        list("usage", { key: key.id, forecast: "month" }),
      ]);
      if (isOpen) show(key, daily, month, since);
    } catch (error) {
      if (isOpen) content.replaceChildren(problem(error, load));
    }
  };
  const show = (key, daily, month, since) => {
    chart?.close();
    const days = daysOf(daily, since, "");
    chart = daily.length
      ? bars("USD by day and model", days.map(format.day), partsOf(daily, days, "model", "usd"), format.usd)
      : null;
    content.replaceChildren(
      h(
        "div",
        { class: "pair" },
        facts(key),
        h(
          "div",
          { class: "stack" },
          used("Spent this month", key.month.usd, key.limits.monthly_usd, month.forecast_usd, format.usd),
          used(
            "Tokens this month",
            key.month.tokens,
            key.limits.monthly_tokens,
            month.forecast_tokens,
            format.compact,
          ),
        ),
      ),
      totals(daily),
      chart === null ? nothing("No usage in the last 30 days.") : chart.element,
    );
    chart?.attached();
  };
  page.append(
    content,
    h("p", { class: "hint" }, "Totals and chart are of the last 30 days. Days and months are in UTC."),
  );
  load();
  return () => {
    isOpen = false;
    chart?.close();
  };
}
