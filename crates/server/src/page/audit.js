// The audit: who changed what, newest first.

import { seconds, time } from "./format.js";
import { change, link } from "./route.js";
import { Facts, Filter, get, only } from "./parts.js";
import { Busy, Failure, html, Table, useLoad } from "./ui.js";

/** A value as people read it: names with their values, deeper ones as JSON. */
function told(name, value) {
  if (value === null) return "none";
  if (/_at$/.test(name)) return time(value);
  if (/_seconds$/.test(name)) return seconds(value);
  if (typeof value !== "object" || Array.isArray(value)) return typeof value === "object" ? JSON.stringify(value) : String(value);
  return Object.entries(value).map(([name, one]) => `${name}=${typeof one === "object" && one ? JSON.stringify(one) : one ?? "as all have"}`).join(", ") || "none";
}

// Of a token, what is none says nothing; of a change, it says that something was taken away.
const detail = ({ act, detail }) => Object.entries(detail || {}).filter(([, value]) => value !== null || act !== "token.add").map(([name, value]) => [name, told(name, value)]);

const COLUMNS = [
  { name: "When", className: "fixed", cell: ({ at }) => time(at) },
  { name: "Act", className: "fixed", cell: ({ act }) => html`<code>${act}</code>` },
  { name: "Target", className: "word", cell: ({ target }) => (target.startsWith("sensor/") ? html`<a href=${link(target.replace("/", "s/"))}>${target}</a>` : target) },
  { name: "Detail", className: "long", cell: (of) => html`<${Facts} className="tight" of=${detail(of)} />` },
  { name: "Who", className: "wide", cell: ({ token_name: name, token_id: id, role, client }) =>
    html`${name ?? "the collector"}<br /><small>${[id !== null && `token ${id}`, role, client].filter(Boolean).join(", ")}</small>` },
  { name: "Request", className: "fixed", cell: ({ request_id: id }) =>
    id && html`<a href=${link("audit", { request_id: id })} title=${id} aria-label=${`Only request ${id}`}><code>${id.slice(-12)}</code></a>` },
];

export function Audit({ route: { params } }) {
  const before = params.get("before"), request_id = params.get("request_id");
  const { value, error, busy, again } = useLoad((signal) => get("audit", { limit: 50, before, request_id }, signal), [before, request_id]);
  return html`<div class="head"><h1>Audit</h1><${Busy} busy=${busy} /><button type="button" onClick=${again}>Refresh</button></div>
    <div class="filters"><${Filter} params=${params} name="request_id" label="Request id" />
      ${(before || request_id) && html`<button type="button" onClick=${() => only({ request_id: "" })}>The newest of all requests</button>`}</div>
    <${Failure} error=${error} />
    ${value && html`<section class="card"><${Table} stack caption="Audit" columns=${COLUMNS} rows=${value.entries} keyOf=${({ id }) => id}
      empty=${request_id ? "This request changed nothing, or its entries have expired." : "Nothing older. Whatever is changed is written here."} />
      ${value.next_before !== null && html`<p><button type="button" onClick=${() => change({ before: value.next_before })}>Older</button></p>`}</section>`}`;
}
