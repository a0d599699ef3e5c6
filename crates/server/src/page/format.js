// Numbers with their units, and times in the reader's zone.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));
export const compact = (n) => (n === null || n === undefined ? "–" : Math.abs(n) < 10000 ? three.format(n) : short.format(n));
export const perSecond = (n) => (n === null || n === undefined ? "–" : `${compact(n)}/s`);

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (Math.abs(n) >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${three.format(n)} ${units[i]}`;
}

export function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s === 0) return "0 s";
  if (s < 0.001) return `${three.format(s * 1e6)} µs`;
  if (s < 1) return `${three.format(s * 1000)} ms`;
  if (s < 120) return `${three.format(s)} s`;
  if (s < 7200) return `${three.format(s / 60)} min`;
  if (s < 172800) return `${three.format(s / 3600)} h`;
  return `${three.format(s / 86400)} days`;
}

const options = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const full = new Intl.DateTimeFormat(undefined, { ...options, timeZoneName: "short" });
const exact = new Intl.DateTimeFormat(undefined, { ...options, fractionalSecondDigits: 3 });

const date = (time) => (time instanceof Date ? time : new Date(time));
const isTime = (time) => time !== null && time !== undefined && !Number.isNaN(date(time).getTime());

/** With milliseconds, in the reader's zone. */
export const time = (t) => (isTime(t) ? exact.format(date(t)) : String(t ?? "–"));
/** With the zone. */
export const timeAndZone = (t) => (isTime(t) ? full.format(date(t)) : String(t ?? "–"));

export function ago(t) {
  if (!isTime(t)) return "never";
  const passed = (Date.now() - date(t).getTime()) / 1000;
  if (Math.abs(passed) < 2) return "just now";
  const [unit, size] = [["days", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, size]) => Math.abs(passed) >= 2 * size);
  const text = `${Math.floor(Math.abs(passed) / size)} ${unit}`;
  return passed > 0 ? `${text} ago` : `in ${text}`;
}

/** A time as an input of a browser has it, which knows no zone: the reader's. */
export function local(t) {
  const at = date(t);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

/** A step that makes at most `steps` of a range in seconds, of those that people think in. */
export function stepOf(range, steps) {
  const all = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];
  return all.find((step) => range / step <= steps) || Math.ceil(range / steps / 604800) * 604800;
}
