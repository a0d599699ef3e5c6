// One sensor: what is known of it, what it sends and what was rejected of it; its settings, its token, and the erasure of its events.

import { useState } from "./hooks.js";
import { ask, rows } from "./api.js";
import { binsOf } from "./bins.js";
import { bytes, count, perSecond, time } from "./format.js";
import { between, change, link, rangeOf } from "./route.js";
import { Facts, get, Labels, labelsOf, LabelsField, None, Select, State, Tag, textOfLabels } from "./parts.js";
import { ShownSender } from "./snippets.js";
import { Chart } from "./chart.js";
import { Busy, Confirm, Dialog, Failure, Field, Form, html, Range, Table, Tile, Time, useLive, useSession } from "./ui.js";

const sensorPath = (id) => `sensors/${encodeURIComponent(id)}`;

const QUOTA = [
  ["events_per_second", "Events a second", (n) => `${count(n)} events/s`, 1e12],
  ["bytes_per_second", "Bytes a second", (n) => `${bytes(n)}/s`, 1e12],
  ["burst_seconds", "Burst, in seconds", (n) => `${count(n)} s`, 86400],
];

export const quotaText = (quota) => QUOTA.slice(0, 2).filter(([field]) => quota[field] !== null).map(([field, , text]) => text(quota[field])).join(", ") || "no bound";

const quotaCell = (quota, none) => ([field, , text]) => (quota[field] === null ? html`<${None}>${none}<//>` : text(quota[field]));

const Known = ({ sensor }) => html`<section class="card"><h2>Settings</h2>
  <${Facts} of=${[["Id", html`<code>${sensor.sensorId}</code>`], ["Name", sensor.name], ["Registered", time(sensor.created_at)],
    ["Disabled", sensor.disabled_at && `${time(sensor.disabled_at)}: its tokens are refused`],
    ["Zone", sensor.time_zone || html`<${None}>none: times without a zone are rejected<//>`], ["Labels", html`<${Labels} labels=${sensor.labels} />`]]} />
  <${Table} caption="Quota" rows=${QUOTA} columns=${[{ name: "Quota", cell: ([, name]) => name },
    { name: "In force", className: "number", cell: quotaCell(sensor.quota_in_force, "no bound") }, { name: "Set for it", className: "number", cell: quotaCell(sensor.quota, "as all have") }]} /></section>`;

function Settings({ sensor, onDone, onClose }) {
  const { sensorId, labels, time_zone, quota, quota_in_force: inForce } = sensor;
  const submit = async ({ elements }) => {
    const json = {}, to = {};
    if (elements.labels.value !== textOfLabels(labels)) json.labels = labelsOf(elements.labels.value);
    const zone = elements.time_zone.value.trim() || null;
    if (zone !== time_zone) json.time_zone = zone;
    for (const [field] of QUOTA) {
      const given = elements[field].value === "" ? null : Number(elements[field].value);
      if (given !== quota[field]) json.quota = Object.assign(to, { [field]: given });
    }
    if (Object.keys(json).length) await ask(sensorPath(sensorId), { method: "PATCH", json });
    onDone();
  };
  return html`<${Dialog} title=${`Change ${sensorId}`} onClose=${onClose}><${Form} onSubmit=${submit} button="Save">
    <${LabelsField} labels=${labels} />
    <${Field} label="Zone" hint="Times of its events that have no zone are read in it. Empty: they are rejected.">
      <input name="time_zone" list="zones" placeholder="Europe/Berlin" autocomplete="off" spellcheck=${false} defaultValue=${time_zone || ""} /><//>
    <datalist id="zones">${Intl.supportedValuesOf("timeZone").map((zone) => html`<option value=${zone}></option>`)}</datalist>
    <fieldset><legend>Quota</legend><div class="fields">${QUOTA.map(([field, label, , max]) => html`<${Field} label=${label}>
      <input type="number" name=${field} min="1" max=${max} defaultValue=${quota[field] ?? ""} placeholder=${quota[field] === null ? inForce[field] ?? "no bound" : ""} /><//>`)}</div>
      <small>Empty: what all sensors have. Beyond the quota a whole batch is turned away, to be sent again later.</small></fieldset>
  <//><//>`;
}

