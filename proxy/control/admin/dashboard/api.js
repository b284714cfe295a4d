// Requests to the admin API. Its token, if it needs one, is kept in this tab only.

const KEPT_AS = "tokenhub-admin-token";
let ask = null;
let asking = null;
let isDeclined = false;

/** An error response of the API, with its own message. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.heading = `The gateway refused the request (${status}). `;
    this.status = status;
    this.code = code;
  }
}

/** There was no response. */
export class Unreachable extends Error {
  constructor() {
    super("Is it running? “tokenhub serve” starts it; its log says why it stopped. This page may show old data.");
    this.heading = `No response from the gateway at ${location.host}. `;
  }
}

export const hasToken = () => sessionStorage.getItem(KEPT_AS) !== null;
export const forgetToken = () => sessionStorage.removeItem(KEPT_AS);

/** True when the token was asked for and not given. It stays true until the page is loaded again. */
export const lacksToken = () => isDeclined;

/** `asker(isWrong)` is called when a token is missing or wrong. It resolves with a token, or null for none. */
export function onToken(asker) {
  ask = asker;
}

async function askForToken(sent) {
  if (sent !== sessionStorage.getItem(KEPT_AS)) return true; // another request has got one meanwhile
  if (isDeclined) return false; // polling must not open the dialog again
  asking ??= ask(sent !== null).finally(() => {
    asking = null;
  });
  const given = await asking;
  isDeclined = given === null;
  if (given !== null) sessionStorage.setItem(KEPT_AS, given);
  return given !== null;
}

/** The raw response, of any status but 401. */
export async function send(method, path, { query = {}, body, signal } = {}) {
  const search = new URLSearchParams(
    Object.entries(query).filter(([, value]) => value !== "" && value !== null),
  );
  const address = `admin/v1/${path}${search.size ? `?${search}` : ""}`;
  for (;;) {
    const token = sessionStorage.getItem(KEPT_AS);
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(address, {
        method,
        headers,
        signal,
        cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Unreachable();
    }
    if (response.status !== 401 || !(await askForToken(token))) return response;
  }
}

/** :throws Refused: for a response whose status is not 2xx. */
export async function check(response) {
  if (response.ok) return response;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    /* a response of a proxy in between, without the error envelope */
  }
  throw new Refused(response.status, error.code, error.message ?? response.statusText);
}

const call = async (method, path, options) => (await check(await send(method, path, options))).json();

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const list = async (path, query, signal) => (await get(path, query, signal)).data;
export const post = (path, body) => call("POST", path, { body });
export const put = (path, body) => call("PUT", path, { body });
export const patch = (path, body) => call("PATCH", path, { body });
export const remove = (path) => call("DELETE", path, {});

/** Calls `work(signal)` now and every `seconds`, never twice at a time, until the returned function is called. */
export function repeat(seconds, work) {
  const ending = new AbortController();
  let timer = 0;
  const turn = async () => {
    if (!document.hidden) await work(ending.signal);
    if (!ending.signal.aborted) timer = setTimeout(turn, seconds * 1000);
  };
  turn();
  return () => {
    ending.abort();
    clearTimeout(timer);
  };
}
