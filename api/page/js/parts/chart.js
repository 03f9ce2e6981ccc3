// Lines over ten minutes on a canvas: axes, a gap where nothing is known, a mark at the pointer.

const HEIGHT = 150;
const EDGE = { left: 56, right: 8, top: 6, bottom: 22 };
const TICK_ROOM = { x: 90, y: 36 };
const STEPS_S = [60, 120, 300, 600];
const FONT = "11px system-ui";

/** Round values from 0 to `top`, at most `most` of them above 0, and `leastStep` apart or more. */
export function ticks(top, most, leastStep = 0) {
  const least = Math.max(leastStep, top / most);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= least * 0.999);
  return Array.from({ length: Math.floor((top / step) * 1.001) + 1 }, (_, i) => i * step);
}

/** The pieces of a line without a gap, as lists of places in `values`. */
export function pieces(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null || value === undefined) return;
    if (at > 0 && found.length && found.at(-1).at(-1) === at - 1) found.at(-1).push(at);
    else found.push([at]);
  });
  return found;
}

/** The place in `times` that is drawn at `x` pixels from the left. */
export function placeAt(x, width, num) {
  const share = (x - EDGE.left) / (width - EDGE.left - EDGE.right);
  return share < 0 || share > 1 ? null : Math.round(share * (num - 1));
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{times: number[], lines: (number|null)[][], colors: {lines: string[], text: string, grid: string},
 *   least: number, leastStep: number, at: number|null, format: (value: number) => string, clock: (seconds: number) => string}} shown
 *   `times` in seconds, one apart; `least`: the lowest top of the scale; `leastStep`: of its ticks;
 *   `at`: the place to mark
 */
export function draw(canvas, shown) {
  const width = canvas.clientWidth;
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = FONT;
  const { times, lines } = shown;
  const top = Math.max(shown.least, ...lines.flat().map((value) => value ?? 0)) * 1.1;
  const x = (at) => EDGE.left + (at / (times.length - 1)) * (width - EDGE.left - EDGE.right);
  const y = (value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
  axes(pen, shown, { width, top, x, y });
  lines.forEach((values, index) => line(pen, values, shown.colors.lines[index], { x, y }));
  if (shown.at !== null) mark(pen, shown, { x, y });
}

function axes(pen, { times, colors, format, clock, leastStep }, { width, top, x, y }) {
  pen.strokeStyle = colors.grid;
  pen.fillStyle = colors.text;
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const value of ticks(top, Math.floor((HEIGHT - EDGE.top - EDGE.bottom) / TICK_ROOM.y), leastStep)) {
    stroke(pen, [[EDGE.left, y(value)], [width - EDGE.right, y(value)]]);
    pen.fillText(format(value), EDGE.left - 6, y(value));
  }
  const step = STEPS_S.find((one) => (times.length / one) * TICK_ROOM.x <= width) ?? STEPS_S.at(-1);
  pen.textAlign = "center";
  times.forEach((seconds, at) => {
    if (seconds % step) return;
    stroke(pen, [[x(at), EDGE.top], [x(at), HEIGHT - EDGE.bottom]]);
    const text = clock(seconds);
    pen.fillText(text, Math.min(x(at), width - pen.measureText(text).width / 2), HEIGHT - EDGE.bottom / 2);
  });
}

function line(pen, values, color, { x, y }) {
  pen.strokeStyle = color;
  pen.lineWidth = 1.5;
  for (const places of pieces(values)) stroke(pen, places.map((at) => [x(at), y(values[at])]));
}

function mark(pen, { lines, colors, at }, { x, y }) {
  pen.strokeStyle = colors.text;
  pen.lineWidth = 1;
  pen.setLineDash([3, 3]);
  stroke(pen, [[x(at), EDGE.top], [x(at), HEIGHT - EDGE.bottom]]);
  pen.setLineDash([]);
  lines.forEach((values, index) => {
    if (values[at] === null) return;
    pen.fillStyle = colors.lines[index];
    pen.beginPath();
    pen.arc(x(at), y(values[at]), 3, 0, 2 * Math.PI);
    pen.fill();
  });
}

function stroke(pen, points) {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}
