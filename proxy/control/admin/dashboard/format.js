// Figures for people. An unknown figure is a dash, never a 0.

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY_TIME = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
const dayTime = new Intl.DateTimeFormat("en-GB", DAY_TIME);
const yearTime = new Intl.DateTimeFormat("en-GB", { ...DAY_TIME, year: "numeric" });
const dayOnly = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

const known = (format) => (value) => (value === null || value === undefined ? NONE : format(value));

export const count = known((value) => whole.format(value));
export const compact = known((value) => (value < 10_000 ? whole.format(value) : short.format(value)));
export const rate = known((value) => (value < 100 ? one.format(value) : compact(value)));
export const percent = known(
  (value) => `${value === 1 || value === 0 ? value * 100 : Math.min(99.9, value * 100).toFixed(1)} %`,
);

/** Dollars; below a cent with more decimals. */
export const usd = known((value) => {
  if (value === 0 || value >= 0.995) return `$${value >= 10_000 ? whole.format(value) : cents.format(value)}`;
  if (value < 1e-6) return "< $0.000001";
  return `$${value.toFixed(value >= 0.01 ? 3 : value >= 0.0001 ? 5 : 7)}`;
});

export const ms = known((value) => {
  if (value >= 60_000) return `${one.format(value / 60_000)} min`;
  if (value >= 10_000) return `${one.format(value / 1000)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 10 ? Math.round(value) : value >= 1 ? one.format(value) : Number(value.toPrecision(2))} ms`;
});

export const us = known((value) => (value >= 1000 ? ms(value / 1000) : `${Math.round(value)} µs`));

/** Unix seconds as the time of day, as day and time, and as how long ago. */
export const clock = known((value) => clockTime.format(value * 1000));
export const moment = known((value) => {
  const isThisYear = new Date(value * 1000).getFullYear() === new Date().getFullYear();
  return (isThisYear ? dayTime : yearTime).format(value * 1000);
});
export const ago = known((seconds) => {
  if (seconds < 5) return "just now";
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172_800
    ? `${Math.round(seconds / 3600)} h ago`
    : `${Math.round(seconds / 86_400)} days ago`;
});

/** A day as `YYYY-MM-DD` in UTC, like all days of the totals. */
export const isoDay = (date) => date.toISOString().slice(0, 10);
export const day = (iso) => dayOnly.format(new Date(`${iso}T00:00Z`));
