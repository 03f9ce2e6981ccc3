// Follows a job's events until its end: over lost connections, a dead server, and hidden tabs.
import { ApiError, events } from "../api.js";
import { addEvent } from "./reply.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const SILENT_MS = 25_000; // the server sends a comment every 10 s

/**
 * Adds the job's events to the reply. Returns at its end; throws ApiError if the job is unknown.
 * @param {(reply: object) => void} onChange after each event
 */
export async function follow(jobId, reply, { signal, onChange, onAway = () => {} }) {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    await visible(signal);
    if (signal.aborted) return;
    try {
      const isOver = await once(jobId, reply, signal, () => {
        wait = FIRST_WAIT_MS;
        onAway(false);
        onChange(reply);
      });
      if (isOver) return;
    } catch (error) {
      if (error instanceof ApiError && !error.isTransient && error.status !== 401) throw error;
    }
    if (signal.aborted || document.hidden) continue;
    onAway(true);
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

/** One connection; true if the job's last event came. Ends early when the tab is hidden. */
async function once(jobId, reply, signal, onEvent) {
  const own = new AbortController();
  const stop = () => own.abort();
  const onHidden = () => document.hidden && stop();
  signal.addEventListener("abort", stop);
  document.addEventListener("visibilitychange", onHidden);
  let timer = setTimeout(stop, SILENT_MS);
  const onBytes = () => {
    clearTimeout(timer);
    timer = setTimeout(stop, SILENT_MS);
  };
  try {
    const path = `/v1/jobs/${encodeURIComponent(jobId)}/events`;
    for await (const { id, event, data } of events(path, { lastId: reply.lastId, signal: own.signal, onBytes })) {
      if (event === "error") throw new ApiError(503, data.error ?? { message: "The stream broke." });
      const isLast = addEvent(reply, id, data);
      onEvent();
      if (isLast) return true;
    }
    return ["done", "failed", "cancelled"].includes(reply.phase);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    document.removeEventListener("visibilitychange", onHidden);
  }
}

/** Waits while the tab is hidden: browsers allow six connections to one server, over all tabs. */
function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
