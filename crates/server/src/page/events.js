// The events: newest first, filtered, over time, opened, as they come, and as a file.

import { useEffect, useMemo, useRef, useState } from "./hooks.js";
import { ask, download, follow, rows } from "./api.js";
import { Chart } from "./chart.js";
import { Opened } from "./event.js";
import { conditions, fits, OPERATORS, pathOf, valueOf, wantedOf, write } from "./filter.js";
import { binsOf } from "./bins.js";
import { compact, count, seconds, time } from "./format.js";
import { written } from "./json.js";
import { between, change, link, RANGES, rangeOf } from "./route.js";
import { Busy, Failure, Files, html, Range, useLoad } from "./ui.js";

const TIMES = [...RANGES, ["90d", "last 90 days"], ["365d", "last year"], ["3650d", "last 10 years"]];
/** Bars of the histogram, rows of a page, and rows that are kept while they come. */
const BARS = 120, PAGE = 100, KEPT = 500;
/** What a list shows of an event; the rest is asked when it is opened. */
const SHOWN = "position, time, sensor, type, id, left(coalesce(data, encode(data_binary, 'base64pad')), 400) AS preview";
/** Rows of an answer, unless the collector is configured otherwise. */
const ROWS_MAX = 1000000;

/** What one page of the list brings, those before a position when one is given. */
async function pageOf({ where, params }, before, signal) {
  const older = before === undefined ? "" : ` AND position < $${params.length + 1}`;
  const sql = `SELECT ${SHOWN} FROM events ${where}${older} ORDER BY position DESC LIMIT ${PAGE}`;
  const found = await rows(sql, before === undefined ? params : [...params, before], { signal });
  return { found, isLast: found.length < PAGE };
}

export function Events({ route }) {
  const { params } = route, key = params.toString();
  const fields = useLoad((signal) => ask("fields", { signal }), []);
  const kindOf = useMemo(() => {
    const kinds = new Map((fields.value?.types || []).flatMap(({ fields }) => fields.map((field) => [field.name, field.column ? field.type : undefined])));
    return (path) => kinds.get(`data.${path.join(".")}`);
  }, [fields.value]);
  const isLive = params.get("live") === "1";
  const asked = useMemo(() => conditions(params, kindOf), [key, fields.value]);
  const list = useLoad((signal) => (isLive || fields.busy ? Promise.resolve(undefined) : pageOf(asked, undefined, signal).then((page) => ({ ...page, asked, of: key }))), [key, fields.busy]);
  return html`
    <div class="head"><h1>Events</h1>
      <button type="button" class=${isLive ? "main" : ""} aria-pressed=${isLive} onClick=${() => change({ live: isLive ? "" : "1" })}>${isLive ? "Live: on" : "Live"}</button>
      <${Download} asked=${asked} />
      <${Range} params=${params} ranges=${TIMES} standard="24h" /></div>
    <${Filters} params=${params} fields=${fields.value} />
    <${Failure} error=${fields.error} />
    ${isLive ? html`<${Live} params=${params} key=${key} />` : html`
      <${Histogram} params=${params} asked=${asked} isReady=${!fields.busy} />
      <${Failure} error=${list.error} />
      ${!list.error && html`<${List} first=${list.value?.of === key ? list.value : undefined} busy=${list.busy} key=${key} />`}`}`;
}

/** A file of all that is wanted. */
function Download({ asked }) {
  const sql = `SELECT position, id, sensor, source, type, subject, time, received_at, content_type, attributes, data, data_binary FROM events ${asked.where}`;
  return html`<details class="menu"><summary>Download</summary><div>
    <${Files} name="events" hrefOf=${(format) => download(sql, asked.params, format)} />
    <a href=${link("ask", { sql: `SELECT time, sensor, type, data\nFROM events\n${asked.inlined}\nORDER BY position DESC\nLIMIT 100` })}>Ask in SQL</a>
    <small>Of more than <code>query.rows_max</code> (by default ${count(ROWS_MAX)}) it breaks off: <code>catchment export</code> has all. In the CSV a text that a spreadsheet would run has a <code>'</code> before it.</small>
  </div></details>`;
}

