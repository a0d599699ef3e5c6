// Time cut into equal steps, in SQL and on the axis of a chart: days begin at the reader's midnight.

import { stepOf } from "./format.js";

/**
 * Steps of the time from one millisecond to another, at most so many: their length in seconds, their beginnings in seconds since the epoch, how many seconds
 * of each have passed, the SQL that puts a column into one, and where the first begins, for a question.
 */
export function binsOf(from, to, most) {
  const step = stepOf((to - from) / 1000, most);
  const midnight = Math.floor(new Date(from).setHours(0, 0, 0, 0) / 1000);
  const first = midnight + Math.floor((from / 1000 - midnight) / step) * step;
  const at = Array.from({ length: Math.max(1, Math.ceil((to / 1000 - first) / step)) }, (_, i) => first + i * step);
  const origin = new Date(midnight * 1000).toISOString();
  return {
    step, at, begin: new Date(first * 1000).toISOString(),
    passed: (i) => Math.max(1, Math.min(step, to / 1000 - at[i])),
    sql: (column) => `date_bin(INTERVAL '${step} seconds', ${column}, '${origin}'::timestamptz)`,
    place: (time) => Math.round((Date.parse(time) / 1000 - first) / step),
  };
}
