// One connection to GET /v1/live, opened again after it breaks. Knows nothing of tabs.
import { readEvents } from "../text/sse.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;
const SILENT_MS = 25_000; // the server sends a comment every 10 s

export class LiveConnection {
  /**
   * @param {string} key API key, or "".
   * @param {(frame: {event: string, data: object}) => void} onFrame also gets "status" frames
   */
  constructor(key, onFrame) {
    this._key = key;
    this._onFrame = onFrame;
    this._abort = null;
  }

  open() {
    if (this._abort === null) {
      this._abort = new AbortController();
      this._run(this._abort.signal);
    }
  }

  close() {
    this._abort?.abort();
    this._abort = null;
  }

  async _run(signal) {
    let wait = FIRST_WAIT_MS;
    while (!signal.aborted) {
      let status = "away";
      try {
        await this._follow(signal, () => {
          wait = FIRST_WAIT_MS;
        });
      } catch (error) {
        if (error.status === 401) status = "refused";
      }
      if (signal.aborted) return;
      this._onFrame({ event: "status", data: { status, retry_ms: wait } });
      await pause(wait, signal);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  async _follow(signal, onOpen) {
    const watch = new AbortController();
    const stop = () => watch.abort();
    signal.addEventListener("abort", stop);
    let timer = setTimeout(stop, SILENT_MS);
    const onBytes = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENT_MS);
    };
    try {
      const response = await fetch("/v1/live", this._request(watch.signal));
      if (!response.ok) throw Object.assign(new Error("refused"), { status: response.status });
      for await (const { event, data } of readEvents(response.body, onBytes)) {
        if (event === "snapshot") onOpen();
        this._onFrame({ event, data: JSON.parse(data) });
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
  }

  _request(signal) {
    const headers = this._key ? { Authorization: `Bearer ${this._key}` } : {};
    return { headers, signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" };
  }
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