function Filters({ params, fields }) {
  const wanted = wantedOf(params);
  const types = (fields?.types || []).map(({ type }) => type);
  const known = (fields?.types || []).filter(({ type }) => !wanted.type || type === wanted.type).flatMap(({ fields }) => fields);
  const names = [...new Map(known.map((field) => [field.name, field])).values()];
  const [field, setField] = useState(""), [operator, setOperator] = useState("=");
  const sensors = useLoad((signal) => rows("SELECT sensor, count(*) AS events FROM events WHERE received_at > now() - INTERVAL '30 days' GROUP BY sensor ORDER BY events DESC LIMIT 500", [], { signal }), []);
  const add = (event) => {
    event.preventDefault();
    const path = pathOf(field.trim());
    const kinds = names.find(({ name }) => name === field.trim())?.values;
    const value = ["there", "missing"].includes(operator) ? null : operator === "~" ? event.target.elements.value.value : valueOf(event.target.elements.value.value, kinds);
    change({ where: [...params.getAll("where"), write([path, operator, value])] });
    event.target.elements.value && (event.target.elements.value.value = "");
    setField("");
  };
  return html`<section class="card filters" aria-label="Filters">
    <label>Sensor <input list="sensors" value=${wanted.sensor} placeholder="any" onChange=${(event) => change({ sensor: event.target.value.trim() })} /></label>
    <datalist id="sensors">${(sensors.value || []).map(({ sensor, events }) => html`<option value=${sensor}>${compact(events)} events</option>`)}</datalist>
    <label>Type <input list="types" value=${wanted.type} placeholder="any" onChange=${(event) => change({ type: event.target.value.trim() })} /></label>
    <datalist id="types">${types.map((type) => html`<option value=${type} />`)}</datalist>
    <form onSubmit=${add}>
      <label>Field <input list="fields" required value=${field} placeholder="data.temperature" onInput=${(event) => setField(event.target.value)} /></label>
      <datalist id="fields">${names.map(({ name, values }) => html`<option value=${name}>${values.join(", ")}</option>`)}</datalist>
      <select aria-label="How it is compared" value=${operator} onChange=${(event) => setOperator(event.target.value)}>${OPERATORS.map(([name, text]) => html`<option value=${name}>${text}</option>`)}</select>
      ${!["there", "missing"].includes(operator) && html`<input name="value" aria-label="Value" placeholder="value" required />`}
      <button type="submit">Add filter</button>
    </form>
    ${wanted.fields.length > 0 && html`<ul class="chips">${wanted.fields.map((filter, i) => html`<li class="tag"><code>data.${filter[0].join(".")}</code> ${OPERATORS.find(([name]) => name === filter[1])[1]} ${filter[2] !== null && html`<b>${String(filter[2])}</b>`}
      <button type="button" class="link" aria-label=${`Remove the filter of ${filter[0].join(".")}`} onClick=${() => change({ where: wanted.fields.filter((_, at) => at !== i).map(write) })}>✕</button></li>`)}</ul>`}
  </section>`;
}

function Histogram({ params, asked, isReady }) {
  const load = async (signal) => {
    if (!isReady) return undefined;
    const { from, to = Date.now() } = rangeOf(params, "24h");
    const bins = binsOf(from, to, BARS);
    const found = await rows(`SELECT ${bins.sql("time")} AS at, count(*) AS events FROM events ${asked.where} GROUP BY 1`, asked.params, { signal });
    return { step: bins.step, total: found.reduce((sum, { events }) => sum + events, 0), data: [bins.at, bins.counts(found)] };
  };
  const { value, error, busy } = useLoad(load, [params.toString(), isReady]);
  return html`<section class="card"><${Failure} error=${error} />
    <div class="head"><h2>${value && !error ? `${count(value.total)} ${value.total === 1 ? "event" : "events"}` : "Events over time"}</h2>${value && !error && html`<small>a bar is ${seconds(value.step)}, by the events' own time</small>`}<${Busy} busy=${busy} /></div>
    ${value && !error && html`<${Chart} kind="bars" height=${140} label="" series=${[{ name: "events" }]} data=${value.total ? value.data : [[], []]} onZoom=${(from, to) => change(between(from, to))} />`}
  </section>`;
}

function List({ first, busy }) {
  const [more, setMore] = useState({ found: [], isLast: false });
  if (!first) return html`<${Busy} busy=${busy} />`;
  const found = [...first.found, ...more.found];
  const isLast = first.isLast || more.isLast;
  const older = async () => {
    setMore((before) => ({ ...before, busy: true, error: undefined }));
    try {
      const next = await pageOf(first.asked, found[found.length - 1].position);
      setMore((before) => ({ found: [...before.found, ...next.found], isLast: next.isLast }));
    } catch (error) {
      setMore((before) => ({ ...before, busy: false, error }));
    }
  };
  return html`<section class="card"><${Rows} found=${found} empty="No event fits. Take another time, or fewer filters." />
    <${Failure} error=${more.error} />
    ${found.length > 0 && html`<footer class="head"><small>${count(found.length)} shown, the newest first</small>
      ${!isLast && html`<button type="button" disabled=${more.busy} onClick=${older}>Older ones</button>`}</footer>`}</section>`;
}

function Rows({ found, empty, onOpen = () => {} }) {
  const [opened, setOpened] = useState(null);
  if (!found.length) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Events"><table class="events"><caption class="hidden">Events, the newest first</caption>
    <thead><tr><th scope="col">Time</th><th scope="col">Sensor</th><th scope="col">Type</th><th scope="col">Data</th></tr></thead>
    <tbody>${found.map((event) => {
      const isOpen = opened === event.position;
      return html`<tr key=${event.position} class=${isOpen ? "open" : ""}>
          <td class="fixed"><button type="button" class="link" aria-expanded=${isOpen} onClick=${() => { setOpened(isOpen ? null : event.position); onOpen(); }}>${time(event.time)}</button></td>
          <td>${event.sensor}</td><td>${event.type}</td><td class="preview"><code>${event.preview}</code></td></tr>
        ${isOpen && html`<tr class="opened" key=${`${event.position} opened`}><td colspan="4"><${Opened} position=${event.position} /></td></tr>`}`;
    })}</tbody></table></div>`;
}

