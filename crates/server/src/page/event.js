// One event, opened: its columns, and its data as it was sent, each value of which can become a filter.

import { useState } from "./hooks.js";
import { rows } from "./api.js";
import { timeAndZone } from "./format.js";
import { write } from "./filter.js";
import { Digits, parsed } from "./json.js";
import { change, here } from "./route.js";
import { Busy, Choice, Copy, Failure, html, useLoad } from "./ui.js";

/** Values that are shown one by one. */
const NODES = 2000;
const COLUMNS = "position, id, sensor, source, type, subject, time, received_at, content_type, attributes, data, encode(data_binary, 'base64pad') AS data_base64";

export function Opened({ position }) {
  const { value, error } = useLoad(async (signal) => (await rows(`SELECT ${COLUMNS} FROM events WHERE position = $1`, [position], { signal }))[0] ?? null, [position]);
  const [form, setForm] = useState("fields");
  if (error) return html`<${Failure} error=${error} />`;
  if (value === undefined) return html`<${Busy} busy=${true} />`;
  if (value === null) return html`<p class="note">This event is not there any more: it was erased, or went by its age.</p>`;
  let data;
  try { data = value.data === null ? undefined : parsed(value.data); } catch { data = undefined; }
  return html`<dl class="columns">
      ${["id", "position", "sensor", "source", "type", "subject", "content_type"].filter((name) => value[name] !== null && value[name] !== "").map((name) => html`<div><dt>${name}</dt><dd><code>${value[name]}</code></dd></div>`)}
      <div><dt>time</dt><dd>${timeAndZone(value.time)}</dd></div><div><dt>received_at</dt><dd>${timeAndZone(value.received_at)}</dd></div>
    </dl>
    ${value.attributes && html`<h3>attributes</h3><pre><code>${value.attributes}</code></pre>`}
    <div class="head"><h3>data</h3>${data !== undefined && html`<${Choice} label="How data is shown" options=${[["fields", "fields"], ["text", "as it was sent"]]} value=${form} onChange=${setForm} />`}<${Copy} text=${value.data ?? value.data_base64 ?? ""} /></div>
    ${data !== undefined && form === "fields" ? html`<div class="json">${Value({ value: data, path: [], room: { left: NODES } })}</div>` : html`<pre><code>${value.data ?? value.data_base64}</code></pre>`}`;
}

const add = (path, operator, value) => change({ where: [...here().params.getAll("where"), write([path, operator, value])] });

/** `room` is shared by all values of an event: what has none is told by its number. */
function Value({ value, path, name, isListed, room }) {
  const label = name !== undefined && html`<span class="key">${name}</span>: `;
  if (value !== null && typeof value === "object" && !(value instanceof Digits)) {
    const isList = Array.isArray(value), entries = isList ? value.map((one, i) => [i, one]) : Object.entries(value);
    const [open, close] = isList ? ["[", "]"] : ["{", "}"];
    if (!entries.length) return html`<div>${label}${open}${close}</div>`;
    const shown = [];
    for (const [key, one] of entries) {
      if (room.left <= 0) break;
      room.left -= 1;
      shown.push(Value({ value: one, path: [...path, String(key)], name: isList ? undefined : key, isListed: isListed || isList, room }));
    }
    return html`<div>${label}${open}<div class="inner">${shown}${shown.length < entries.length && html`<small>and ${entries.length - shown.length} more: see it as it was sent</small>`}</div>${close}</div>`;
  }
  const isDigits = value instanceof Digits, text = isDigits ? value.text : JSON.stringify(value);
  // Digits that no double holds are compared as the text that they are.
  const filter = (operator) => () => add(path, operator, isDigits ? value.text : value);
  return html`<div>${label}<span class=${value === null ? "null" : isDigits ? "number" : typeof value}>${text}</span>
    ${!isListed && path.length > 0 && html`<span class="by"><button type="button" class="link" title="Filter by this value" aria-label=${`Filter by ${path.join(".")} = ${text}`} onClick=${filter("=")}>=</button>
      <button type="button" class="link" title="Filter this value out" aria-label=${`Filter out ${path.join(".")} = ${text}`} onClick=${filter("!=")}>≠</button></span>`}</div>`;
}
