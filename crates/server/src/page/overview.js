// How the collector is, now and over time.

import { useEffect, useMemo, useState } from "./hooks.js";
import { ask, follow, rows } from "./api.js";
import { Chart } from "./chart.js";
import { binsOf } from "./bins.js";
import { ago, bytes, compact, count, perSecond, seconds } from "./format.js";
import { between, change, link, rangeOf } from "./route.js";
import { Busy, Choice, Failure, html, Range, Tile, useEvery, useLive, useLoad, useSession } from "./ui.js";

/** Most lines of a chart; all others are one more. */
const LINES = 7;
/** Points of a chart. */
const POINTS = 240;

export function Overview({ route }) {
  const { role } = useSession();
  const [state, setState] = useState(null);
  const [isLive, setLive] = useState("waiting");
  const [samples, setSamples] = useState([]);
  useEffect(() => follow(() => "overview/live", { message: (told) => { setState(told); setSamples((before) => [...before.slice(-900), told.last]); } }, setLive), []);
  return html`
    <div class="head"><h1>Overview</h1><${Range} params=${route.params} /></div>
    ${state ? html`<${Now} state=${state} isLive=${isLive} />` : html`<${Busy} busy=${true} />`}
    ${role !== "operator" && html`<${EventsOverTime} params=${route.params} now=${state} />`}
    <${Measured} params=${route.params} samples=${samples} isLive=${isLive} />`;
}

/** By how much the lake grew in the last day, or in what is known of it. */
function growth({ columns, rows } = { rows: [] }) {
  if (rows.length < 2) return "growth not known yet";
  const [at, lake] = [columns.indexOf("at"), columns.indexOf("lake_bytes")];
  const [first, last] = [rows[0], rows[rows.length - 1]];
  const grew = last[lake] - first[lake], passed = (Date.parse(last[at]) - Date.parse(first[at])) / 1000;
  return `${grew < 0 ? "−" : "+"}${bytes(Math.abs(grew))} in ${passed > 82800 ? "a day" : seconds(Math.round(passed))}`;
}

function Now({ state, isLive }) {
  const { last, events, storage, memory, sensors, health } = state;
  const day = useLive((signal) => ask("overview/history?seconds=86400", { signal }), [], 60000);
  const bad = health.reasons;
  const isWarn = health.ready && bad.length > 0;
  const free = storage.disk_bytes ? storage.disk_free_bytes / storage.disk_bytes : 1;
  const share = memory.bound_bytes ? memory.resident_bytes / memory.bound_bytes : 0;
  return html`<dl class="tiles">
      ${isLive === "live" ? html`<${Tile} name="Health" state=${!health.ready ? "bad" : isWarn ? "warn" : "good"} value=${!health.ready ? "not ready" : isWarn ? "ready, with a warning" : "ready"}
        about=${`up ${seconds(Math.max(1, Math.round((Date.parse(state.at) - Date.parse(state.started_at)) / 1000)))}`} />`
    : html`<${Tile} name="Health" state="bad" value="not known" about=${`no connection, trying again; all here is of ${ago(state.at)}`} />`}
      <${Tile} name="Accepted now" value=${perSecond(last.accepted_per_second)} about=${`${count(events.accepted_total)} since the start`} />
      <${Tile} name="Rejected now" state=${last.rejected_per_second > 0 ? "warn" : ""} value=${perSecond(last.rejected_per_second)} about=${html`<a href=${link("rejected")}>${count(events.rejected_total)} since the start</a>`} />
      <${Tile} name="Duplicates now" value=${perSecond(last.duplicates_per_second)} about=${`${count(events.duplicates_total)} since the start`} />
      <${Tile} name="Failed now" state=${last.failed_per_second + last.turned_away_per_second > 0 ? "bad" : ""} value=${perSecond(last.failed_per_second)} about=${`${count(events.failed_total)} since the start; ${compact(last.turned_away_per_second)} requests/s turned away`} />
      <${Tile} name="Answer time, p99" value=${seconds(last.answer_p99_seconds)} about=${`p50 ${seconds(last.answer_p50_seconds)}; ${compact(last.batches_per_second)} batches/s`} />
      <${Tile} name="Events stored" value=${compact(events.sealed + events.live)} about=${`${count(events.live)} of them live, not in the lake yet`} />
      <${Tile} name="Lake" value=${bytes(storage.lake_bytes)} about=${`${growth(day.value)}; ${count(storage.lake_files)} files`} />
      <${Tile} name="Disk free" state=${free < 0.05 ? "bad" : free < 0.15 ? "warn" : ""} value=${bytes(storage.disk_free_bytes)} about=${`of ${bytes(storage.disk_bytes)}; wal ${bytes(storage.wal_bytes)}`} />
      <${Tile} name="Memory" state=${share > 0.95 ? "warn" : ""} value=${bytes(memory.resident_bytes)} about=${`of at most ${bytes(memory.bound_bytes)}`} />
      <${Tile} name="Sensors" value=${count(sensors.seen_within_5m)} about=${`sent within 5 min; ${count(sensors.registered)} registered`} />
      <${Tile} name="Version" value=${state.version} about=${`${state.environment}, commit ${state.commit.slice(0, 12)}`} />
    </dl>
    ${bad.length > 0 && html`<section class="card" aria-label="Reasons"><h2>${health.ready ? "Worth knowing" : "Why it is not ready"}</h2>
      <ul>${bad.map(({ check, reason }) => html`<li><b>${check}</b>: ${reason}</li>`)}</ul></section>`}`;
}

