// What the views of sensors, rejected events, tokens and the audit share.

import { ask } from "./api.js";
import { seconds } from "./format.js";
import { change } from "./route.js";
import { Field, html } from "./ui.js";

/** An answer of the API; parameters that are empty are left out. */
export const get = (path, params, signal) =>
  ask(`${path}?${new URLSearchParams(Object.entries(params).filter(([, value]) => (value ?? "") !== ""))}`, { signal });

/** A text to filter by, which stands in the address. */
export const Filter = ({ params, name, label, ids, ...more }) => html`<input type="search" aria-label=${label} placeholder=${label} spellcheck=${false} list=${ids}
  value=${params.get(name) || ""} onChange=${(event) => only({ [name]: event.target.value.trim() })} ...${more} />`;

/** Changes what is looked at, from its beginning. */
export const only = (filter, how) => change({ before: "", cursor: "", open: "", show: "", ...filter }, how);

export const PAGE = 100;
export const More = ({ shown }) => html`<p><button type="button" onClick=${() => change({ show: shown + PAGE }, { replace: true })}>Show ${PAGE} more</button></p>`;
export const shownOf = (params) => Math.min(20 * PAGE, Math.max(PAGE, Number(params.get("show")) || 0));

export const Select = ({ options, ...more }) => html`<select ...${more}>${options.map(([value, text = value]) => html`<option value=${value}>${text}</option>`)}</select>`;

export const None = ({ children = "none" }) => html`<span class="dim">${children}</span>`;
export const Tag = ({ kind = "", children }) => html`<span class=${`tag ${kind}`}>${children}</span>`;

/** Names with their values; without those that are not there. */
export const Facts = ({ of, className = "" }) => html`<dl class=${`facts ${className}`}>${of.filter(([, value]) => (value ?? "") !== "").map(([name, value]) =>
  html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

const SENDING_SECONDS = 120, SILENT_LONG_SECONDS = 3600;

/** What a sensor does now: its state, how that is told, and whether it is to be looked at. */
export function stateOf({ disabled_at, last_seen_at, rates }) {
  if (disabled_at) return ["disabled", "disabled"];
  if (!last_seen_at) return ["never", "never seen", "warn"];
  const silent = (Date.now() - Date.parse(last_seen_at)) / 1000;
  if (rates.events_per_second > 0 || silent < SENDING_SECONDS) return ["sending", "sending", "good"];
  const unit = [86400, 3600, 60].find((unit) => silent >= 2 * unit);
  return ["silent", `silent ${seconds(Math.floor(silent / unit) * unit)}`, silent > SILENT_LONG_SECONDS ? "warn" : ""];
}

export function State({ of }) {
  const [, text, kind] = stateOf(of);
  return html`<${Tag} kind=${kind}>${text}<//>`;
}

export const Labels = ({ labels }) => {
  const all = Object.entries(labels);
  return all.length ? html`<span class="tags">${all.map((one) => html`<${Tag} kind="wrap">${one.join("=")}<//>`)}</span>` : html`<${None} />`;
};

/** Labels as lines of a text; as JSON where lines would not say them. */
export function textOfLabels(labels) {
  const all = Object.entries(labels);
  const isPlain = all.every(([name, value]) => name === name.trim() && value === value.trim() && !/[=\n{]/.test(name) && !value.includes("\n"));
  return isPlain ? all.map((one) => one.join("=")).join("\n") : JSON.stringify(labels, null, 1);
}

export function labelsOf(text) {
  if (text.trim().startsWith("{")) return JSON.parse(text);
  return Object.fromEntries(text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const [, name, value] = /^([^=]+?)\s*=\s*(.*)$/.exec(line) || [];
    if (!name) throw new Error(`The label “${line}” has no “=”: write name=value, one a line.`);
    return [name, value];
  }));
}

export const LabelsField = ({ labels = {} }) => html`<${Field} label="Labels" hint="One a line, such as site=berlin.">
  <textarea name="labels" rows="3" class="code" spellcheck=${false} defaultValue=${textOfLabels(labels)}></textarea><//>`;
