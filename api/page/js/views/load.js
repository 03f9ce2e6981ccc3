// The dialog of a load: one click for the defaults, the options below.
import { html, useEffect, useState } from "../../vendor/ui.js";
import { Failure } from "../parts/basics.js";
import { Dialog } from "../parts/dialog.js";
import { estimate, freeId, loadModel, readAdapters } from "../models.js";
import { bytes, contextSize } from "../text/format.js";

const NUMBERS = new Set(["context_length", "slots", "threads", "gpu_layers", "kv_bits", "num_draft_tokens", "prompt_cache_bytes", "max_tokens", "temperature", "top_p", "ttl"]);

export function LoadDialog({ model, onClose }) {
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const [adapters, setAdapters] = useState([]);
  const [options, setOptions] = useState({});
  useEffect(() => {
    readAdapters().then(setAdapters);
  }, []);
  const onSubmit = async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    setBusy(true);
    setError(null);
    try {
      await loadModel({ llm_model_name: model.name, ...optionsOf(data) }, data.get("model_id"));
      onClose();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  const isGguf = model.backend === "llama-cpp";
  return html`<${Dialog} title=${`Load ${model.name}`} onClose=${onClose}>
    <form class="stack" onSubmit=${onSubmit} onChange=${(event) => setOptions(optionsOf(new FormData(event.currentTarget)))}>
      <p class="dim">${[model.backend, model.quantization, model.sizeBytes && bytes(model.sizeBytes), model.contextLength && `trained for ${contextSize(model.contextLength)} tokens`].filter(Boolean).join(" · ")}</p>
      <div class="pairs">
        <${Field} name="model_id" label="Model id" value=${freeId()} required=${true} hint="what clients send as X-Model-Id" />
        <${Field} name="context_length" label="Context in tokens" placeholder="default" type="number" min="1" max=${model.contextLength ?? undefined} />
        <${Field} name="slots" label="Slots" placeholder="8" type="number" min="1" max="256" hint="answers at once" />
      </div>
      <details>
        <summary>More options</summary>
        <div class="pairs">
          ${isGguf && html`<${Field} name="gpu_layers" label="Layers on the GPU" placeholder="all" type="number" min="0" />`}
          ${isGguf && html`<${Field} name="threads" label="Threads" placeholder="free cores" type="number" min="1" />`}
          ${isGguf && html`<${Field} name="chat_format" label="Chat format" placeholder="the model's own" />`}
          ${isGguf && html`<${Choice} name="kv_layout" label="KV layout" options=${["unified", "per_slot"]} />`}
          <${Choice} name="kv_bits" label="Bits of the KV cache" options=${["4", "8"]} />
          <${Field} name="draft_model" label="Draft model" placeholder="none" />
          <${Field} name="num_draft_tokens" label="Drafted tokens" placeholder="none" type="number" min="1" max="64" />
          <${Field} name="prompt_cache_bytes" label="Prompt cache in bytes" placeholder="default" type="number" min="0" />
          ${adapters.length > 0 && html`<${Choice} name="adapter_name" label="Adapter" options=${adapters.map((one) => one.name)} />`}
          <${Field} name="temperature" label="Default temperature" placeholder="1" type="number" min="0" max="2" step="0.1" />
          <${Field} name="top_p" label="Default top p" placeholder="1" type="number" min="0" max="1" step="0.05" />
          <${Field} name="ttl" label="Park after idle seconds" placeholder="when memory is needed" type="number" min="0" />
          <${Field} name="max_tokens" label="Default longest answer" placeholder="none" type="number" min="1" />
        </div>
        <label class="check"><input type="checkbox" name="pinned" />Never park it</label>
        ${!isGguf && html`<label class="check"><input type="checkbox" name="trust_remote_code" />Run Python code of the model's folder</label>`}
      </details>
      <${Needs} name=${model.name} options=${options} />
      ${error && html`<${Failure} error=${error} />`}
      <div class="actions">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button class="primary" disabled=${isBusy}>Load</button>
      </div>
    </form>
  <//>`;
}

/** What the model would need in memory with these options, and whether it fits. */
function Needs({ name, options }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    estimate({ llm_model_name: name, ...options }).then(
      (answer) => isCurrent && setFound(answer),
      () => isCurrent && setFound(null), // the load says what is wrong
    );
    return () => {
      isCurrent = false;
    };
  }, [name, JSON.stringify(options)]);
  if (!found?.total_bytes) return null;
  const limit = found.budget_bytes;
  return html`<p role="status" class=${found.fits === false ? "problem" : "dim"}>
    Needs about <strong class="num">${bytes(found.total_bytes)}</strong>${limit ? ` of the budget of ${bytes(limit)}` : ""}${found.fits === false ? ": it does not fit." : "."}
  </p>`;
}

function Field({ name, label, hint = null, type = "text", ...rest }) {
  return html`<label class="field">${label}<input name=${name} type=${type} step=${type === "number" ? "any" : undefined} title=${hint ?? name} ...${rest} /></label>`;
}

function Choice({ name, label, options }) {
  return html`<label class="field">${label}
    <select name=${name}><option value="">default</option>${options.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>
  </label>`;
}

function optionsOf(data) {
  const found = {};
  for (const [name, value] of data) {
    if (name === "model_id" || value === "") continue;
    found[name] = name === "trust_remote_code" || name === "pinned" ? true : NUMBERS.has(name) ? Number(value) : value;
  }
  return found;
}
