// Metrics: ten minutes per model, as charts and as a table. Models are never averaged together.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../vendor/ui.js";
import { isOpen, live, models, now } from "../live/store.js";
import { Empty, Hue, Skeleton } from "../parts/basics.js";
import { theme } from "../preferences.js";
import { to } from "../router.js";
import { bytes, clock, count, hue, millis, percent, rate } from "../text/format.js";

const SECONDS = 600;
const HEIGHT = 150;

/** column: place in a point of the history. */
const CHARTS = [
  { title: "Answers", unit: "tok/s", column: 1, format: rate },
  { title: "Prompts read", unit: "tok/s", column: 2, format: rate },
  { title: "First token", unit: "", column: 3, format: millis, least: 10 },
  { title: "Waiting", unit: "jobs", column: 4, format: count },
  { title: "Running", unit: "jobs", column: 5, format: count },
  { title: "Memory", unit: "", column: 6, format: bytes, least: 1e6 },
  { title: "Prompt cache hits", unit: "", column: 7, format: (value) => (value === null || value === undefined ? "–" : percent(value)) },
];

export default function Metrics() {
  const [isTable, setTable] = useState(false);
  const [uplot, setUplot] = useState(null);
  useEffect(() => {
    import("../../vendor/chart.js").then((module) => setUplot(() => module.default));
  }, []);
  if (!models.value.length) {
    if (!isOpen.value) return html`<div class="view"><${Skeleton} lines="6" /></div>`;
    return html`<div class="view"><${Empty} icon="metrics" title="Nothing to measure"><p>Figures appear with the first loaded model. <a href=${to("models")}>Models</a></p><//></div>`;
  }
  return html`<div class="view">
    <div class="view-head wrap">
      <ul class="legend" aria-label="Models">
        ${models.value.map((one) => html`<li key=${one.slug}><${Hue} value=${hue(one.slug)} />${one.name}</li>`)}
      </ul>
      <span class="grow"></span>
      <div class="tabs" role="group" aria-label="Form">
        <button aria-pressed=${!isTable} onClick=${() => setTable(false)}>Charts</button>
        <button aria-pressed=${isTable} onClick=${() => setTable(true)}>Table</button>
      </div>
    </div>
    ${isTable ? html`<${Table} />` : uplot ? html`<div class="charts">${CHARTS.map((one) => html`<${Chart} key=${one.title} uplot=${uplot} of=${one} />`)}</div>` : html`<${Skeleton} lines="8" />`}
    <p class="dim">The last ten minutes, while a page was open. <code>GET /metrics</code> has the same for Prometheus.</p>
  </div>`;
}

function latest(slug, column) {
  return live.value.history[slug]?.at(-1)?.[column] ?? null;
}

function Chart({ uplot, of }) {
  const box = useRef(null);
  const chart = useRef(null);
  const slugs = models.value.map((one) => one.slug).join(" ");
  const data = useMemo(() => columns(slugs.split(" "), of.column), [slugs, now.value]);
  useLayoutEffect(() => {
    const made = new uplot(options(of, slugs.split(" "), box.current.clientWidth), data, box.current);
    chart.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    watcher.observe(box.current);
    return () => {
      watcher.disconnect();
      made.destroy();
    };
  }, [slugs, theme.value]);
  useEffect(() => chart.current?.setData(data), [data]);
  const words = models.value.map((one) => `${one.name}: ${of.format(latest(one.slug, of.column))} ${of.unit}`).join("; ");
  return html`<figure class="chart">
    <figcaption><span>${of.title}</span>
      ${models.value.map((one) => html`<span key=${one.slug} class="num"><${Hue} value=${hue(one.slug)} />${of.format(latest(one.slug, of.column))} <span class="dim">${of.unit}</span></span>`)}
    </figcaption>
    <div ref=${box} role="img" aria-label=${`${of.title}, last ten minutes. Now ${words}`}></div>
  </figure>`;
}

/** One x for each second, one y per model; a second without a point is a gap. */
function columns(slugs, column) {
  const end = Math.floor(now.peek());
  const times = Array.from({ length: SECONDS }, (_, i) => end - SECONDS + 1 + i);
  const found = slugs.map((slug) => {
    const values = new Array(SECONDS).fill(null);
    for (const point of live.peek().history[slug] ?? []) {
      const at = Math.floor(point[0]) - times[0];
      if (at >= 0 && at < SECONDS) values[at] = point[column];
    }
    // Feed and page count seconds apart from each other: a single gap is none.
    for (let i = 1; i < SECONDS - 1; i += 1) values[i] ??= values[i + 1] === null ? null : values[i - 1];
    return values;
  });
  return [times, ...found];
}

function options(of, slugs, width) {
  const dim = resolved("var(--dim)");
  const axis = { stroke: dim, grid: { stroke: resolved("var(--line)"), width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 22, space: 90 };
  const shortClock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { size: 5 }, y: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, of.least ?? 1) * 1.1] } },
    axes: [
      { ...axis, values: (_, list) => list.map((value) => shortClock.format(value * 1000)) },
      { ...axis, size: 56, space: 36, values: (_, list) => list.map((value) => of.format(value)) },
    ],
    series: [{}, ...slugs.map((slug) => ({ stroke: resolved(hueColor(slug)), width: 1.5, points: { show: false }, spanGaps: false }))],
  };
}

/** A colour of the theme as the canvas needs it. */
function resolved(color) {
  const probe = document.createElement("span");
  probe.style.color = color;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const hueColor = (slug) => `light-dark(oklch(0.55 0.15 ${hue(slug)}), oklch(0.76 0.13 ${hue(slug)}))`;

function Table() {
  const minutes = 10;
  const end = Math.floor(now.value / 60) * 60;
  return html`${models.value.map(
    (one) => html`<section key=${one.slug} aria-labelledby=${`table-${one.slug}`}>
      <h2 id=${`table-${one.slug}`}>${one.name}</h2>
      <div class="table-box" tabindex="0" role="region" aria-label=${`Figures of ${one.name}`}>
        <table class="rows">
          <thead><tr><th scope="col">Minute</th>${CHARTS.map((chart) => html`<th key=${chart.title} scope="col" class="to-right">${chart.title} ${chart.unit && html`<span class="dim">${chart.unit}</span>`}</th>`)}</tr></thead>
          <tbody>
            ${Array.from({ length: minutes }, (_, i) => end - i * 60).map((from) => {
              const points = (live.value.history[one.slug] ?? []).filter((point) => point[0] >= from && point[0] < from + 60);
              return html`<tr key=${from}><th scope="row" class="num">${clock(from)}</th>${CHARTS.map((chart) => html`<td key=${chart.title} class="num to-right">${points.length ? chart.format(mean(points, chart.column)) : "–"}</td>`)}</tr>`;
            })}
          </tbody>
        </table>
      </div>
    </section>`,
  )}`;
}

function mean(points, column) {
  const values = points.map((point) => point[column]).filter((value) => value !== null && value !== undefined);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}
