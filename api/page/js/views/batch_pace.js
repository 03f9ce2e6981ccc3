// Facts of batches that need no page: how fast one is, whether it has ended, what a file asks for.

export const ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"];

const OVER = new Set(["completed", "failed", "expired", "cancelled"]);
const LEAST_S = 3;

export const isOver = (one) => OVER.has(one.status);
export const isActive = (one) => !isOver(one);

/**
 * From readings {t, done, tokens}, the oldest first: written tokens per second, and seconds until
 * `total` lines are done; null while too little is known.
 */
export function paceOf(samples, total) {
  const [first, last] = [samples?.[0], samples?.at(-1)];
  if (!first || last.t - first.t < LEAST_S) return null;
  const seconds = last.t - first.t;
  const perS = (last.done - first.done) / seconds;
  return {
    tokensPerS: (last.tokens - first.tokens) / seconds,
    leftS: perS > 0 ? (total - last.done) / perS : null,
  };
}

/** The route that the first line of a file names, if it is one for batches. */
export function firstUrl(text) {
  try {
    const { url } = JSON.parse(text.replace(/^\ufeff/, "").split("\n", 1)[0]);
    return ENDPOINTS.includes(url) ? url : null;
  } catch {
    return null;
  }
}
