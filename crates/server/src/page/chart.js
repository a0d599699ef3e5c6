// A chart over time or over names: lines, areas on top of each other, or bars; hover tells the values, dragging zooms. Drawn by uPlot.

import { useEffect, useRef, useState } from "./hooks.js";
import uPlot from "./uplot.js";
import { bytes, compact, timeAndZone } from "./format.js";
import { html } from "./ui.js";

const LIGHT = matchMedia("(prefers-color-scheme: light)");

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const COLORS = 8;
const color = (i) => variable(`--chart-${(i % COLORS) + 1}`);

/** Each on top of those before it. */
function stacked(data) {
  let below = data[0].map(() => 0);
  return [data[0], ...data.slice(1).map((values) => (below = values.map((value, i) => below[i] + (value ?? 0))))];
}

function told(series, data, i, value) {
  return series.map(({ name, unit = value }, s) => ({ name, text: unit(data[s + 1][i]), s, n: data[s + 1][i] }));
}

function paths(kind) {
  if (kind === "bars") return uPlot.paths.bars({ size: [0.9, 60], align: 1 });
  if (kind === "columns") return uPlot.paths.bars({ size: [0.7, 60] });
  return undefined;
}

const clock = (options) => new Intl.DateTimeFormat(undefined, { hourCycle: "h23", ...options });
const MONTHS = clock({ month: "short", year: "numeric" }), DAYS = clock({ day: "numeric", month: "short" }), MINUTES = clock({ hour: "2-digit", minute: "2-digit" });
const SECONDS = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Times of an axis, as short as its steps allow; midnight is its day. */
function times(_, at, __, ___, step) {
  return at.map((s) => {
    const time = new Date(s * 1000), isDay = time.getHours() + time.getMinutes() + time.getSeconds() === 0;
    return (step >= 2419200 ? MONTHS : step >= 86400 || isDay ? DAYS : step >= 60 ? MINUTES : SECONDS).format(time);
  });
}

/** Steps of an axis of bytes. */
const BINARY = Array.from({ length: 50 }, (_, i) => 2 ** i);

