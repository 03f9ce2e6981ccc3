// Rows of the usage of keys: their columns, order, sum, and a file for spreadsheets. Pure.

/** What a row is grouped by, and its numbers, as columns of a table. */
export const WORDS = { key: "Key", model: "Model", day: "Day" };
export const NUMBERS = {
  num_jobs: "Requests",
  num_failed: "Failed",
  num_cancelled: "Cancelled",
  prompt_tokens: "Tokens in",
  cached_tokens: "Cached",
  completion_tokens: "Tokens out",
  total_tokens: "Tokens",
};

/** The rows by a column; equal ones stay in their order. */
export function sorted(rows, { by, isDown }) {
  const sign = isDown ? -1 : 1;
  const compare = by in NUMBERS ? (a, b) => a[by] - b[by] : (a, b) => (a[by] ?? "").localeCompare(b[by] ?? "");
  return [...rows].sort((a, b) => sign * compare(a, b));
}

/** One row with the sums of all. */
export function total(rows) {
  return Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, rows.reduce((sum, row) => sum + row[name], 0)]));
}

/** A table as text. A name that a spreadsheet would take for a formula gets an apostrophe. */
export function csv(rows, groups) {
  const names = [...groups, ...Object.keys(NUMBERS)];
  const lines = [names, ...rows.map((row) => names.map((name) => row[name] ?? ""))];
  return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
}

function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