const OVERLAPS = [[3600, "in 1 hour"], [0, "at once"], [86400, "in 1 day"], [604800, "in 7 days"], [2592000, "in 30 days"]];

function Rotate({ id, onClose }) {
  const [made, setMade] = useState(null);
  const submit = async ({ elements }) => setMade(await ask(`${sensorPath(id)}/token`, { method: "POST", json: { overlap_seconds: Number(elements.overlap.value) } }));
  const ends = made?.old_tokens_expire_at;
  return html`<${Dialog} title=${made ? `New token of ${id}` : `Rotate the token of ${id}`} onClose=${onClose}>
    ${made ? html`<${ShownSender} token=${made.token}><p>${Date.parse(ends) > Date.now() ? `The old tokens end on ${time(ends)}.` : "The old tokens have ended."}</p><//>`
      : html`<p>The sensor gets another token. Both are taken until the old ones end.</p><${Form} onSubmit=${submit} button="Make the new token">
        <${Field} label="The old tokens end" hint="Those of the role send_only stay; they are revoked one by one."><${Select} name="overlap" options=${OVERLAPS} /><//><//>`}
  <//>`;
}

/** How many came in each step of the time range. */
async function received(id, params, signal) {
  const { from, to = Date.now() } = rangeOf(params);
  const bins = binsOf(from, to, 60);
  const sql = `SELECT ${bins.sql("received_at")} AS at, count(*) AS events FROM events
    WHERE sensor = $1 AND received_at >= $2::timestamptz AND received_at < $3::timestamptz GROUP BY 1`;
  const found = await rows(sql, [id, bins.begin, new Date(to).toISOString()], { signal });
  return { data: [bins.at, bins.rates(found)], total: found.reduce((sum, { events }) => sum + events, 0) };
}

function OverTime({ id, params }) {
  const { value, error } = useLive((signal) => received(id, params, signal), [id, params.toString()], 15000);
  return html`<section class="card"><div class="head"><h2>Events</h2><${Range} params=${params} /><a href=${link("events", { sensor: id })}>Open its events</a></div>
    <${Failure} error=${error} />
    <${Chart} label=${value ? `Received: ${count(value.total)} events` : "Received"} kind="bars" series=${[{ name: "events" }]} data=${value?.data || [[], []]} value=${perSecond} height=${230}
      onZoom=${(from, to) => change(between(from, to))} /></section>`;
}

const REJECTED = [
  { name: "Received", className: "fixed ago", cell: (one) => html`<${Time} at=${one.received_at} />` },
  { name: "Code", className: "fixed", cell: ({ code }) => html`<code>${code}</code>` },
  { name: "Reason", className: "long", cell: ({ reason }) => reason },
];

function LastRejected({ id }) {
  const { value, error } = useLive((signal) => get("rejected", { sensor: id, limit: 5 }, signal), [id], 15000);
  return html`<section class="card"><div class="head"><h2>Last rejected</h2><a href=${link("rejected", { sensor: id, range: "30d" })}>All its rejected events</a></div>
    <${Failure} error=${error} />
    ${value && html`<${Table} stack caption="Last rejected events" rows=${value.rejected} columns=${REJECTED} keyOf=${(one) => one.rejected_position} empty="Nothing of it was rejected." />`}</section>`;
}

function Erase({ id, onDone, onClose }) {
  const submit = async ({ elements }) => {
    if (elements.typed.value.trim() !== id) throw new Error(`This is not the id: type ${id}.`);
    await ask(`${sensorPath(id)}/events`, { method: "DELETE" });
    onDone();
  };
  return html`<${Dialog} title=${`Erase the events of ${id}`} onClose=${onClose}>
    <p class="note warn">All events that it has sent so far are erased, and what of it was rejected. This cannot be taken back.</p>
    <p>What it sends from now on stays: disable it first if nothing more is to come.</p>
    <${Form} onSubmit=${submit} button="Erase all its events"><${Field} label=${`Type ${id} to confirm`}><input name="typed" required autocomplete="off" autocapitalize="off" spellcheck=${false} /><//><//>
  <//>`;
}

