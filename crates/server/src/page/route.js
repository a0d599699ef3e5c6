// Where the reader is: all of it stands in the address behind the #, so that a view can be kept, shared, and gone back to. What stands there is not
// sent to the collector when the page is loaded, and so is in no log.

import { useEffect, useState } from "./hooks.js";

/** What the address names: a page, what of it, and the parameters. */
export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [page, ...rest] = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { page: page || "overview", rest, params: new URLSearchParams(query) };
}

/** The address of a view; parameters that are empty are left out. */
export function link(path, params = {}) {
  const given = Object.entries(params).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).filter((one) => one !== undefined && one !== null && one !== "").map((one) => [name, one]));
  const query = new URLSearchParams(given).toString();
  return `#/${path.split("/").map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

export const go = (path, params) => { location.hash = link(path, params); };

/** Changes parameters of this view; without a step back to the view before when `replace` is said. */
export function change(params, { replace } = {}) {
  const { page, rest, params: before } = here();
  const all = {};
  for (const name of new Set([...before.keys(), ...Object.keys(params)])) {
    all[name] = name in params ? params[name] : before.getAll(name);
  }
  const to = link([page, ...rest].join("/"), all);
  if (to === location.hash) return;
  if (replace) {
    history.replaceState(null, "", to);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = to;
  }
}

export function useRoute() {
  const [route, setRoute] = useState(here);
  useEffect(() => {
    const changed = () => setRoute(here());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

const UNITS = { m: 60, h: 3600, d: 86400 };
export const RANGES = [["15m", "last 15 minutes"], ["1h", "last hour"], ["6h", "last 6 hours"], ["24h", "last 24 hours"], ["7d", "last 7 days"], ["30d", "last 30 days"]];

/** Seconds of a range such as `6h`; nothing when it is none. */
export function secondsOf(range) {
  const [, count, unit] = /^(\d{1,4})([mhd])$/.exec(range || "") || [];
  return count > 0 ? count * UNITS[unit] : undefined;
}

/** The years that a question can bound: those that nanoseconds reach. */
const FIRST = Date.UTC(1678), LAST = Date.UTC(2262);
const asTime = (text) => { const at = Date.parse(text || ""); return Number.isNaN(at) ? undefined : Math.min(LAST, Math.max(FIRST, at)); };

/** The time range of the address: from and to in milliseconds; `to` is nothing when it ends now. */
export function rangeOf(params, range = "1h") {
  const from = asTime(params.get("since")), to = asTime(params.get("until"));
  if (from !== undefined) return { from, to, name: "" };
  const name = secondsOf(params.get("range")) ? params.get("range") : range;
  return { from: Date.now() - secondsOf(name) * 1000, to: undefined, name };
}

/** The parameters that say a range of two times. */
export const between = (from, to) => ({ range: "", since: new Date(from).toISOString(), until: to === undefined ? "" : new Date(to).toISOString() });
