// Which events are wanted: sensor, type, time and any field of `data`, as they stand in the address, in SQL, and for events that come live.

import { Digits, written } from "./json.js";
import { rangeOf } from "./route.js";

/** What a field can be asked; `~` looks for a text inside. */
export const OPERATORS = [["=", "is"], ["!=", "is not"], [">", "is more than"], [">=", "is at least"], ["<", "is less than"], ["<=", "is at most"], ["~", "has in it"], ["there", "is there"], ["missing", "is not there"]];

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

/** `["room", "name"]` as it is asked: `data.room.name`, or by `->` where a name is none of SQL. */
export function fieldOf(path) {
  if (path.every((part) => NAME.test(part) && !/^(true|false|null)$/i.test(part))) return ["data", ...path].join(".");
  return textOf(path);
}

/** The text of a field, as it was sent. */
export const textOf = (path) => `data${path.map((part, i) => `${i < path.length - 1 ? "->" : "->>"}${quoted(part)}`).join("")}`;

/** The path of `data.room.name`. */
export const pathOf = (name) => name.replace(/^data\./, "").split(".");

/** A filter of the address: `[path, operator, value]`; nothing when it is none. */
function read(text) {
  try {
    const [path, operator, value] = JSON.parse(text);
    const isPath = Array.isArray(path) && path.length > 0 && path.every((part) => typeof part === "string");
    return isPath && OPERATORS.some(([known]) => known === operator) ? [path, operator, value ?? null] : undefined;
  } catch {
    return undefined;
  }
}

export const write = (filter) => JSON.stringify(filter);

/** What the address wants. */
export const wantedOf = (params) => ({
  sensor: params.get("sensor") || "", type: params.get("type") || "", fields: params.getAll("where").map(read).filter(Boolean),
});

/** A value that was typed: a number or a truth when it is one, unless the field is known to hold texts alone. */
export function valueOf(text, kinds) {
  if (kinds?.length && kinds.every((kind) => kind === "text")) return text;
  if (text === "true" || text === "false") return text === "true";
  return text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
}

/** A condition on a field. `param` takes a value and says its place in the statement. */
function condition([path, operator, value], kindOf, param) {
  const text = textOf(path), field = fieldOf(path);
  if (operator === "there") return `${text} IS NOT NULL`;
  if (operator === "missing" || (operator === "=" && value === null)) return `${text} IS NULL`;
  if (operator === "!=" && value === null) return `${text} IS NOT NULL`;
  if (operator === "~") return `${text} ILIKE ${param(`%${String(value).replace(/[\\%_]/g, "\\$&")}%`)}`;
  const sql = operator === "=" ? "=" : operator === "!=" ? "IS DISTINCT FROM" : operator;
  if (typeof value === "number") return `(${field})::double ${sql} ${param(value)}::double`;
  // A column of texts is quicker than the text that it was taken from.
  return `${kindOf(path) === "text" ? field : text} ${sql} ${param(String(value))}`;
}

const literal = (value) => (typeof value === "number" ? String(value) : quoted(String(value)));

/** The conditions in SQL: with params, and `inlined` without, to be read and changed. `kindOf` tells the type of a field, where it is known. */
export function conditions(params, kindOf = () => undefined) {
  const values = [];
  return { where: whereOf(params, kindOf, (value) => `$${values.push(value)}`), params: values, inlined: whereOf(params, kindOf, literal) };
}

function whereOf(params, kindOf, param) {
  const wanted = wantedOf(params), { from, to } = rangeOf(params, "24h");
  const all = [`time >= ${param(new Date(from).toISOString())}::timestamptz`];
  if (to !== undefined) all.push(`time < ${param(new Date(to).toISOString())}::timestamptz`);
  if (wanted.sensor) all.push(`sensor = ${param(wanted.sensor)}`);
  if (wanted.type) all.push(`type = ${param(wanted.type)}`);
  for (const field of wanted.fields) all.push(condition(field, kindOf, param));
  return `WHERE ${all.join(" AND ")}`;
}

const at = (data, path) => path.reduce((value, part) => (value !== null && typeof value === "object" && !Array.isArray(value) && Object.hasOwn(value, part) ? value[part] : undefined), data);

/** What SQL takes for a number: one, or a text of one. */
const numberOf = (value) => (typeof value === "number" ? value : (typeof value === "string" || value instanceof Digits) && String(value).trim() !== "" ? Number(value) : NaN);

/** Whether an event that comes live fits the conditions on its fields; sensor and type are the collector's. */
export function fits(fields, data) {
  return fields.every(([path, operator, value]) => {
    const found = at(data, path), isThere = found !== undefined && found !== null;
    const text = typeof found === "object" && !(found instanceof Digits) ? written(found) : String(found);
    if (operator === "there") return isThere;
    if (operator === "missing") return !isThere;
    if (operator === "~") return isThere && text.toLowerCase().includes(String(value).toLowerCase());
    const isEqual = value === null ? !isThere : isThere && (typeof value === "number" ? numberOf(found) === value : text === String(value));
    if (operator === "=") return isEqual;
    if (operator === "!=") return !isEqual;
    if (!isThere) return false;
    const order = typeof value === "number" ? numberOf(found) - value : text < String(value) ? -1 : text > String(value) ? 1 : 0;
    return { ">": order > 0, ">=": order >= 0, "<": order < 0, "<=": order <= 0 }[operator];
  });
}