const KINDS = { finished: "good", failing: "bad" };

/** The last erasure. It is asked for on demand: one that there is not is an error, which a browser would write to its console each time. */
function Erasure({ id, isShown }) {
  const [isAsked, setAsked] = useState(false);
  const load = async (signal) => (isShown ? ask(`${sensorPath(id)}/events`, { signal }) : null);
  const { value, error, again } = useLive(load, [id, isShown], 2000);
  const show = () => { change({ erasure: "1" }, { replace: true }); again(); };
  const wasNone = error?.status === 404;
  return html`<section class="card"><div class="head"><h2>Erasure</h2>
      ${!isShown && html`<button type="button" onClick=${show}>Show the last erasure</button>`}
      <button type="button" onClick=${() => setAsked(true)}>Erase its events…</button></div>
    <p class="dim">Erases all events that it has sent so far, from answers and from the disk. The sensor itself stays.</p>
    <${Failure} error=${!wasNone && error} />${wasNone && html`<p>Its events were never erased.</p>`}
    ${value && !wasNone && html`<${Facts} of=${[["State", html`<${Tag} kind=${KINDS[value.state]}>${value.state}<//> ${value.failure}`], ["Asked for", time(value.requested_at)],
      ["Finished", value.finished_at && time(value.finished_at)], ["Up to position", count(value.until_position)], ["Erased", `${count(value.erased_events)} events`]]} />`}
    ${isAsked && html`<${Erase} id=${id} onDone=${() => { setAsked(false); show(); }} onClose=${() => setAsked(false)} />`}</section>`;
}

export function OneSensor({ id, params }) {
  const isAdmin = useSession().role === "admin";
  const [open, setOpen] = useState(""), [failure, setFailure] = useState(null);
  const { value: sensor, error, busy, again } = useLive((signal) => ask(sensorPath(id), { signal }), [id], 5000);
  const close = () => setOpen(""), done = () => { close(); setFailure(null); again(); };
  const turn = (disabled) => ask(sensorPath(id), { method: "PATCH", json: { disabled } });
  const button = (text, then) => html`<button type="button" onClick=${then}>${text}</button>`;
  const { rates, quota_in_force: inForce, last_seen_at: seen } = sensor || {};
  return html`<p class="crumb"><a href=${link("sensors")}>Sensors</a></p>
    <div class="head"><h1>${id} ${sensor && html`<${State} of=${sensor} />`}</h1><${Busy} busy=${!sensor && busy} />
      ${sensor && html`${button("Change settings", () => setOpen("settings"))}${button("Rotate token", () => setOpen("rotate"))}
        ${sensor.disabled_at ? button("Enable", () => turn(false).then(done, setFailure)) : button("Disable", () => setOpen("disable"))}
        ${isAdmin && html`<a href=${link("tokens", { sensor: id })}>Its tokens</a>`}`}</div>
    <${Failure} error=${failure || error} />
    ${sensor && html`<dl class="tiles"><${Tile} name="Last seen" value=${html`<${Time} at=${seen} />`} about=${seen ? time(seen) : "It has sent nothing."} />
      <${Tile} name="Events" value=${perSecond(rates.events_per_second)} about="in the last minute" />
      <${Tile} name="Bytes" value=${`${bytes(rates.bytes_per_second)}/s`} about="in the last minute" />
      <${Tile} name="Quota in force" value=${quotaText(inForce)} about=${`burst ${count(inForce.burst_seconds)} s`} /></dl>
    <div class="grid">${isAdmin && html`<${OverTime} id=${id} params=${params} />`}<${Known} sensor=${sensor} /><${LastRejected} id=${id} /><${Erasure} id=${id} isShown=${params.get("erasure") === "1"} /></div>`}
    ${open === "settings" && html`<${Settings} sensor=${sensor} onDone=${done} onClose=${close} />`}
    ${open === "rotate" && html`<${Rotate} id=${id} onClose=${close} />`}
    ${open === "disable" && html`<${Confirm} title=${`Disable ${id}`} act=${() => turn(true)} onDone=${done} onClose=${close}>
      <p>Its tokens are refused from the next request on. Its events stay, and it can be enabled again.</p><//>`}`;
}
