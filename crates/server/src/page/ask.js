// SQL: asked, answered as a table and as a chart, kept in a history, and as a file.

import { useEffect, useMemo, useRef, useState } from "./hooks.js";
import { ask, download, query } from "./api.js";
import { Answer } from "./answer.js";
import { Editor } from "./editor.js";
import { fieldOf, pathOf } from "./filter.js";
import { seconds } from "./format.js";
import { change } from "./route.js";
import { html, useLoad } from "./ui.js";

/** Rows that are shown; files have all of them. */
const ROWS = 1000;
const KEPT = 50, HISTORY = "catchment.asked";

function asked() {
  try {
    const found = JSON.parse(localStorage.getItem(HISTORY) || "[]");
    return Array.isArray(found) ? found.filter((sql) => typeof sql === "string") : [];
  } catch {
    return [];
  }
}

/** What was asked is nobody else's who signs in here. */
export const forget = () => { try { localStorage.removeItem(HISTORY); } catch { /* It was kept nowhere. */ } };

function keep(sql) {
  try { localStorage.setItem(HISTORY, JSON.stringify([sql, ...asked().filter((other) => other !== sql)].slice(0, KEPT))); } catch { /* It is no more than a comfort. */ }
}

/** The field of these kinds that lies least deep, with its type of event. */
function leastDeep(fields, kind, isTaken = () => false) {
  const all = (fields?.types || []).flatMap(({ type, fields }) => fields.map(({ name, values }) => ({ type, name, values })));
  const fitting = all.filter(({ name, values }) => values.length === 1 && values[0] === kind && !isTaken(name) && name.split(".").every((part) => part));
  const depth = ({ type, name }) => name.split(".").length * 2 + (type === "event" ? 1 : 0);
  return fitting.sort((a, b) => depth(a) - depth(b))[0];
}

/** Questions that fit the data that is there. */
function examples(fields) {
  const number = leastDeep(fields, "number", (name) => /(^|[._])(id|number|port|timestamp)$/i.test(name));
  const text = leastDeep(fields, "text", (name) => /(^|[._])(type|time|timestamp|id)$/i.test(name));
  const quoted = (type) => `'${type.replaceAll("'", "''")}'`;
  const sql = (field) => fieldOf(pathOf(field.name));
  return [
    ["Events by type and minute, the last hour", "SELECT date_bin(INTERVAL '1 minute', received_at) AS minute, type, count(*) AS events\nFROM events\nWHERE received_at > now() - INTERVAL '1 hour'\nGROUP BY 1, 2\nORDER BY 1"],
    ["Which sensors sent most", "SELECT sensor, count(*) AS events, max(received_at) AS last\nFROM events\nGROUP BY sensor\nORDER BY events DESC\nLIMIT 20"],
    number && [`${number.name} by sensor`, `SELECT sensor, count(*) AS events, avg(${sql(number)}::double) AS average, min(${sql(number)}::double) AS least, max(${sql(number)}::double) AS most\nFROM events\nWHERE type = ${quoted(number.type)}\nGROUP BY sensor\nORDER BY events DESC\nLIMIT 20`],
    number && [`${number.name} over time`, `SELECT date_bin(INTERVAL '1 minute', time) AS minute, sensor, avg(${sql(number)}::double) AS average\nFROM events\nWHERE type = ${quoted(number.type)} AND time > now() - INTERVAL '6 hours'\nGROUP BY 1, 2\nORDER BY 1`],
    text && [`The most frequent ${text.name}`, `SELECT ${sql(text)} AS value, count(*) AS events\nFROM events\nWHERE type = ${quoted(text.type)}\nGROUP BY 1\nORDER BY events DESC\nLIMIT 20`],
    ["The newest event of each sensor", "SELECT DISTINCT ON (sensor) sensor, time, type, data\nFROM events\nORDER BY sensor, position DESC\nLIMIT 100"],
    ["Why events were rejected", "SELECT code, sensor, count(*) AS events, max(received_at) AS last, max(reason) AS example\nFROM rejected\nGROUP BY 1, 2\nORDER BY events DESC"],
  ].filter(Boolean);
}

