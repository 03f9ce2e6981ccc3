// The server's API: JSON requests, errors in the server's words, event streams.
import { caller, isRefused, key } from "./keys.js";
import { readEvents } from "./text/sse.js";

/** An error that the server answered with, or that no answer came (status 0). */
export class ApiError extends Error {
  constructor(status, { message, code = "", param = null }, jobId = null, retryAfterS = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.jobId = jobId;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed a little later. */
  get isTransient() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const UNREACHABLE = "The server cannot be reached.";

/** A request's answer, its body parsed as JSON. Throws ApiError. */
export async function send(method, path, body, { headers = {}, signal } = {}) {
  const response = await ask(method, path, body, { headers, signal });
  return response.status === 204 ? null : response.json();
}

/** The bytes of an answer, for a file of the person's disk. */
export const blob = async (path) => (await ask("GET", path, undefined, {})).blob();

export const get = (path, options) => send("GET", path, undefined, options);
export const post = (path, body, options) => send("POST", path, body, options);

/** A job in the background: its id. */
export async function submit(path, body, headers = {}) {
  const accepted = await post(path, body, { headers: { Prefer: "respond-async", ...headers } });
  return accepted.id ?? null; // a load of what is loaded already is no new job
}

/** The events of a stream, as {event, id, data}; data is parsed. Ends with the stream. */
export async function* events(path, { lastId = null, signal, onBytes } = {}) {
  const headers = { Accept: "text/event-stream" };
  if (lastId) headers["Last-Event-ID"] = lastId;
  const response = await ask("GET", path, undefined, { headers, signal });
  if (response.status === 204) return;
  for await (const found of readEvents(response.body, onBytes)) {
    yield { ...found, data: JSON.parse(found.data) };
  }
}

async function ask(method, path, body, { headers, signal }) {
  const all = { ...headers };
  const isForm = body instanceof FormData; // its boundary is the browser's to set
  if (key.value) all.Authorization = `Bearer ${key.value}`;
  if (body !== undefined && !isForm) all["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: all,
      body: body === undefined || isForm ? body : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: UNREACHABLE, code: "unreachable" });
  }
  if (response.ok) return response;
  if (response.status === 401) isRefused.value = true;
  throw await errorOf(response);
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // Not this server's own answer: a proxy's page, for instance.
  }
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const fallback = { message: `The server answered ${response.status} ${response.statusText}`.trim() };
  return new ApiError(
    response.status,
    typeof error?.message === "string" ? error : fallback,
    response.headers.get("X-Job-Id"),
    retryAfter,
  );
}

/** Asks what the key may do; true if the server takes it. */
export async function checkKey() {
  try {
    caller.value = await get("/v1/whoami");
    isRefused.value = false;
    return true;
  } catch (error) {
    if (error.status !== 401 && error.status !== 0) throw error;
    return false;
  }
}
