// Metrics: ten minutes per model, as charts and as a table. Models are never averaged together.
import { html, useLayoutEffect, useMemo, useRef, useState } from "../../vendor/ui.js";
import { caller } from "../keys.js";
import { isOpen, live, models, now } from "../live/store.js";
import { Empty, Hue, Skeleton } from "../parts/basics.js";
import { draw, placeAt } from "../parts/chart.js";
import { theme } from "../preferences.js";
import { to } from "../router.js";
import { bytes, clock, count, hue, millis, percent, rate } from "../text/format.js";

const SECONDS = 600;
const SHORT_CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const shortClock = (seconds) => SHORT_CLOCK.format(seconds * 1000);

/** column: place in a point of the history. least: of the scale's top. leastStep: of its ticks. */
const CHARTS = [
  { title: "Answers", unit: "tok/s", column: 1, format: rate },
  { title: "Prompts read", unit: "tok/s", column: 2, format: rate },
  { title: "First token", unit: "", column: 3, format: millis, least: 10 },
  { title: "Waiting", unit: "jobs", column: 4, format: count, leastStep: 1 },
  { title: "Running", unit: "jobs", column: 5, format: count, leastStep: 1 },
  { title: "Memory", unit: "", column: 6, format: bytes, least: 1e6 },
  { title: "Prompt cache hits", unit: "", column: 7, format: (value) => (value === null || value === undefined ? "–" : percent(value)) },
];

export default function Metrics() {
  const [isTable, setTable] = useState(false);
  if (!models.value.length) {
    if (!isOpen.value) return html`<div class="view"><${Skeleton} lines="6" /></div>`;
    return html`<div class="view"><${Empty} icon="metrics" title="Nothing to measure"><p>Figures appear with the first loaded model. <a href=${to("models")}>Models</a></p><${UsageLink} /><//></div>`;
  }
  return html`<div class="view">
    <div class="view-head wrap">
      <ul class="legend" aria-label="Models">
        ${models.value.map((one) => html`<li key=${one.slug}><${Hue} value=${hue(one.slug)} />${one.name}</li>`)}
      </ul>
      <span class="grow"></span>
      <${UsageLink} />
      <div class="tabs" role="group" aria-label="Form">
        <button aria-pressed=${!isTable} onClick=${() => setTable(false)}>Charts</button>
        <button aria-pressed=${isTable} onClick=${() => setTable(true)}>Table</button>
      </div>
    </div>
    ${isTable ? html`<${Table} />` : html`<div class="charts">${CHARTS.map((one) => html`<${Chart} key=${one.title} of=${one} />`)}</div>`}
    <p class="dim">The last ten minutes, while a page was open. <code>GET /metrics</code> has the same for Prometheus.</p>
  </div>`;
}

/** Only where the key may manage. */
const UsageLink = () => caller.value?.may_manage && html`<a href=${to("usage")}>Usage of keys</a>`;

function latest(slug, column) {
  return live.value.history[slug]?.at(-1)?.[column] ?? null;
}

function Chart({ of }) {
  const canvas = useRef(null);
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState(null);
  const slugs = models.value.map((one) => one.slug).join(" ");
  const [times, ...lines] = useMemo(() => columns(slugs.split(" "), of.column), [slugs, now.value]);
  const colors = useMemo(() => colorsOf(slugs.split(" ")), [slugs, theme.value]);
  useLayoutEffect(() => {
    const watcher = new ResizeObserver(([{ contentRect }]) => setWidth(Math.floor(contentRect.width)));
    watcher.observe(canvas.current);
    return () => watcher.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (width) draw(canvas.current, { times, lines, colors, least: of.least ?? 1, leastStep: of.leastStep, at, format: of.format, clock: shortClock });
  }, [times, width, colors, at]);
  const onMove = (event) => setAt(placeAt(event.offsetX, width, times.length));
  const words = models.value.map((one) => `${one.name}: ${of.format(latest(one.slug, of.column))} ${of.unit}`).join("; ");
  return html`<figure class="chart">
    <figcaption><span>${of.title}</span>${at !== null && html`<span class="num dim">${clock(times[at])}</span>`}
      ${models.value.map((one, index) => html`<span key=${one.slug} class="num"><${Hue} value=${hue(one.slug)} />${of.format(at === null ? latest(one.slug, of.column) : lines[index]?.[at])} <span class="dim">${of.unit}</span></span>`)}
    </figcaption>
    <canvas ref=${canvas} role="img" aria-label=${`${of.title}, last ten minutes. Now ${words}`} onPointerMove=${onMove} onPointerLeave=${() => setAt(null)}></canvas>
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

const colorsOf = (slugs) => ({ text: resolved("var(--dim)"), grid: resolved("var(--line)"), lines: slugs.map((slug) => resolved(hueColor(slug))) });

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
