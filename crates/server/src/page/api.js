// The public API, as this page asks it: with the session's cookie, and with nothing that another program could not ask too.

import { parsed } from "./json.js";

/** An answer that is an error: problem details by RFC 9457. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the answer was ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.body = body;
  }
}

/** What is done when the session has ended. */
let signedOut = () => {};
export const onSignedOut = (then) => { signedOut = then; };

const ADDRESS = new URL("api/v1/", document.baseURI);
export const address = (path) => new URL(path, ADDRESS).href;

/** Ends early when the signal says so. */
const wait = (milliseconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

async function answered(path, { method = "GET", json, accept = "application/json", signal } = {}, tries = 5) {
  const headers = { accept };
  if (json !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    const body = json === undefined ? undefined : JSON.stringify(json);
    answer = await fetch(address(path), { method, headers, body, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { code: "unreachable", detail: "The collector does not answer: it may be starting anew, or the network is away." });
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  // A view asks several things at once, and others ask too: nothing was done yet, and a moment later there is room.
  if (body.code === "too_many_queries" && tries > 1) {
    await wait(Number(answer.headers.get("retry-after") || 1) * 1000, signal);
    return answered(path, { method, json, accept, signal }, tries - 1);
  }
  const problem = new Problem(answer.status, body);
  if (answer.status === 401 && path !== "session") signedOut(problem);
  throw problem;
}

/** The JSON of an answer; nothing when it has none. */
export async function ask(path, options) {
  const answer = await answered(path, options);
  if (answer.status === 204) return null;
  try {
    return parsed(await answer.text());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { code: "broken_off", detail: "The answer broke off: it took too long, or the collector stopped. Ask for less." });
  }
}

/** Rows of a question in SQL; `$1` and so on stand for `params`. */
export const query = (sql, params = [], { signal, ...limits } = {}) =>
  ask("query", { method: "POST", json: { sql, params, ...limits }, signal });

/** The rows as objects. */
export async function rows(sql, params, options) {
  const { columns, rows, truncated } = await query(sql, params, options);
  if (truncated) throw new Problem(0, { code: "too_many_rows", detail: "There are more rows than can be shown: take a shorter time, or a filter." });
  return rows.map((row) => Object.fromEntries(row.map((value, i) => [columns[i].name, value])));
}

/** Where the answer to a question can be fetched as a file. */
export function download(sql, params, format) {
  const parameters = new URLSearchParams({ sql, params: JSON.stringify(params), format });
  return address(`query?${parameters}`);
}

/**
 * Follows server-sent events until what it returns is called; `pathOf` says of what, anew with each connection that is made here. A connection that breaks is made anew by the browser; one that is refused, here. A page
 * that nobody looks at follows nothing: a browser has six connections for all its pages of one address.
 */
export function follow(pathOf, handlers, onState = () => {}) {
  let source, timer, isOver = false;
  const open = () => {
    if (isOver || document.hidden) return;
    source = new EventSource(address(pathOf()));
    source.onopen = () => onState("live");
    for (const [name, then] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => then(parsed(event.data)));
    }
    source.onerror = () => {
      if (isOver) return;
      onState("waiting");
      if (source.readyState !== EventSource.CLOSED) return;
      // Refused, which the browser takes for the end: whether it is the session is told by asking for it.
      onState("refused");
      ask("session").catch((problem) => problem.status === 401 && signedOut(problem));
      timer = setTimeout(open, 3000);
    };
  };
  const close = () => { clearTimeout(timer); source?.close(); };
  const looked = () => { close(); open(); };
  document.addEventListener("visibilitychange", looked);
  open();
  return () => {
    isOver = true;
    document.removeEventListener("visibilitychange", looked);
    close();
  };
}
