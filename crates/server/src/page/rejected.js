// What was rejected and why: in groups by code and sensor, then each with its bytes as they came, and how to mend and send again.

import { useState } from "./hooks.js";
import { rows } from "./api.js";
import { bytes, count, time } from "./format.js";
import { change, link, rangeOf } from "./route.js";
import { Facts, Filter, get, only, Tag } from "./parts.js";
import { Busy, Copy, Dialog, Failure, html, Range, Table, Time, useEvery, useLoad, useSession } from "./ui.js";

const PAGE = 50, NEWEST = 1000, GROUPS_MAX = 200;

function filtersOf(params) {
  const { from, to } = rangeOf(params, "24h");
  return { sensor: params.get("sensor") || "", code: params.get("code") || "", since: new Date(from).toISOString(), until: to && new Date(to).toISOString() };
}

const list = (params, more, signal) => get("rejected", { ...filtersOf(params), ...more }, signal);

/** Exact groups, for those who may ask in SQL. */
async function asked(params, signal) {
  const { sensor, code, since, until = "2200-01-01T00:00:00Z" } = filtersOf(params);
  const sql = `SELECT code, sensor, count(*) AS n, min(received_at) AS first, max(received_at) AS last, last_value(reason ORDER BY rejected_position) AS reason
    FROM rejected WHERE received_at >= $1::timestamptz AND received_at < $2::timestamptz AND ($3 = '' OR sensor = $3) AND ($4 = '' OR code = $4)
    GROUP BY code, sensor ORDER BY n DESC, last DESC LIMIT ${GROUPS_MAX + 1}`;
  const found = await rows(sql, [since, until, sensor, code], { signal });
  return { groups: found.slice(0, GROUPS_MAX), about: found.length > GROUPS_MAX && `The ${GROUPS_MAX} largest groups. Choose a sensor or a code to see others.` };
}

/** Groups of the newest ones, for those who may not. */
async function counted(params, signal) {
  const { rejected, next_cursor } = await list(params, { limit: NEWEST }, signal);
  const groups = new Map();
  for (const { code, sensor, received_at: at, reason } of rejected) {
    const group = groups.get(`${code} ${sensor}`) || { code, sensor, n: 0, last: at, reason };
    groups.set(`${code} ${sensor}`, { ...group, n: group.n + 1, first: at });
  }
  const about = next_cursor && `Counted in the newest ${count(rejected.length)} alone: who may ask in SQL (reader, admin) sees groups of all.`;
  return { groups: [...groups.values()].sort((a, b) => b.n - a.n), about };
}

const Only = ({ name, value, children = value }) => html`<button type="button" class="link" aria-label=${`Only ${name} ${value}`} onClick=${() => only({ [name]: value })}>${children}</button>`;
const CODE = { name: "Code", className: "fixed", cell: ({ code }) => html`<${Only} name="code" value=${code}><code>${code}</code><//>` };
const SENSOR = { name: "Sensor", className: "word", cell: ({ sensor }) => html`<${Only} name="sensor" value=${sensor} />` };

const GROUPS = [
  CODE, SENSOR,
  { name: "Events", className: "number", cell: ({ n }) => count(n) },
  { name: "First", className: "fixed ago", cell: ({ first }) => html`<${Time} at=${first} />` },
  { name: "Last", className: "fixed ago", cell: ({ last }) => html`<${Time} at=${last} />` },
  { name: "Last reason", className: "long", cell: ({ reason }) => reason },
];

