// Where SQL is written: a field of text, with completion of what there is to ask, and the place of an error.

import { useEffect, useId, useMemo, useRef, useState } from "./hooks.js";
import { html } from "./ui.js";

const KEYWORDS = "SELECT FROM WHERE GROUP BY ORDER LIMIT OFFSET HAVING AS AND OR NOT IN IS NULL LIKE ILIKE BETWEEN CASE WHEN THEN ELSE END WITH DISTINCT DESC ASC JOIN ON UNION ALL INTERVAL OVER PARTITION FILTER EXPLAIN CAST true false".split(" ");
const FUNCTIONS = "count( avg( sum( min( max( median( stddev( approx_percentile_cont( approx_distinct( date_bin( date_trunc( date_part( now( coalesce( round( abs( lower( upper( length( left( right( replace( split_part( regexp_match( to_timestamp( first_value( last_value( lag( lead( row_number( encode( array_agg( string_agg(".split(" ");
const TABLES = {
  events: "position id sensor source type subject time received_at content_type attributes data data_binary".split(" "),
  rejected: "rejected_position received_at sensor request_id index code pointer reason mode parameters content_type headers data data_binary bytes cut".split(" "),
};

/** What can be completed, with what it is. */
export function wordsOf(fields) {
  const seen = new Map();
  for (const { type, fields: of } of fields?.types || []) {
    for (const { name, type: kind } of of) seen.set(name, `${seen.has(name) ? `${seen.get(name).split(",")[0]}, more types` : `${kind}, of ${type}`}`);
  }
  return [
    ...Object.keys(TABLES).map((name) => [name, "table"]),
    ...Object.entries(TABLES).flatMap(([table, columns]) => columns.map((name) => [name, `column of ${table}`])),
    ...[...seen].map(([name, what]) => [name, what]),
    ...FUNCTIONS.map((name) => [name, "function"]), ...KEYWORDS.map((name) => [name, "word"]),
  ].filter(([name], i, all) => all.findIndex(([other]) => other === name) === i);
}

/** The beginning of a word before the caret. */
function begunAt(text, caret) {
  const [word] = /[A-Za-z_][A-Za-z0-9_.]*$/.exec(text.slice(0, caret)) || [""];
  // Inside of a text or a comment nothing is completed.
  const line = text.slice(text.lastIndexOf("\n", caret - 1) + 1, caret);
  const isQuoted = (text.slice(0, caret).split("'").length - 1) % 2 === 1;
  return isQuoted || line.includes("--") ? "" : word;
}

function fitting(words, begun) {
  if (begun.length < 1) return [];
  const lower = begun.toLowerCase();
  const starts = words.filter(([name]) => name.toLowerCase().startsWith(lower) && name !== begun);
  const inside = begun.length > 2 ? words.filter(([name]) => !name.toLowerCase().startsWith(lower) && name.toLowerCase().includes(lower)) : [];
  // What lies least deep comes first.
  const depth = ([name]) => name.split(".").length;
  return [...starts.sort((a, b) => depth(a) - depth(b)), ...inside.sort((a, b) => depth(a) - depth(b))].slice(0, 10);
}

/** Where in a text a line and a column are, both from 1, the column in characters. */
export function offsetOf(text, { line, column }) {
  const lines = text.split("\n");
  const before = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  return before + [...(lines[line - 1] || "")].slice(0, column - 1).join("").length;
}

let width;
/** The width of a character of the field. */
function charWidth(area) {
  if (!width) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = getComputedStyle(area).font;
    width = pen.measureText("0".repeat(100)).width / 100;
  }
  return width;
}

export function Editor({ text, onText, onRun, fields, place }) {
  const area = useRef(), id = useId();
  const [list, setList] = useState({ found: [], at: 0 });
  const words = useMemo(() => wordsOf(fields), [fields]);
  useEffect(() => {
    if (!place) return;
    const at = offsetOf(area.current.value, place);
    area.current.focus();
    area.current.setSelectionRange(at, Math.min(area.current.value.length, at + 1));
  }, [place]);
  const look = () => {
    const { value, selectionStart } = area.current;
    const begun = begunAt(value, selectionStart);
    const found = fitting(words, begun);
    const line = value.slice(0, selectionStart).split("\n");
    const left = Math.min((line[line.length - 1].length - begun.length) * charWidth(area.current) - area.current.scrollLeft + 11, area.current.clientWidth - 260);
    setList({ found, at: 0, begun, left: Math.max(0, left), top: line.length * 20 + 10 - area.current.scrollTop });
  };
  const take = ([name]) => {
    const field = area.current, at = field.selectionStart;
    field.setRangeText(name, at - list.begun.length, at, "end");
    onText(field.value);
    setList({ found: [], at: 0 });
    field.focus();
  };
  const key = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      setList({ found: [], at: 0 });
      onRun();
    } else if (list.found.length && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      const count = list.found.length;
      setList({ ...list, at: (list.at + (event.key === "ArrowDown" ? 1 : count - 1)) % count });
    } else if (list.found.length && (event.key === "Tab" || event.key === "Enter") && !event.shiftKey) {
      event.preventDefault();
      take(list.found[list.at]);
    } else if (event.key === "Escape" && list.found.length) {
      event.preventDefault();
      setList({ found: [], at: 0 });
    } else if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      look();
    }
  };
  return html`<div class="editor">
    <label class="hidden" for=${`${id}-sql`}>SQL</label>
    <textarea id=${`${id}-sql`} ref=${area} rows=${Math.min(20, Math.max(5, text.split("\n").length + 1))} wrap="off" spellcheck=${false} autocapitalize="off" autocomplete="off" value=${text}
      aria-autocomplete="list" aria-controls=${`${id}-list`} aria-activedescendant=${list.found.length ? `${id}-${list.at}` : undefined}
      onInput=${(event) => { onText(event.target.value); look(); }} onKeyDown=${key} onBlur=${() => setList({ found: [], at: 0 })}></textarea>
    <ul id=${`${id}-list`} role="listbox" aria-label="Completions" class=${list.found.length ? "completions" : "hidden"} style=${{ left: `${list.left || 0}px`, top: `${list.top || 0}px` }}>
      ${list.found.map((entry, i) => html`<li id=${`${id}-${i}`} role="option" aria-selected=${i === list.at} onMouseDown=${(event) => { event.preventDefault(); take(entry); }}><b>${entry[0]}</b> <small>${entry[1]}</small></li>`)}
    </ul>
  </div>`;
}
