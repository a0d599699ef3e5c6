// An answer: its table, a line or bar chart of it where it has numbers, and files of it.

import { useMemo } from "./hooks.js";
import { Chart } from "./chart.js";
import { compact, count, seconds, time, timeAndZone } from "./format.js";
import { Digits, written } from "./json.js";
import { change } from "./route.js";
import { Choice, Files, html } from "./ui.js";

const TIMES = ["timestamptz", "timestamp", "date"], NUMBERS = ["bigint", "double", "decimal"];
const LINES = 12, BARS = 60;

const isOf = (kinds) => ({ type }) => kinds.includes(type);
const numberOf = (value) => (value === null || value === undefined || value === "" || Number.isNaN(Number(value)) ? null : Number(value));

/** What an answer can be drawn as: over its times when it has any, else by its first text; several series when a further text names them. */
export function drawable({ columns, rows }) {
  const numbers = columns.map((column, i) => ({ ...column, i })).filter(isOf(NUMBERS));
  const x = columns.findIndex(isOf(TIMES)), text = columns.findIndex(isOf(["text", "boolean"]));
  if (!rows.length || !numbers.length) return undefined;
  if (x >= 0) return overTime(rows, x, text, numbers);
  if (text < 0) return undefined;
  const shown = rows.slice(0, BARS);
  return { kind: "columns", names: shown.map((row) => String(row[text] ?? "–")), series: numbers.map(({ name }) => ({ name })),
    data: [shown.map((_, i) => i), ...numbers.map(({ i }) => shown.map((row) => numberOf(row[i])))], isCut: rows.length > BARS };
}

function overTime(rows, x, text, numbers) {
  const secondsOf = (row) => Date.parse(/[Zz]$|[+-]\d\d:?\d\d$/.test(row[x] ?? "") ? row[x] : `${row[x]}Z`) / 1000;
  const at = [...new Set(rows.map(secondsOf))].filter((s) => !Number.isNaN(s)).sort((a, b) => a - b);
  const place = new Map(at.map((s, i) => [s, i])), lines = new Map();
  for (const row of rows) {
    const i = place.get(secondsOf(row));
    if (i === undefined) continue;
    for (const number of numbers) {
      const name = text < 0 ? number.name : numbers.length > 1 ? `${row[text] ?? "–"}, ${number.name}` : String(row[text] ?? "–");
      if (!lines.has(name)) lines.set(name, at.map(() => null));
      lines.get(name)[i] = numberOf(row[number.i]);
    }
  }
  const names = [...lines.keys()].slice(0, LINES);
  return { kind: "lines", series: names.map((name) => ({ name })), data: [at, ...names.map((name) => lines.get(name))], isCut: lines.size > LINES };
}

function cell({ type }, value) {
  if (value === null) return html`<span class="dim">null</span>`;
  if (type === "timestamptz") return html`<time datetime=${value} title=${timeAndZone(value)}>${time(value)}</time>`;
  if (typeof value === "object" && !(value instanceof Digits)) return html`<code>${written(value)}</code>`;
  return String(value);
}

/** `shown` is what the address says that it is shown as. */
export function Answer({ answer, took, fileOf, shown }) {
  const { columns, rows } = answer;
  const chart = useMemo(() => drawable(answer), [answer]);
  const form = chart && ["lines", "columns"].includes(shown) ? shown : "table";
  const setForm = (form) => change({ show: form === "table" ? "" : form }, { replace: true });
  const options = [["table", "Table"], ...(chart ? [["lines", "Lines"], ["columns", "Bars"]] : [])];
  const kind = form === "columns" && !chart?.names ? "bars" : form;
  return html`<section class="card">
    <div class="head"><h2>${count(rows.length)} ${rows.length === 1 ? "row" : "rows"}</h2><small>in ${seconds(took)}</small>
      <${Choice} label="Shown as" options=${options} value=${form} onChange=${setForm} />
      <details class="menu"><summary>Download</summary><div><${Files} name="answer" hrefOf=${fileOf} /></div></details></div>
    ${form === "table" && (rows.length === 0 ? html`<p class="empty">No rows.</p>` : html`<div class="scroll answer" tabindex="0" role="region" aria-label="Answer"><table><caption class="hidden">Answer</caption>
      <thead><tr>${columns.map(({ name, type }) => html`<th scope="col" class=${NUMBERS.includes(type) ? "number" : ""}>${name} <small>${type}</small></th>`)}</tr></thead>
      <tbody>${rows.map((row, i) => html`<tr key=${i}>${row.map((value, c) => html`<td class=${NUMBERS.includes(columns[c].type) ? "number" : columns[c].type === "timestamptz" ? "fixed" : "cell"}>${cell(columns[c], value)}</td>`)}</tr>`)}</tbody></table></div>`)}
    ${form !== "table" && chart && html`<${Chart} kind=${kind} label="" height=${320} series=${chart.series} data=${chart.data} names=${chart.names} value=${compact} />
      ${chart.isCut && html`<p class="dim">Only the first of them are drawn.</p>`}`}
  </section>`;
}
