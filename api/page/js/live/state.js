// The live feed's state and how frames change it. Used by the tabs and by the shared worker.

const NUM_POINTS = 600;

export const EMPTY = {
  build: null,
  t: 0,
  memory_total_bytes: 0,
  supervisors: 0,
  budget_bytes: null,
  models: {},
  queues: {},
  batch_queues: {},
  jobs: {},
  history: {},
};

/** The state after a frame; objects that do not change stay the same objects. */
export function reduce(state, { event, data }) {
  if (event === "snapshot") return { ...EMPTY, ...data };
  if (event === "delta") return changed(state, data);
  return state;
}

function changed(state, delta) {
  const models = merged(state.models, delta.models, delta.models_gone);
  return {
    ...state,
    t: delta.t,
    supervisors: delta.supervisors ?? state.supervisors,
    budget_bytes: delta.budget_bytes === undefined ? state.budget_bytes : delta.budget_bytes,
    models,
    jobs: merged(state.jobs, delta.jobs, delta.jobs_gone),
    queues: movedQueues(state.queues, delta.queues, delta.models_gone),
    batch_queues: movedQueues(state.batch_queues, delta.batch_queues, delta.models_gone),
  };
}

function merged(old, changes, gone) {
  if (!changes && !gone) return old;
  const found = { ...old };
  for (const [id, fields] of Object.entries(changes ?? {})) found[id] = { ...found[id], ...fields };
  for (const id of gone ?? []) delete found[id];
  return found;
}

function movedQueues(old, changes, gone) {
  if (!changes && !gone) return old;
  const found = { ...old };
  for (const [slug, change] of Object.entries(changes ?? {})) {
    const order = found[slug]?.order ?? [];
    found[slug] = { waiting: change.waiting, order: moved(order, change) };
  }
  for (const slug of gone ?? []) delete found[slug];
  return found;
}

function moved(order, { order: whole, drop, add }) {
  if (whole) return whole;
  return drop === undefined ? order : [...order.slice(drop), ...add];
}

/** Adds a point per model and second: the feed is silent while nothing changes. */
export function withPoint(state, seconds) {
  const history = {};
  for (const [slug, model] of Object.entries(state.models)) {
    const points = state.history[slug] ?? [];
    const last = points.at(-1);
    history[slug] =
      last && seconds - last[0] < 0.9
        ? points
        : [...points.slice(-NUM_POINTS + 1), point(state, slug, model, seconds)];
  }
  return { ...state, history };
}

function point(state, slug, model, seconds) {
  return [
    seconds,
    model.decode_rate ?? 0,
    model.prefill_rate ?? 0,
    model.ttft_ms ?? null,
    state.queues[slug]?.waiting ?? 0,
    model.running ?? 0,
    model.memory_bytes ?? 0,
    model.cached_share ?? null,
  ];
}
