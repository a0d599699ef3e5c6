// The parts that every view is made of.

import { createContext, h } from "./preact.js";
import { useCallback, useContext, useEffect, useId, useRef, useState } from "./hooks.js";
import htm from "./htm.js";
import { ago, local, timeAndZone } from "./format.js";
import { between, change, RANGES, rangeOf } from "./route.js";

export const html = htm.bind(h);

/** Who is signed in. */
export const Session = createContext(null);
export const useSession = () => useContext(Session);

/** What a promise brings, anew whenever one of `of` changes; the one before is cancelled and shown until the next is there. */
export function useLoad(load, of) {
  const [state, setState] = useState({ busy: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const cancel = new AbortController();
    let isOver = false;
    const set = (next) => { if (!isOver) setState(next); };
    setState((before) => ({ ...before, busy: true }));
    load(cancel.signal).then(
      (value) => set({ value, busy: false }),
      (error) => { if (error.name !== "AbortError") set((before) => ({ value: before.value, error, busy: false })); },
    );
    return () => { isOver = true; cancel.abort(); };
  }, [...of, turn]);
  return { ...state, again: useCallback(() => setTurn((turn) => turn + 1), []) };
}

/** Calls `then` every so many milliseconds, while the page is looked at. */
export function useEvery(milliseconds, then) {
  const latest = useRef(then);
  latest.current = then;
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) latest.current(); }, milliseconds);
    return () => clearInterval(timer);
  }, [milliseconds]);
}

/** What a promise brings, anew every so many milliseconds; what is not there is not asked for again. */
export function useLive(load, of, milliseconds) {
  const state = useLoad(load, of);
  useEvery(milliseconds, () => state.busy || state.error?.status === 404 || state.again());
  return state;
}

/** What went wrong, and the id under which the log has more. */
export function Failure({ error }) {
  if (!error) return null;
  const id = error.body?.request_id;
  return html`<p class="note bad" role="alert">${error.message}${id && html` <small>Request <code>${id}</code></small>`}</p>`;
}

export const Busy = ({ busy }) => html`<span class=${`busy ${busy ? "" : "idle"}`} role="status">${busy ? "Loading…" : ""}</span>`;

export const Time = ({ at }) => (at ? html`<time datetime=${at} title=${timeAndZone(at)}>${ago(at)}</time>` : html`<span class="dim">never</span>`);

/** One number with what it is. */
export function Tile({ name, value, about, state = "" }) {
  return html`<div class=${`tile ${state}`}><dt>${name}</dt><dd>${value}${about && html`<small>${about}</small>`}</dd></div>`;
}

/** A field of a form with its label. */
export function Field({ label, hint, children }) {
  return html`<label class="field"><span>${label}</span>${children}${hint && html`<small>${hint}</small>`}</label>`;
}

/** Links to an answer as a file in each form; `hrefOf` says where a format is. */
export const Files = ({ name, hrefOf }) => [["ndjson", "NDJSON", "ndjson"], ["spreadsheet", "CSV", "csv"], ["parquet", "Parquet", "parquet"]].map(([format, text, ending]) =>
  html`<a href=${hrefOf(format)} download=${`${name}.${ending}`}>${text}</a>`);

/** Copies a text, and says that it did. */
export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 2000);
    return () => clearTimeout(timer);
  }, [done]);
  // Without TLS, and away from localhost, a browser has no clipboard for a page.
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      (document.querySelector("dialog[open]") || document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    setDone(true);
  };
  return html`<button type="button" class="small" onClick=${copy} aria-live="polite">${done ? "Copied" : label}</button>`;
}

/** A dialog over the page: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children }) {
  const dialog = useRef(), id = useId();
  useEffect(() => {
    const own = dialog.current, before = document.activeElement;
    own.showModal();
    // One that its view takes away still open has not given the focus back.
    return () => { if (own.open) before?.focus(); };
  }, []);
  return html`<dialog ref=${dialog} onClose=${onClose} aria-labelledby=${id}>
    <header><h2 id=${id}>${title}</h2><button type="button" class="plain" aria-label="Close" onClick=${() => dialog.current.close()}>✕</button></header>
    ${children}
  </dialog>`;
}

/** A secret that is shown once. */
export function Shown({ token, children }) {
  return html`<p class="note good">This token is shown only now. Keep it where its program finds it.</p>
    <p class="secret"><code>${token}</code><${Copy} text=${token} /></p>${children}`;
}

/** A question before something that cannot be taken back; what is done says by itself when it fails. */
export function Confirm({ title, children, act, onDone, onClose }) {
  const [state, setState] = useState({});
  const run = async () => {
    setState({ busy: true });
    try {
      await act();
      onDone();
    } catch (error) {
      setState({ error });
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    ${children}<${Failure} error=${state.error} />
    <footer><button type="button" class="danger" disabled=${state.busy} onClick=${run}>${title}</button></footer>
  <//>`;
}

/** A form whose button is out of use while it is sent, and which tells why it failed. */
export function Form({ onSubmit, button, children }) {
  const [state, setState] = useState({});
  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      await onSubmit(event.target);
      setState({});
    } catch (error) {
      setState({ error });
    }
  };
  return html`<form onSubmit=${submit}>${children}<${Failure} error=${state.error} />
    <footer><button type="submit" class="main" disabled=${state.busy}>${button}</button></footer></form>`;
}

/** Rows under names. `columns`: `[{name, cell, className?}]`; on a phone a row of `stack` is a block in which each value has its name. */
export function Table({ columns, rows, caption, empty = "Nothing here.", keyOf, rowClass, stack }) {
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table class=${stack ? "stack" : undefined}>
    <caption class="hidden">${caption}</caption>
    <thead><tr>${columns.map(({ name, className }) => html`<th scope="col" class=${className}>${name}</th>`)}</tr></thead>
    <tbody>${rows.map((row, i) => html`<tr key=${keyOf ? keyOf(row) : i} class=${rowClass?.(row)}>
      ${columns.map(({ name, cell, className }) => html`<td class=${className} data-name=${name}>${cell(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** Which times are looked at; it stands in the address. */
export function Range({ params, ranges = RANGES, standard = "1h" }) {
  const { from, to, name } = rangeOf(params, standard);
  const [own, setOwn] = useState(name === "");
  useEffect(() => setOwn(name === ""), [name]);
  const pick = (event) => {
    if (event.target.value) change({ range: event.target.value, since: "", until: "", before: "" });
    else setOwn(true);
  };
  const set = (which) => (event) => {
    const at = Date.parse(event.target.value);
    const [since, until] = which === "from" ? [at, to] : [from, Number.isNaN(at) ? undefined : at];
    if (!Number.isNaN(since)) change({ ...between(since, until), before: "" });
  };
  return html`<div class="range">
    <select aria-label="Time range" value=${own ? "" : name} onChange=${pick}>
      ${ranges.map(([value, text]) => html`<option value=${value}>${text}</option>`)}<option value="">from … to …</option>
    </select>
    ${own && html`<input type="datetime-local" step="1" aria-label="From" value=${local(from)} onChange=${set("from")} />
      <input type="datetime-local" step="1" aria-label="To" value=${to === undefined ? "" : local(to)} onChange=${set("to")} />`}
  </div>`;
}

/** Tabs inside of a view. */
export function Choice({ label, options, value, onChange }) {
  return html`<div class="choice" role="group" aria-label=${label}>${options.map(([name, text]) =>
    html`<button type="button" class=${name === value ? "on" : ""} aria-pressed=${name === value} onClick=${() => onChange(name)}>${text}</button>`)}</div>`;
}