/** Accepted events by the time of their receipt, as SQL tells it: also from before this start. The names that have most, and all others as one. */
async function eventsBy(by, params, signal) {
  const { from, to = Date.now() } = rangeOf(params);
  const bins = binsOf(from, to, POINTS);
  const range = [bins.begin, new Date(to).toISOString()], where = "WHERE received_at >= $1::timestamptz AND received_at < $2::timestamptz";
  const most = (await rows(`SELECT ${by} AS name, count(*) AS events FROM events ${where} GROUP BY 1 ORDER BY events DESC, name LIMIT ${LINES + 1}`, range, { signal })).map(({ name }) => name);
  const names = most.length > LINES ? most.slice(0, LINES) : most;
  const known = most.length > LINES ? `CASE WHEN ${by} IN (${names.map((_, i) => `$${i + 3}`).join(", ")}) THEN ${by} END` : by;
  const found = await rows(`SELECT ${bins.sql("received_at")} AS at, ${known} AS name, count(*) AS events FROM events ${where} GROUP BY 1, 2`,
    most.length > LINES ? [...range, ...names] : range, { signal, limit: 10000 });
  // What came since the names were asked for may have another one: it is left out until the next look.
  const shown = most.length > LINES ? [...names, null] : names;
  const series = shown.map((name) => ({ name: name ?? "all others", color: name === null ? "--chart-8" : undefined }));
  return { step: bins.step, series, data: [bins.at, ...shown.map((name) => bins.rates(found.filter((one) => one.name === name)))] };
}

function EventsOverTime({ params, now }) {
  const by = params.get("by") === "sensor" ? "sensor" : "type";
  const { value, error, busy, again } = useLoad((signal) => eventsBy(by, params, signal), [params.toString()]);
  // No oftener than there is something new to see.
  useEvery(Math.min(300, Math.max(5, value?.step || 0)) * 1000, () => { if (!rangeOf(params).to && now && !busy) again(); });
  return html`<section class="card">
    <div class="head"><h2>Accepted events a second, by ${by}</h2><${Busy} busy=${busy && !value} />
      <${Choice} label="By" options=${[["type", "by type"], ["sensor", "by sensor"]]} value=${by} onChange=${(by) => change({ by }, { replace: true })} /></div>
    <${Failure} error=${error} />
    ${value && !error && html`<${Chart} label=${`Steps of ${seconds(value.step)}`} kind="areas" series=${value.series} data=${value.data} value=${perSecond} height=${240}
      onZoom=${(from, to) => change(between(from, to))} />`}
  </section>`;
}

const CHARTS = [
  ["What became of events", perSecond, [["duplicates_per_second", "duplicates", "--chart-1"], ["rejected_per_second", "rejected", "--chart-2"], ["failed_per_second", "failed", "--chart-4"], ["accepted_per_second", "accepted", "--chart-3"]]],
  ["Time of answers", seconds, [["answer_p50_seconds", "events, p50"], ["answer_p99_seconds", "events, p99"], ["query_p99_seconds", "questions, p99"]]],
  ["Storage", bytes, [["lake_bytes", "lake"], ["wal_bytes", "wal"], ["rejected_bytes", "rejected"]]],
  ["Memory", bytes, [["memory_bytes", "resident memory"]]],
];

/** What the collector measured since its start. */
function Measured({ params, samples, isLive }) {
  const range = rangeOf(params);
  const isShort = range.name === "15m";
  const key = params.toString();
  const { value, error, again } = useLoad((signal) => {
    const past = isShort ? 900 : Math.min(2592000, Math.max(60, Math.ceil((Date.now() - range.from) / 1000)));
    return ask(`overview/history?seconds=${past}`, { signal });
    // What came while nobody followed is asked for once somebody does again.
  }, [key, isShort && isLive]);
  useEvery(15000, () => { if (!isShort && !range.to) again(); });
  const all = useMemo(() => {
    if (!value) return { at: [], of: () => [] };
    const at = value.columns.indexOf("at");
    // What is told each second goes on where the history ended.
    const last = value.rows.length ? value.rows[value.rows.length - 1][at] : "";
    const more = isShort ? samples.filter((sample) => sample.at > last).map((sample) => value.columns.map((name) => sample[name])) : [];
    const [from, to] = [isShort ? Date.now() - 900000 : range.from, range.to ?? Infinity];
    const shown = [...value.rows, ...more].filter((row) => { const time = Date.parse(row[at]); return time >= from && time <= to; });
    return { at: shown.map((row) => Date.parse(row[at]) / 1000), of: (name) => shown.map((row) => row[value.columns.indexOf(name)]) };
  }, [value, isShort && samples, key]);
  return html`<${Failure} error=${error} /><div class="grid">${CHARTS.map(([label, text, lines]) => html`<section class="card" key=${label}>
    <${Chart} label=${label} value=${text} series=${lines.map(([, name, color]) => ({ name, color }))} data=${[all.at, ...lines.map(([column]) => all.of(column))]}
      onZoom=${(from, to) => change(between(from, to))} /></section>`)}</div>
    ${value && value.rows.length > 0 && range.from < Date.parse(value.rows[0][0]) - value.step_seconds * 2000
      && html`<p class="dim">These four are measured since the collector started, ${ago(value.rows[0][0])}; events over time are known from before, too.</p>`}`;
}