export function Ask({ route }) {
  const given = route.params.get("sql") || "";
  const fields = useLoad((signal) => ask("fields", { signal }), []);
  const [text, setText] = useState(given || asked()[0] || "SELECT time, sensor, type, data\nFROM events\nORDER BY position DESC\nLIMIT 20");
  const [state, setState] = useState({});
  const [past, setPast] = useState(asked);
  const running = useRef();
  const run = async (sql) => {
    running.current?.abort();
    const cancel = (running.current = new AbortController());
    const began = performance.now();
    setState((before) => ({ ...before, began, error: undefined }));
    try {
      const answer = await query(sql, [], { signal: cancel.signal, limit: ROWS });
      keep(sql);
      setPast(asked());
      setState({ answer, sql, took: (performance.now() - began) / 1000 });
    } catch (error) {
      if (running.current !== cancel) return;
      setState((before) => (error.name === "AbortError" ? { ...before, began: undefined, isCancelled: true } : { error, sql }));
    }
  };
  // What the address says is asked: after a link, and after a step back.
  useEffect(() => {
    if (!given) return;
    setText(given.trim());
    run(given.trim());
  }, [given]);
  useEffect(() => () => running.current?.abort(), []);
  const start = () => {
    const sql = text.trim().replace(/;$/, "");
    if (!sql) return;
    if (sql === given) run(sql);
    else change({ sql });
  };
  const fill = (event) => { if (event.target.value) setText(event.target.value); event.target.value = ""; };
  const suggested = useMemo(() => examples(fields.value), [fields.value]);
  const isRunning = state.began !== undefined;
  return html`
    <div class="head"><h1>Ask</h1>
      <select aria-label="Examples" onChange=${fill}><option value="">Examples</option>${suggested.map(([name, sql]) => html`<option value=${sql}>${name}</option>`)}</select>
      <select aria-label="Asked before" onChange=${fill} disabled=${!past.length}><option value="">Asked before</option>${past.map((sql) => html`<option value=${sql}>${sql.replace(/\s+/g, " ").slice(0, 90)}</option>`)}</select></div>
    <section class="card">
      <${Editor} text=${text} onText=${setText} onRun=${start} fields=${fields.value} place=${state.error?.body?.place} />
      <div class="head"><button type="button" class="main" onClick=${start} disabled=${isRunning}>Ask</button>
        ${isRunning ? html`<button type="button" onClick=${() => running.current.abort()}>Cancel</button><${Passed} since=${state.began} />` : html`<small>Ctrl+Enter asks, Tab completes, Ctrl+Space shows what there is</small>`}</div>
      ${state.isCancelled && !isRunning && html`<p class="note" role="status">Cancelled.</p>`}
      ${state.error && html`<${Wrong} error=${state.error} sql=${state.sql} />`}
    </section>
    ${state.answer && html`<${Answer} answer=${state.answer} took=${state.took} fileOf=${(format) => download(state.sql, [], format)} shown=${route.params.get("show")} />`}
    ${state.answer?.truncated && html`<p class="note warn">The first ${ROWS} rows are shown: more fit. A file has up to <code>query.rows_max</code> of them, by default a million.</p>`}`;
}

/** The time that a question takes. */
function Passed({ since }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, []);
  return html`<progress aria-label="The question runs"></progress><small>${seconds(Math.max(0.1, Math.round((now - since) / 100) / 10))}</small>`;
}

/** An error at its place in the text. */
function Wrong({ error, sql }) {
  const { place, request_id: id } = error.body || {};
  const line = place ? sql.split("\n")[place.line - 1] : undefined, letters = [...(line || "")];
  return html`<div class="note bad" role="alert"><p>${error.message}</p>
    ${line !== undefined && html`<pre><code>${`${place.line} | ${letters.slice(0, place.column - 1).join("")}`}<mark>${letters[place.column - 1] ?? " "}</mark>${letters.slice(place.column).join("")}</code></pre>`}
    ${id && html`<small>Request <code>${id}</code></small>`}</div>`;
}
