// Models on disk, loads and unloads.
import { signal } from "../vendor/ui.js";
import { events, get, post, send, submit } from "./api.js";
import { inOrder } from "./in_order.js";
import { models } from "./live/store.js";
import { say, complain } from "./parts/toast.js";
import { bytes } from "./text/format.js";

/** What lies on disk: [{name, backend, contextLength, sizeBytes, …}]; null before it is read. */
export const diskModels = signal(null);

const sizes = new Map();
const beginDisk = inOrder();

/** Reads the list of models; sizes follow, one request per model where the list has none. */
export async function readDisk() {
  let found;
  const counts = beginDisk();
  try {
    found = await get("/v1/models");
  } catch (error) {
    if (error.status !== 401 && error.status !== 0) complain(error);
    return;
  }
  if (!counts()) return;
  const names = new Map();
  for (const entry of found.data) {
    // An entry per name: a loaded model and its aliases are one on disk.
    names.set(entry.model_name, { ...names.get(entry.model_name), ...fromEntry(entry) });
  }
  diskModels.value = [...names.values()].sort((a, b) => a.name.localeCompare(b.name));
  await readSizes();
}

function fromEntry(entry) {
  return {
    name: entry.model_name,
    backend: entry.backend,
    contextLength: entry.context_length,
    sizeBytes: entry.size_bytes ?? sizes.get(entry.model_name) ?? null,
    source: entry.source === "models" ? null : (entry.source ?? null),
    quantization: entry.quantization ?? null,
  };
}

async function readSizes() {
  for (const { name, sizeBytes } of diskModels.value) {
    if (sizeBytes !== null) continue;
    try {
      const info = await get(`/v1/internal/model/info/${encodeURIComponent(name)}`);
      sizes.set(name, info.file_size_bytes);
    } catch {
      sizes.set(name, 0); // gone meanwhile
    }
  }
  diskModels.value = diskModels.value.map((one) => ({ ...one, sizeBytes: one.sizeBytes ?? sizes.get(one.name) ?? null }));
}

/** The lowest number that no loaded model has as its id. */
export function freeId() {
  const taken = new Set(models.value.map((model) => model.id));
  let number = 0;
  while (taken.has(String(number))) number += 1;
  return String(number);
}

/** Loads a model in the background. Returns {id, name} at once; a failure is shown later. */
export async function loadModel(body, modelId = freeId()) {
  const job = await submit("/v1/internal/model/load", body, { "X-Model-Id": modelId });
  if (job) watch(job, `${body.llm_model_name} is ready`);
  return { id: modelId, name: body.llm_model_name };
}

/** Changes {pinned, parked, ttl, priority} of a loaded model. */
export async function changeModel(model, fields) {
  const found = await send("PATCH", "/v1/internal/model", fields, { headers: { "X-Model-Id": model.id } });
  const words = { pinned: found.pinned ? "is pinned" : "may be parked", parked: found.parked ? "is parked" : "starts" };
  say(`${model.name} ${words[Object.keys(fields)[0]] ?? "is changed"}`);
}

export async function unloadModel(model) {
  const job = await submit("/v1/internal/model/unload", {}, { "X-Model-Id": model.id });
  if (job) watch(job, `${model.name} is unloaded`);
}

/** Follows a load or unload, and says how it ended. */
async function watch(job, success) {
  try {
    for await (const { data } of events(`/v1/jobs/${encodeURIComponent(job)}/events`)) {
      if (data.kind === "failed") complain({ message: data.error?.message ?? "The load failed.", jobId: job });
      if (data.kind === "finished") say(success);
    }
  } catch (error) {
    if (error.status) complain(error);
  }
  await readDisk();
}

/** What a model needs with these options: {total_bytes, budget_bytes, fits, basis}; null if unknown. */
export async function estimate(body) {
  const query = new URLSearchParams(Object.entries(body).filter(([name]) => ESTIMATED.has(name)));
  try {
    return await get(`/v1/internal/model/estimate?${query}`);
  } catch (error) {
    if (error.status === 0 || error.status === 404) return null;
    throw error;
  }
}

const ESTIMATED = new Set("llm_model_name context_length slots gpu_layers adapter_name kv_bits kv_layout draft_model num_draft_tokens prompt_cache_bytes".split(" "));

/** A running download: {job, name, fraction}; one at a time is shown. */
export const pull = signal(null);

/** Downloads a model of the hub as a job, and follows it. Throws ApiError when it is refused. */
export async function pullModel(name) {
  const job = await submit("/v1/internal/model/pull", { model: name });
  pull.value = { job, name, fraction: 0 };
  try {
    for await (const { data } of events(`/v1/jobs/${encodeURIComponent(job)}/events`)) {
      if (data.kind === "progress") pull.value = { ...pull.value, fraction: data.fraction ?? 0 };
      if (data.kind === "failed") complain({ message: data.error?.message ?? "The download failed.", jobId: job });
      if (data.kind === "finished") say(`${name} is downloaded`);
    }
  } finally {
    pull.value = null;
  }
  await readDisk();
}

export async function removeModel(name) {
  const { freed_bytes: freed } = await post("/v1/internal/model/delete", { model: name });
  say(`${name} is removed${freed ? `, ${bytes(freed)} are free` : ""}`);
  await readDisk();
}

export const isLoadedName = (name) => models.value.some((model) => model.name === name);

/** The adapters folder: [{adapter_name, …}], empty where it cannot be read. */
export async function readAdapters() {
  try {
    const found = await get("/v1/internal/adapter/list");
    return found.adapters ?? found.data ?? found.adapter_names ?? [];
  } catch {
    return [];
  }
}