function optionsOf({ series, kind, value, names, onZoom }, width, height, hover) {
  const text = variable("--dim"), grid = variable("--line");
  const axis = { stroke: text, font: "12px system-ui, sans-serif", grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
  return {
    width, height, padding: [8, 8, 0, 0], legend: { show: false },
    cursor: { drag: { x: Boolean(onZoom), y: false, setScale: false }, points: { show: kind === "lines" } },
    scales: {
      // A bar begins at its time: the last one has its room behind it.
      x: names ? { time: false, range: [-0.5, names.length - 0.5] } : kind === "bars" ? { time: true, range: (u, low, high) => [low, high + (u.data[0].length > 1 ? u.data[0][1] - u.data[0][0] : 60)] } : { time: true },
      y: { range: (_, low, high) => (low === null || (low === 0 && high === 0) ? [0, 1] : [Math.min(0, low), high > 0 ? high * 1.05 : 0]) },
    },
    axes: [
      names ? { ...axis, size: 30, splits: () => names.map((_, i) => i), values: (_, at) => at.map((i) => names[i]?.slice(0, 16)), grid: { show: false } }
        : { ...axis, grid: { show: false }, values: times, space: 80, size: 30 },
      { ...axis, size: 68, incrs: value === bytes ? BINARY : undefined, values: (_, at) => at.map((n) => (n === null ? "" : value(n))) },
    ],
    series: [{}, ...series.map((one, i) => {
      const stroke = one.color ? variable(one.color) : color(i);
      const isFilled = kind !== "lines";
      return { label: one.name, stroke: kind === "lines" ? stroke : undefined, width: kind === "lines" ? 2 : 0, fill: isFilled ? stroke : undefined,
        paths: paths(kind), points: kind === "lines" ? { size: 6, fill: stroke } : { show: false } };
    })],
    hooks: {
      setCursor: [(u) => hover(u.cursor.idx === null || u.cursor.idx === undefined || u.cursor.left < 0 ? null : { i: u.cursor.idx, left: u.cursor.left, width: u.over.clientWidth })],
      setSelect: [(u) => {
        if (!onZoom || u.select.width < 8) return;
        const [from, to] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        onZoom(from * 1000, to * 1000);
      }],
    },
  };
}

/** Areas are drawn from the last to the first, as uPlot draws in the order of its series. */
function drawn({ series, data, kind }) {
  const isOver = kind === "areas" || kind === "bars";
  if (!isOver) return { series, data };
  const [x, ...values] = stacked(data);
  return { series: series.map((one, i) => ({ ...one, color: one.color || `--chart-${(i % COLORS) + 1}` })).reverse(), data: [x, ...values.reverse()] };
}

/**
 * `data`: x (seconds since the epoch, or with `names` 0, 1, 2 …) and the values of each of `series` (`{name, color?}`); `value` writes a value with its
 * unit; `label` says what the chart shows.
 */
export function Chart({ series, data, names, kind = "lines", value = compact, label, height = 200, onZoom }) {
  const place = useRef(), plot = useRef(), zoom = useRef();
  const [at, hover] = useState(null);
  const [light, setLight] = useState(LIGHT.matches);
  zoom.current = onZoom;
  const has = data[0].length > 0 && series.length > 0;
  const shape = `${kind}|${light}|${Boolean(onZoom)}|${series.map((one) => one.name + one.color).join("|")}|${names?.join("|")}`;
  useEffect(() => {
    const changed = () => setLight(LIGHT.matches);
    LIGHT.addEventListener("change", changed);
    return () => LIGHT.removeEventListener("change", changed);
  }, []);
  useEffect(() => {
    if (!has) return undefined;
    const made = drawn({ series, data, kind });
    const options = { series: made.series, kind, value, names, onZoom: onZoom && ((from, to) => zoom.current(from, to)) };
    plot.current = new uPlot(optionsOf(options, place.current.clientWidth || 600, height, hover), made.data, place.current);
    const follow = new ResizeObserver(() => { if (place.current) plot.current?.setSize({ width: place.current.clientWidth, height }); });
    follow.observe(place.current);
    return () => { follow.disconnect(); plot.current.destroy(); plot.current = undefined; hover(null); };
  }, [shape, has, height]);
  useEffect(() => { plot.current?.setData(drawn({ series, data, kind }).data); }, [data]);
  const lines = at && data[0][at.i] !== undefined ? told(series, data, at.i, value) : [];
  const head = lines.length > 0 && (names ? names[at.i] : timeAndZone(data[0][at.i] * 1000));
  return html`<figure class="chart">
    <figcaption>${label}${series.length > 1 && html`<ul class="legend">${series.map((one, i) =>
      html`<li><i class=${`swatch ${one.color ? one.color.slice(2) : `chart-${(i % COLORS) + 1}`}`}></i>${one.name}</li>`)}</ul>`}</figcaption>
    <div ref=${place} class="plot" style=${{ minHeight: `${height}px` }} role="img" aria-label=${`${label}: ${summary(series, data, value)}`}>${!has && html`<p class="empty">Nothing in this time.</p>`}
      ${head && html`<div class=${`hover ${at.left > at.width / 2 ? "left" : ""}`} style=${{ "--at": `${at.left + 68}px` }}><b>${head}</b>
        ${lines.filter(({ n }, i) => lines.length <= 4 || n || i < 1).map(({ name, text, s }) =>
          html`<span><i class=${`swatch ${series[s].color ? series[s].color.slice(2) : `chart-${(s % COLORS) + 1}`}`}></i>${name} <em>${text}</em></span>`)}</div>`}
    </div>
  </figure>`;
}

/** What a chart shows, for those who do not see it. */
function summary(series, data, value) {
  if (!data[0].length) return "nothing in this time";
  return series.map(({ name }, i) => {
    const values = data[i + 1].filter((n) => n !== null && n !== undefined);
    return values.length ? `${name} from ${value(Math.min(...values))} to ${value(Math.max(...values))}, last ${value(values[values.length - 1])}` : `${name} nothing`;
  }).join("; ");
}
