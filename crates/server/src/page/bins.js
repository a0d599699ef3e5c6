// Time cut into equal steps, in SQL and on the axis of a chart: days begin at the reader's midnight.

import { stepOf } from "./format.js";

/**
 * Steps of the time from one millisecond to another, at most so many: their length in seconds, their beginnings in seconds since the epoch, where the first
 * begins and the SQL that puts a column into one, for a question, and what its rows say of each.
 */
export function binsOf(from, to, most) {
  const step = stepOf((to - from) / 1000, most);
  const midnight = Math.floor(new Date(from).setHours(0, 0, 0, 0) / 1000);
  const first = midnight + Math.floor((from / 1000 - midnight) / step) * step;
  const at = Array.from({ length: Math.max(1, Math.ceil((to / 1000 - first) / step)) }, (_, i) => first + i * step);
  const origin = new Date(midnight * 1000).toISOString();
  /** How many came in each step, of rows with `at`, as `sql` makes it, and `events`. */
  const counts = (found) => {
    const all = at.map(() => 0);
    for (const { at: time, events } of found) {
      const place = Math.round((Date.parse(time) / 1000 - first) / step);
      if (place in all) all[place] += events;
    }
    return all;
  };
  return {
    step, at, begin: new Date(first * 1000).toISOString(), counts,
    /** The same a second, of as much of a step as has passed. */
    rates: (found) => counts(found).map((events, i) => events / Math.max(1, Math.min(step, to / 1000 - at[i]))),
    sql: (column) => `date_bin(INTERVAL '${step} seconds', ${column}, '${origin}'::timestamptz)`,
  };
}
