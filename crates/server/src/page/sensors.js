// All sensors: which of them send, how much, and since when others are silent. Registers new ones. One sensor is in `sensor.js`.

import { useState } from "./hooks.js";
import { ask } from "./api.js";
import { bytes, count, perSecond } from "./format.js";
import { link } from "./route.js";
import { Filter, get, Labels, labelsOf, LabelsField, More, None, only, Select, shownOf, State, stateOf } from "./parts.js";
import { OneSensor, quotaText } from "./sensor.js";
import { ShownSender } from "./snippets.js";
import { Busy, Dialog, Failure, Field, Form, html, Table, Time, useLive, useSession } from "./ui.js";

const STATES = [["", "any state"], ["sending"], ["silent"], ["never", "never seen"], ["disabled"]];

const COLUMNS = [
  { name: "Sensor", className: "word", cell: ({ sensorId: id, name }) => html`<a href=${link(`sensors/${id}`)}>${id}</a>${name !== id && html`<br /><small>${name}</small>`}` },
  { name: "State", className: "state", cell: (of) => html`<${State} of=${of} />` },
  { name: "Events", className: "number rate", cell: ({ rates }) => perSecond(rates.events_per_second) },
  { name: "Bytes", className: "number rate", cell: ({ rates }) => `${bytes(rates.bytes_per_second)}/s` },
  { name: "Last seen", className: "fixed ago", cell: (of) => html`<${Time} at=${of.last_seen_at} />` },
  { name: "Quota in force", className: "fixed far", cell: (of) => quotaText(of.quota_in_force) },
  { name: "Zone", className: "fixed far", cell: (of) => of.time_zone || html`<${None} />` },
  { name: "Labels", className: "wide far", cell: (of) => html`<${Labels} labels=${of.labels} />` },
];

/** The first ones by id. The API does not search: for a text or a state, all are asked for. */
async function upTo(most, signal) {
  const sensors = [];
  let after = null;
  do {
    const page = await get("sensors", { limit: Math.min(1000, most - sensors.length), after }, signal);
    sensors.push(...page.sensors);
    after = page.next_after;
  } while (after && sensors.length < most);
  return { sensors, after };
}

function fits(sensor, text, state) {
  const texts = [sensor.sensorId, sensor.name, sensor.time_zone || "", ...Object.entries(sensor.labels).map((one) => one.join("="))];
  return (!state || stateOf(sensor)[0] === state) && texts.some((one) => one.toLowerCase().includes(text));
}

function List({ params }) {
  const isAdmin = useSession().role === "admin";
  const [isNew, setNew] = useState(false), [isLarge, setLarge] = useState(false);
  const text = (params.get("q") || "").trim().toLowerCase(), state = params.get("state") || "", shown = shownOf(params);
  const most = text || state ? Infinity : shown;
  const { value, error, again } = useLive((signal) => upTo(most, signal).then((all) => { setLarge(all.sensors.length > 1000); return all; }), [most], isLarge ? 30000 : 5000);
  const found = value?.sensors.filter((sensor) => fits(sensor, text, state)) || [];
  const set = (name) => (event) => only({ [name]: event.target.value }, { replace: true });
  const first = isAdmin ? "Register one: it gets a token to send with." : "An admin registers them.";
  return html`<div class="head"><h1>Sensors</h1><${Busy} busy=${!value && !error} />
      ${isAdmin && html`<button type="button" class="main" onClick=${() => setNew(true)}>Register a sensor</button>`}</div>
    <div class="filters"><${Filter} params=${params} name="q" label="id, name, zone or label" onInput=${set("q")} onChange=${undefined} />
      <${Select} aria-label="State" options=${STATES} value=${state} onChange=${set("state")} />
      ${value && html`<${None}>${count(found.length)}${value.after && "+"} ${found.length === 1 ? "sensor" : "sensors"}; rates are those of the last minute<//>`}</div>
    <${Failure} error=${error} />
    ${value && html`<section class="card"><${Table} stack caption="Sensors" columns=${COLUMNS} rows=${found.slice(0, shown)} keyOf=${(of) => of.sensorId}
        empty=${value.sensors.length ? "No sensor has this. Look for another text, or for any state." : `No sensor yet. ${first}`} />
      ${(found.length > shown || value.after) && html`<${More} shown=${shown} />`}</section>`}
    ${isNew && html`<${Register} onDone=${again} onClose=${() => setNew(false)} />`}`;
}

function Register({ onDone, onClose }) {
  const [made, setMade] = useState(null);
  const submit = async ({ elements }) => {
    setMade(await ask("sensor", { method: "POST", json: { name: elements.name.value, labels: labelsOf(elements.labels.value) } }));
    onDone();
  };
  return html`<${Dialog} title=${made ? `Registered: ${made.sensorId}` : "Register a sensor"} onClose=${onClose}>
    ${made ? html`<${ShownSender} token=${made.token} /><footer><a href=${link(`sensors/${made.sensorId}`)}>Open ${made.sensorId}</a></footer>`
      : html`<${Form} onSubmit=${submit} button="Register"><${Field} label="Name" hint="Its id is made of the name, and stays: “Roof 1” becomes roof-1.">
          <input name="name" required maxlength="256" autofocus autocomplete="off" /><//><${LabelsField} /><//>`}
  <//>`;
}

export const Sensors = ({ route: { rest: [id], params } }) => (id ? html`<${OneSensor} id=${id} params=${params} key=${id} />` : html`<${List} params=${params} />`);
