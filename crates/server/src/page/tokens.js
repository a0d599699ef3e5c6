// Tokens of sensors, people and programs: which there are, new ones, which are shown once, and revoking.

import { useState } from "./hooks.js";
import { ask } from "./api.js";
import { count, time } from "./format.js";
import { link } from "./route.js";
import { Filter, get, More, None, only, Select, shownOf, Tag } from "./parts.js";
import { ShownSender } from "./snippets.js";
import { Busy, Confirm, Dialog, Failure, Field, Form, html, Shown, Table, Time, useLive, useSession } from "./ui.js";

const ROLES = {
  reader: "Asks: events, SQL, and what was rejected.",
  operator: "Looks after sensors and what was rejected. Reads no events.",
  admin: "Does all but send.",
  sensor: "Sends the events of one sensor, and reads what is known of it.",
  send_only: "Sends the events of one sensor, nothing else: safe to publish in an app.",
  enrol: "Registers sensors, as many as it has uses: for devices that register themselves.",
};
const NAMES = Object.keys(ROLES).map((name) => [name]);
const WANTED = [["", "any role"], ["people", "people and programs"], ...NAMES];
const ENDS = [["", "never"], [86400, "in 1 day"], [604800, "in 7 days"], [2592000, "in 30 days"], [7776000, "in 90 days"], [31536000, "in 1 year"]];

const isSender = (role) => role === "sensor" || role === "send_only";
const hasEnded = ({ revoked_at, expires_at }) => revoked_at !== null || (expires_at !== null && Date.parse(expires_at) <= Date.now());
const isConfigured = (token) => token.name === "configured" && token.role === "admin" && !hasEnded(token);

/** The newest that fit, and one more. The API lists all: those that do not fit are left out here. */
async function load(fits, shown, sensor, signal) {
  const found = [];
  let before = null;
  do {
    const page = await get("tokens", { limit: 1000, sensor, before }, signal);
    found.push(...page.tokens.filter(fits));
    before = page.next_before;
  } while (before !== null && found.length <= shown);
  return found;
}

function TokenState({ token }) {
  if (token.revoked_at) return html`<${Tag} kind="bad">revoked<//>`;
  if (hasEnded(token)) return html`<${Tag} kind="warn">expired<//>`;
  return token.uses_left === 0 ? html`<${Tag} kind="warn">used up<//>` : html`<${Tag} kind="good">valid<//>`;
}

function Revoke({ token: of, onClick }) {
  if (hasEnded(of)) return "";
  return isConfigured(of) ? html`<${None}>not here<//>` : html`<button type="button" class="small" aria-label=${`Revoke token ${of.id}, ${of.name}`} onClick=${onClick}>Revoke</button>`;
}

const columns = (revoke) => [
  { name: "Name", className: "word", cell: ({ name, id }) => html`${name}<br /><small>token ${id}</small>` },
  { name: "Role", className: "fixed", cell: ({ role }) => html`<${Tag}>${role}<//>` },
  { name: "State", className: "fixed", cell: (token) => html`<${TokenState} token=${token} />` },
  { name: "Sensor", className: "word", cell: ({ sensor }) => (sensor ? html`<a href=${link(`sensors/${sensor}`)}>${sensor}</a>` : html`<${None} />`) },
  { name: "Last used", className: "fixed ago", cell: (token) => html`<${Time} at=${token.last_used_at} />` },
  { name: "Made", className: "fixed ago", cell: (token) => html`<${Time} at=${token.created_at} />` },
  { name: "Ends", className: "fixed ago", cell: (token) => html`<${Time} at=${token.revoked_at || token.expires_at} />` },
  { name: "Uses left", className: "number", cell: ({ role, uses_left: n }) => (role !== "enrol" ? "" : n === null ? "no bound" : count(n)) },
  { name: "Revoke", className: "act", cell: (token) => html`<${Revoke} token=${token} onClick=${() => revoke(token)} />` },
];