const EACH = [
  { name: "Received", className: "fixed", cell: (of) => time(of.received_at) },
  SENSOR, CODE,
  { name: "Reason", className: "long", cell: ({ reason, pointer }) => html`${reason}${pointer && html` <small>at <code>${pointer}</code></small>`}` },
  { name: "Size", className: "number", cell: (of) => html`${bytes(of.bytes)}${of.cut && html` <${Tag} kind="warn">cut<//>`}` },
  { name: "Bytes", className: "act", cell: ({ rejected_position: at }) =>
    html`<button type="button" class="small" aria-label=${`Open rejected event ${at}`} onClick=${() => change({ open: at }, { replace: true })}>Open</button>` },
];

function Opened({ of, role }) {
  const isText = of.data_base64 === null;
  const text = isText ? of.data ?? "" : new TextDecoder().decode(Uint8Array.from(atob(of.data_base64), (sign) => sign.charCodeAt(0)));
  return html`<${Dialog} title=${`Rejected event ${of.rejected_position}`} onClose=${() => change({ open: "" }, { replace: true })}>
    <${Facts} of=${[["Received", time(of.received_at)], ["Sensor", role === "reader" ? of.sensor : html`<a href=${link(`sensors/${of.sensor}`)}>${of.sensor}</a>`],
      ["Code", html`<code>${of.code}</code>`], ["Reason", of.reason], ["Pointer", of.pointer], ["Index in its batch", of.index], ["Mode", of.mode], ["Content type", of.content_type],
      ["Parameters", of.parameters], ["Headers", of.headers && JSON.stringify(of.headers)], ["Request", html`<code>${of.request_id}</code>`], ["Size", bytes(of.bytes)]]} />
    ${of.cut && html`<p class="note warn">It was cut: less is kept than came.</p>`}
    ${!isText && html`<p class="note">Its bytes are no UTF-8: those that are no text are shown as �.</p>`}
    <div class="head"><h2>As it came</h2><${Copy} text=${isText ? text : of.data_base64} label=${isText ? "Copy" : "Copy as Base64"} /></div>
    ${text ? html`<pre tabindex="0" aria-label="As it came"><code>${text}</code></pre>` : html`<p class="empty">No bytes.</p>`}
  <//>`;
}

const word = (text, none) => (!text ? none : /^[a-z0-9._-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function Mend({ sensor, code }) {
  const from = `--sensor ${word(sensor, "SENSOR")}`;
  const text = `catchment rejected export ${from} --code ${word(code, "CODE")} > rejected.ndjson\n# mend the lines in rejected.ndjson, then\ncatchment send ${from} rejected.ndjson`;
  return html`<details class="card"><summary>Mend and send again</summary>
    <p>Each line of the export is one rejected event. Mend it in an editor or with a program such as sed, and send the lines: each goes the way that it came. ${sensor && code ? "" : "Choose a sensor and a code above, and they stand in here."}</p>
    <pre tabindex="0" aria-label="Commands"><code>${text}</code></pre><${Copy} text=${text} /></details>`;
}

export function Rejected({ route: { params } }) {
  const { role } = useSession();
  const [isNewer, setNewer] = useState(false);
  const cursor = params.get("cursor"), open = params.get("open"), sensor = params.get("sensor"), code = params.get("code");
  const of = [sensor, code, params.get("range"), params.get("since"), params.get("until")];
  const groups = useLoad((signal) => (role === "operator" ? counted : asked)(params, signal), of);
  const page = useLoad((signal) => { setNewer(false); return list(params, { limit: PAGE, cursor }, signal); }, [...of, cursor]);
  const { rejected = [], next_cursor, kept_total } = page.value || {};
  // What comes meanwhile moves nothing: it is told, and shown when it is asked for.
  useEvery(5000, async () => {
    if (cursor || isNewer || page.busy || page.error) return;
    const first = (await list(params, { limit: 1 }).catch(() => null))?.rejected[0];
    if (first && first.rejected_position > (rejected[0]?.rejected_position ?? 0)) setNewer(true);
  });
  const newest = () => { if (cursor) only({}); else { groups.again(); page.again(); } };
  const opened = rejected.find((one) => String(one.rejected_position) === open);
  const found = groups.value?.groups || [];
  const ids = (name) => html`<datalist id=${`${name}s`}>${[...new Set(found.map((group) => group[name]))].map((one) => html`<option value=${one}></option>`)}</datalist>`;
  return html`<div class="head"><h1>Rejected</h1><${Busy} busy=${page.busy || groups.busy} />
      <button type="button" disabled=${!isNewer && !cursor} onClick=${newest}>${cursor ? "Newest" : isNewer ? "Show what is new" : "Nothing newer"}</button></div>
    <div class="filters"><${Filter} params=${params} name="sensor" label="Sensor" ids="sensors" />${ids("sensor")}<${Filter} params=${params} name="code" label="Code" ids="codes" />${ids("code")}
      <${Range} params=${params} standard="24h" />${(sensor || code) && html`<button type="button" onClick=${() => only({ sensor: "", code: "" })}>All sensors and codes</button>`}</div>
    <${Failure} error=${groups.error || page.error} />
    ${!groups.error && found.length > 0 && html`<section class="card"><h2>By code and sensor</h2>
      <${Table} stack caption="Rejected events by code and sensor" columns=${GROUPS} rows=${found} keyOf=${(group) => `${group.code} ${group.sensor}`} /><p class="dim">${groups.value.about}</p></section>`}
    <${Mend} sensor=${sensor} code=${code} />
    ${page.value && !page.error && html`<section class="card"><h2>${cursor ? "Older" : "Newest first"}</h2>
      <${Table} stack caption="Rejected events" columns=${EACH} rows=${rejected} keyOf=${(one) => one.rejected_position} empty="Nothing of this was rejected in this time. Choose more time, or another sensor or code." />
      ${next_cursor && html`<p><button type="button" onClick=${() => change({ cursor: next_cursor, open: "" })}>Older</button></p>`}
      <p class="dim">${count(kept_total)} rejected events are kept, of all sensors and all times.</p></section>`}
    ${opened && html`<${Opened} of=${opened} role=${role} />`}`;
}
