// Numbers, times and names as the page shows them.

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => GROUPED.format(value ?? 0);

/** 1234 as "1.2k": for token counts where room is short. */
export function short(value) {
  if (value < 1000) return String(Math.round(value));
  if (value < 1e6) return trimmed(value / 1000) + "k";
  return value < 1e9 ? trimmed(value / 1e6) + "M" : trimmed(value / 1e9) + "B";
}

/** A context's length: powers of two are counted in 1024s, as their makers do. */
export const contextSize = (value) => (value >= 1024 && value % 1024 === 0 ? `${value / 1024}k` : short(value));

const trimmed = (value) => (value < 10 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value)));

/** Bytes in powers of 1000, as disks and Macs count. */
export function bytes(value) {
  if (!value) return "0 MB";
  if (value < 1e6) return `${Math.max(1, Math.round(value / 1000))} kB`;
  if (value < 1e9) return `${Math.round(value / 1e6)} MB`;
  return `${(value / 1e9).toFixed(1)} GB`;
}

/** A rate of tokens: two digits are enough above 10. */
export function rate(value) {
  if (!value) return "0";
  return value < 10 ? value.toFixed(1) : GROUPED.format(value);
}

/** "4 s", "3 min", "2 h", "5 d". */
export function duration(seconds) {
  if (seconds < 0 || !Number.isFinite(seconds)) return "0 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** Milliseconds: "320 ms", "4.2 s", "1 min 5 s". */
export function millis(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 60_000) return `${(value / 1000).toFixed(1)} s`;
  return `${Math.floor(value / 60_000)} min ${Math.round((value % 60_000) / 1000)} s`;
}

export const percent = (fraction) => `${Math.round((fraction ?? 0) * 100)} %`;

/** "chatcmpl-0123…" as "…4567": job ids differ at their ends. */
export const shortId = (id) => (id.length > 10 ? "…" + id.slice(-4) : id);

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const clock = (seconds) => (seconds ? CLOCK.format(seconds * 1000) : "–");
export const day = (milliseconds) => DAY.format(milliseconds);

/** "1 job", "2 jobs". */
export const plural = (num, word) => `${count(num)} ${word}${num === 1 ? "" : "s"}`;

/** A new id. crypto.randomUUID is missing on plain http; getRandomValues is not. */
export function newId() {
  const found = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One hue per model, the same on every page. */
export function hue(slug) {
  let hash = 7;
  for (const char of slug) hash = (hash * 31 + char.codePointAt(0)) % 9973;
  return HUES[hash % HUES.length];
}

const HUES = [255, 200, 320, 165, 290, 50, 225, 345, 185, 275];
