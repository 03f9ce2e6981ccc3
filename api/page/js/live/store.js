// What the page knows of models, queues and jobs: signals, fed by the shared worker.
import { batch, computed, effect, signal } from "../../vendor/ui.js";
import { isRefused, key } from "../keys.js";
import { LiveConnection } from "./connection.js";
import { EMPTY, reduce, withPoint } from "./state.js";

const SAY_EVERY_S = 5;

/** The feed's state: models and queues by slug, jobs by id. */
export const live = signal(EMPTY);
/** "connecting", "open", "redis" (the server has lost it), "away" or "refused". */
export const connection = signal("connecting");
/** When the last frame came, in ms: how old the shown data is. */
export const heardAt = signal(0);
/** Now, in seconds; changes once a second, so that ages tick. */
export const now = signal(Date.now() / 1000);
/** Set once the server serves another version of the page. */
export const isOutdated = signal(false);

export const models = computed(() => Object.entries(live.value.models).map(([slug, model]) => ({ slug, ...model })));
export const readyModels = computed(() => models.value.filter((model) => model.state === "ready"));
export const isOpen = computed(() => connection.value === "open");
export const numWaiting = computed(() => sum(Object.values(live.value.queues), (queue) => queue.waiting));
export const numRunning = computed(() => sum(models.value, (model) => model.running ?? 0));
/** The memory for all models: the budget where one is set, else what the machine has. */
export const memoryLimit = computed(() => live.value.budget_bytes ?? live.value.memory_total_bytes);
export const memoryBytes = computed(() => sum(models.value, (model) => model.memory_bytes ?? 0));

const sum = (items, value) => items.reduce((total, item) => total + value(item), 0);

/** The model with that model_id. */
export function modelOf(id) {
  return models.value.find((model) => model.id === id) ?? null;
}

const ownBuild = new URL(import.meta.url).pathname.split("/")[3];

function take(frame) {
  batch(() => {
    if (frame.event === "status") connection.value = frame.data.status;
    else if (frame.event === "lost") connection.value = frame.data.what;
    else {
      live.value = reduce(live.value, frame);
      connection.value = "open";
      heardAt.value = Date.now();
      isOutdated.value = live.value.build !== ownBuild;
    }
    if (frame.data.status === "refused") isRefused.value = true;
  });
}

/** Starts following the feed; call it once. */
export function startLive() {
  let talk = null;
  effect(() => {
    talk?.(false);
    talk = isRefused.value ? null : talker(key.value);
    talk?.(!document.hidden);
  });
  document.addEventListener("visibilitychange", () => talk?.(!document.hidden));
  addEventListener("pagehide", () => talk?.(false));
  addEventListener("pageshow", () => talk?.(!document.hidden));
  let seconds = 0;
  setInterval(() => {
    seconds += 1;
    if (!document.hidden && seconds % SAY_EVERY_S === 0) talk?.(true);
    tick();
  }, 1000);
}

function tick() {
  now.value = Date.now() / 1000;
  if (connection.value === "open") live.value = withPoint(live.value, now.value);
}

/** A function that says whether this tab is visible, to what keeps the connection. */
function talker(currentKey) {
  if (!globalThis.SharedWorker) return ownConnection(currentKey);
  const url = new URL("./worker.js", import.meta.url).href;
  const worker = new SharedWorker(trusted(url), { type: "module", name: `live-${hashed(currentKey)}` });
  worker.port.onmessage = ({ data }) => take(data);
  worker.onerror = () => {
    connection.value = "away";
  };
  return (isVisible) => worker.port.postMessage({ key: currentKey, isVisible });
}

/** Browsers without shared workers: a connection per visible tab. */
function ownConnection(currentKey) {
  const own = new LiveConnection(currentKey, take);
  return (isVisible) => (isVisible ? own.open() : own.close());
}

/** The worker's own address is the only one that the page's policy lets through. */
function trusted(url) {
  policy ??= globalThis.trustedTypes?.createPolicy("mgs-worker", {
    createScriptURL: (given) => {
      if (given !== new URL("./worker.js", import.meta.url).href) throw new TypeError("not the worker");
      return given;
    },
  });
  return policy ? policy.createScriptURL(url) : url;
}

let policy = null;

/** Tabs with the same key share a worker. */
function hashed(text) {
  let hash = 5381;
  for (const char of text) hash = ((hash * 33) ^ char.codePointAt(0)) >>> 0;
  return hash.toString(36);
}
