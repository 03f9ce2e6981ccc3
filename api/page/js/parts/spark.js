// A small line of the last minute.
import { html } from "../../vendor/ui.js";

const WIDTH = 80;
const HEIGHT = 24;
const SECONDS = 60;

/** @param {{points: number[][], column: number, hue: number, label: string}} props */
export function Spark({ points, column, hue, label }) {
  const shown = points.slice(-SECONDS);
  const last = shown.at(-1)?.[0] ?? 0;
  const most = Math.max(1, ...shown.map((point) => point[column] ?? 0));
  const places = shown.map((point) => {
    const x = WIDTH - ((last - point[0]) / SECONDS) * WIDTH;
    const y = HEIGHT - 1 - ((point[column] ?? 0) / most) * (HEIGHT - 2);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} width=${WIDTH} height=${HEIGHT} role="img" aria-label=${label} style=${{ "--hue": hue }}>
    <polyline points=${places.join(" ")} />
  </svg>`;
}