/** Events as they come. The collector filters by sensor and type, this page by fields. */
function Live({ params }) {
  const wanted = useMemo(() => wantedOf(params), []);
  const [shown, setShown] = useState({ found: [], missed: 0, came: 0 });
  const [state, setState] = useState("waiting"), [isPaused, setPaused] = useState(false);
  const waiting = useRef({ found: [], missed: 0, came: 0 }), paused = useRef(false), last = useRef(undefined);
  paused.current = isPaused;
  useEffect(() => {
    const parameters = () => new URLSearchParams(Object.entries({ sensor: wanted.sensor, type: wanted.type, after: last.current }).filter(([, value]) => value !== undefined && value !== "")).toString();
    const came = (event) => {
      last.current = event.position;
      waiting.current.came += 1;
      if (!fits(wanted.fields, event.data)) return;
      const text = event.data === null ? event.data_base64 : written(event.data);
      const { position, time, sensor, type } = event;
      waiting.current.found = [{ position, time, sensor, type, preview: text?.slice(0, 400) }, ...waiting.current.found].slice(0, KEPT);
    };
    const missed = (told) => { waiting.current.missed += told.missed; last.current = told.until; };
    return follow(() => `events/tail?${parameters()}`, { message: came, missed, begin: ({ after }) => { last.current = after; }, reset: ({ after }) => { last.current = after; } }, setState);
  }, []);
  useEffect(() => {
    // Many that come at once are shown at once.
    const timer = setInterval(() => {
      const more = waiting.current;
      if (paused.current || (!more.came && !more.missed)) return;
      waiting.current = { found: [], missed: 0, came: 0 };
      setShown((before) => ({ found: [...more.found, ...before.found].slice(0, KEPT), missed: before.missed + more.missed, came: before.came + more.came }));
    }, 250);
    return () => clearInterval(timer);
  }, []);
  const [held, setHeld] = useState(0);
  useEffect(() => {
    if (!isPaused) return undefined;
    const timer = setInterval(() => setHeld(waiting.current.found.length), 500);
    return () => { clearInterval(timer); setHeld(0); };
  }, [isPaused]);
  return html`<section class="card">
    <div class="head"><h2>${isPaused ? "Paused" : state === "live" ? "Live" : state === "refused" ? "Refused for now, trying again: the collector stops, or too many follow" : "Waiting for the collector"}</h2>
      <small role="status">${isPaused ? `${count(held)}${held >= KEPT ? " or more" : ""} came meanwhile` : `${count(shown.came)} came${wanted.fields.length ? ", of which those are shown that fit" : ""}`}</small>
      <button type="button" onClick=${() => setPaused(!isPaused)}>${isPaused ? "Go on" : "Pause"}</button></div>
    ${shown.missed > 0 && html`<p class="note warn">${count(shown.missed)} events came faster than they could be shown: they are stored, and not in this list.</p>`}
    <${Rows} found=${shown.found} empty="Nothing has come since." onOpen=${() => setPaused(true)} />
  </section>`;
}
