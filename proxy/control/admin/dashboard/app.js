// The frame around the pages: navigation, theme, connection state and token.

import * as aliases from "./aliases.js";
import { forgetToken, hasToken, lacksToken, onToken } from "./api.js";
import { recolour } from "./charts.js";
import { h, icon, say } from "./dom.js";
import { clock } from "./format.js";
import { modal } from "./forms.js";
import * as key from "./key.js";
import * as keys from "./keys.js";
import { follow, last, live, watch } from "./live.js";
import * as overview from "./overview.js";
import * as requests from "./requests.js";
import * as routes from "./routes.js";
import * as usage from "./usage.js";

const PAGES = { overview, routes, aliases, keys, key, usage, requests };
const main = document.getElementById("main");
let close = null;

// ---------------------------------------------------------------------- pages

/** The page named by the address, and its query: `#/requests?key=prod`. */
function asked() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return [Object.hasOwn(PAGES, path) ? path : "overview", new URLSearchParams(search)];
}

function show(isFirst) {
  const [name, query] = asked();
  close?.();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${PAGES[name].parent ?? name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${PAGES[name].title} · TokenHub`;
  const heading = h("h1", { tabindex: "-1" }, PAGES[name].title);
  const page = h("div", { class: `page ${name}` }, h("div", { class: "page-head" }, heading));
  main.replaceChildren(page);
  close = PAGES[name].open(page, query) ?? null;
  if (isFirst) return;
  scrollTo(0, 0);
  heading.focus({ preventScroll: true });
}

addEventListener("hashchange", () => {
  // The skip link's hash is not a page.
  if (location.hash === "#main") main.focus();
  else show(false);
});

// ---------------------------------------------------------------------- theme

const THEMES = ["system", "light", "dark"];
const KEPT_AS = "tokenhub-theme";
const themeButton = document.getElementById("theme");

function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  themeButton.replaceChildren(icon(theme));
  themeButton.setAttribute("aria-label", `Theme: ${theme}. Change to ${next}.`);
  themeButton.title = `Theme: ${theme}`;
  themeButton.onclick = () => {
    localStorage.setItem(KEPT_AS, next);
    showTheme(next);
    recolour();
  };
}

// ---------------------------------------------------------------------- connection

const connection = document.getElementById("connection");

function describe() {
  const sample = last();
  if (live.state === "connecting") return ["calm", "Connecting…"];
  if (live.state === "lost") {
    const why = live.why === null ? "Connection lost" : `No live data (${live.why.status})`;
    return ["bad", sample === null ? why : `${why}, last data from ${clock(sample.time)}`];
  }
  if (!sample?.ready) return ["warn", "Live, but not ready to serve"];
  return sample.simulated ? ["warn", "Live, simulated providers"] : ["good", "Live"];
}

function showConnection() {
  const [mood, text] = describe();
  connection.className = `connection ${mood}`;
  say(connection, text);
  document.body.classList.toggle("stale", live.state === "lost");
  forget.hidden = !hasToken() && !lacksToken();
  say(forget, hasToken() ? "Forget token" : "Enter token");
}

// ---------------------------------------------------------------------- token

const forget = document.getElementById("forget");

forget.onclick = () => {
  forgetToken();
  location.reload();
};

/** Resolves with the token that was entered, or with null. */
function askToken(isWrong) {
  return new Promise((resolve) => {
    let given = null;
    const form = modal({
      title: "Admin token",
      intro:
        "Enter the admin token: the value of the variable named by [admin] token_env in routes.toml. " +
        "It is kept in this tab only.",
      submit: "Continue",
      fields: [{ name: "token", label: "Token", type: "password", autocomplete: "off", required: true }],
      onsubmit: ({ token }) => {
        if (token.trim() === "") return { token: "Enter the token." };
        given = token.trim();
        return null;
      },
      onclose: () => resolve(given),
    });
    if (isWrong) form.complain({ token: "This is not the admin token of this gateway." });
  });
}

// ---------------------------------------------------------------------- start

showTheme(document.documentElement.dataset.theme ?? "system");
onToken(askToken);
watch(showConnection);
show(true);
follow();