export function Tokens({ route: { params } }) {
  const session = useSession();
  const [isNew, setNew] = useState(false), [old, setOld] = useState(null);
  const sensor = params.get("sensor"), role = params.get("role") || "", hasAll = params.get("ended") === "1", shown = shownOf(params);
  const fits = (token) => (hasAll || !hasEnded(token)) && (!role || token.role === role || (role === "people" && !isSender(token.role)));
  const { value, error, again } = useLive((signal) => load(fits, shown, sensor, signal), [sensor, role, hasAll, shown], 15000);
  const close = () => setOld(null);
  return html`<div class="head"><h1>Tokens</h1><${Busy} busy=${!value && !error} /><button type="button" class="main" onClick=${() => setNew(true)}>Add a token</button></div>
    <div class="filters"><${Select} aria-label="Role" options=${WANTED} value=${role} onChange=${(event) => only({ role: event.target.value })} /><${Filter} params=${params} name="sensor" label="Sensor" />
      <label class="check"><input type="checkbox" checked=${hasAll} onChange=${(event) => only({ ended: event.target.checked ? "1" : "" })} /> Also those that have ended</label></div>
    <${Failure} error=${error} />
    ${value && html`<section class="card"><${Table} stack caption="Tokens" columns=${columns(setOld)} rows=${value.slice(0, shown)} keyOf=${({ id }) => id} empty="No token fits. Add one, or look for others." />
      ${value.some(isConfigured) && html`<p class="dim">The token “configured” comes from the configuration: to end it, change <code>auth.admin_token</code>, or remove the file <code>admin.token</code>, and start again.</p>`}
      ${value.length > shown && html`<${More} shown=${shown} />`}</section>`}
    ${isNew && html`<${Add} sensor=${sensor} onDone=${again} onClose=${() => setNew(false)} />`}
    ${old && html`<${Confirm} title=${`Revoke “${old.name}”`} act=${() => ask(`tokens/${old.id}`, { method: "DELETE" })} onDone=${() => { close(); again(); }} onClose=${close}>
      <p>Token ${old.id}, ${old.role}${old.sensor && ` of ${old.sensor}`}, made on ${time(old.created_at)}. The next request with it is refused. This cannot be taken back.</p>
      ${old.name === session.name && old.role === session.role && html`<p class="note warn">It may be the one that you have signed in with.</p>`}<//>`}`;
}

function Add({ sensor, onDone, onClose }) {
  const [role, setRole] = useState(sensor ? "sensor" : "reader"), [made, setMade] = useState(null);
  const submit = async ({ elements: { name, sensor, uses, ends } }) => {
    const json = { role, name: name.value.trim(), sensor: sensor?.value.trim() };
    if (ends.value) json.expires_in_seconds = Number(ends.value);
    if (uses?.value) json.uses = Number(uses.value);
    setMade(await ask("tokens", { method: "POST", json }));
    onDone();
  };
  if (made) return html`<${Dialog} title=${`Token ${made.id}: ${made.name}, ${made.role}`} onClose=${onClose}><${isSender(made.role) ? ShownSender : Shown} token=${made.token} /><//>`;
  return html`<${Dialog} title="Add a token" onClose=${onClose}><${Form} onSubmit=${submit} button="Add the token">
    <${Field} label="Role" hint=${ROLES[role]}><${Select} options=${NAMES} value=${role} onChange=${(event) => setRole(event.target.value)} /><//>
    <${Field} label="Name" hint="Who or what has it, for the list and the audit."><input name="name" required maxlength="256" autocomplete="off" autofocus /><//>
    ${isSender(role) && html`<${Field} label="Sensor" hint="The id of the sensor whose events it sends."><input name="sensor" required autocomplete="off" autocapitalize="off" spellcheck=${false} defaultValue=${sensor || ""} /><//>`}
    ${role === "enrol" && html`<${Field} label="Uses" hint="How many sensors it may register. Empty: as many as come."><input type="number" name="uses" min="1" max="1000000" defaultValue="1" /><//>`}
    <${Field} label="Ends"><${Select} name="ends" options=${ENDS} /><//>
  <//><//>`;
}
