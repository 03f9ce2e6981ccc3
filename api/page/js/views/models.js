// Models: what is loaded, with its worker; what lies on disk; loads and unloads.
import { html, useEffect, useState } from "../../vendor/ui.js";
import { send } from "../api.js";
import { mayManage, whyNoManagement } from "../keys.js";
import { isOpen, live, memoryBytes, memoryLimit, models, now } from "../live/store.js";
import { changeModel, diskModels, isLoadedName, pull, pullModel, readDisk, removeModel, unloadModel } from "../models.js";
import { Empty, Hue, Menu, Meter, Skeleton, State } from "../parts/basics.js";
import { confirm } from "../parts/dialog.js";
import { Icon } from "../parts/icons.js";
import { Spark } from "../parts/spark.js";
import { attempt } from "../parts/toast.js";
import { route, to } from "../router.js";
import { bytes, contextSize, count, duration, hue, percent, rate, short } from "../text/format.js";
import { LoadDialog } from "./load.js";

export default function Models() {
  const [toLoad, setToLoad] = useState(null);
  useEffect(() => {
    readDisk();
  }, [models.value.length]);
  useEffect(() => {
    const id = route.value.id;
    if (id) document.getElementById(`model-${id}`)?.scrollIntoView({ block: "center" });
  }, [route.value.id]);
  return html`<div class="view">
    <${Budget} />
    <section aria-labelledby="loaded-title">
      <div class="view-head"><h2 id="loaded-title">Loaded</h2></div>
      ${!models.value.length && (isOpen.value ? html`<p class="dim pad">No model is loaded.</p>` : html`<${Skeleton} lines="2" />`)}
      <ul class="cards">
        ${models.value.map((one) => html`<${Card} key=${one.slug} one=${one} />`)}
      </ul>
    </section>
    <section aria-labelledby="disk-title">
      <div class="view-head wrap">
        <h2 id="disk-title">On disk</h2>
        <button class="quiet small" onClick=${() => attempt(readDisk)}><${Icon} name="again" size="16" />Read again</button>
        <span class="grow"></span>
        <${Pull} />
      </div>
      <${Disk} onLoad=${setToLoad} />
    </section>
    ${toLoad && html`<${LoadDialog} model=${toLoad} onClose=${() => setToLoad(null)} />`}
  </div>`;
}

/** Each model's share of the machine's memory. */
function Budget() {
  const total = memoryLimit.value;
  if (!total) return null;
  return html`<section class="budget" aria-label="Memory">
    <p><strong class="num">${bytes(memoryBytes.value)}</strong> <span class="dim">of ${bytes(total)} ${live.value.budget_bytes ? "of the budget" : "of memory"} in use by models</span></p>
    <div class="stacked" aria-hidden="true">
      ${models.value.map((one) => html`<span key=${one.slug} title=${`${one.name}: ${bytes(one.memory_bytes)}`} style=${{ "--hue": hue(one.slug), width: `${((one.memory_bytes ?? 0) / total) * 100}%` }}></span>`)}
    </div>
  </section>`;
}

function Card({ one }) {
  const points = live.value.history[one.slug] ?? [];
  const queue = live.value.queues[one.slug];
  const isLoading = one.state === "loading" || one.state === "starting";
  const age = now.value - one.created_at;
  return html`<li class="card" id=${`model-${one.slug}`}>
    <header>
      <${Hue} value=${hue(one.slug)} />
      <h3>${one.name}</h3>
      <${State} name=${one.state} />
      <span class="grow"></span>
      <${Actions} one=${one} isLoading=${isLoading} />
    </header>
    ${isLoading &&
    html`<p class="loading-line">
      <${Meter} fraction=${one.fraction ?? 0} label=${`Loading ${one.name}`} />
      <span class="num">${percent(one.fraction)}</span><span class="num dim">${duration(age)}</span>
    </p>`}
    ${one.error && html`<p class="problem" role="alert">${one.error.message}</p>`}
    ${one.state === "parked" && html`<p class="dim">Parked: its memory is free, and the next request starts it again.</p>`}
    ${one.state === "ready" &&
    html`<dl class="facts">
      <${Fact} name="Memory" value=${bytes(one.memory_bytes)} extra=${one.prompt_cache_bytes ? `${bytes(one.prompt_cache_bytes)} kept prompts` : null} />
      <${Fact} name="Slots" value=${`${one.sequences ?? 0} of ${one.slots ?? 0}`} />
      <${Fact} name="Queue" value=${html`<a href=${to("queue", one.slug)}>${count(one.running)} running, ${count(queue?.waiting)} waiting</a>`} />
      <${Fact} name="Context" value=${`${contextSize(one.context_length ?? 0)} tokens`} />
      <${Fact} name="First token" value=${one.ttft_ms ? `${Math.round(one.ttft_ms)} ms` : "–"} />
      <${Fact} name="Speed" value=${html`<span class="with-spark">${rate(one.decode_rate)} tok/s <${Spark} points=${points} column=${1} hue=${hue(one.slug)} label="Tokens per second, last minute" /></span>`} />
    </dl>`}
    <p class="small-print">${[`id ${one.id}`, one.backend, one.architecture, one.quantization, one.num_parameters && `${short(one.num_parameters)} parameters`, one.node, one.pinned && "pinned", one.ttl_s && `parked after ${duration(one.ttl_s)} without a job`].filter(Boolean).join(" · ")}</p>
  </li>`;
}

function Fact({ name, value, extra = null }) {
  return html`<div><dt>${name}</dt><dd class="num">${value}${extra && html`<span class="dim extra">${extra}</span>`}</dd></div>`;
}

function Actions({ one, isLoading }) {
  const unload = () => attempt(() => unloadModel(one));
  const word = isLoading ? "Cancel" : "Unload";
  return html`
    ${one.state === "ready" && html`<a class="button small" href=${to("chat", null, { model: one.id })} aria-label=${`Chat with ${one.name}`}>Chat</a>`}
    <${Menu} label=${`Pin or park ${one.name}`} items=${residencyItems(one)} />
    <button class="small" disabled=${!mayManage.value || !isOpen.value || one.state === "stopping"} title=${whyNoManagement.value ?? ""} aria-label=${`${word} ${one.name}`} onClick=${unload}>${word}</button>
  `;
}

/** Pin and park, which the server's planner heeds from then on. */
function residencyItems(one) {
  const why = whyNoManagement.value;
  const change = (fields) => () => attempt(() => changeModel(one, fields));
  return [
    one.pinned ? { text: "Unpin", icon: "pin", run: change({ pinned: false }), why } : { text: "Pin: never park it", icon: "pin", run: change({ pinned: true }), why },
    one.state === "parked" ? { text: "Start it", icon: "play", run: change({ parked: false }), why } : { text: "Park it now", icon: "stop", run: change({ parked: true }), why },
  ];
}

/** Downloads a model of the hub; shows the one that runs. */
function Pull() {
  const [name, setName] = useState("");
  const running = pull.value;
  if (running) {
    return html`<span class="pull"><a href=${to("job", running.job)}>${running.name}</a><${Meter} fraction=${running.fraction} label=${`Downloading ${running.name}`} /><span class="num">${percent(running.fraction)}</span>
      <button class="small" aria-label=${`Cancel the download of ${running.name}`} onClick=${() => attempt(() => send("DELETE", `/v1/jobs/${encodeURIComponent(running.job)}`))}>Cancel</button></span>`;
  }
  const onSubmit = (event) => {
    event.preventDefault();
    attempt(() => pullModel(name.trim())).then(() => setName(""));
  };
  return html`<form class="pull" onSubmit=${onSubmit}>
    <input aria-label="Model to download" placeholder="publisher/model" value=${name} onInput=${(event) => setName(event.target.value)} disabled=${!mayManage.value} />
    <button class="small" disabled=${!name.trim() || !isOpen.value} title=${whyNoManagement.value ?? ""}><${Icon} name="download" size="16" />Download</button>
  </form>`;
}

async function remove(one) {
  const isSure = await confirm({ title: "Remove from disk", text: `${one.name}${one.sizeBytes ? ` (${bytes(one.sizeBytes)})` : ""} is removed from the server's models folder.`, yes: "Remove" });
  if (isSure) await attempt(() => removeModel(one.name));
}

function Disk({ onLoad }) {
  const list = diskModels.value;
  if (list === null) return html`<${Skeleton} lines="4" />`;
  if (!list.length) {
    return html`<${Empty} icon="models" title="The models folder is empty"><p>Put a folder in MLX format or a .gguf file there, and read again.</p><//>`;
  }
  return html`<table class="rows">
    <thead><tr><th scope="col">Model</th><th scope="col" class="wide">Format</th><th scope="col" class="to-right">Size</th><th scope="col" class="to-right wide">Context</th><th scope="col"><span class="offscreen">Actions</span></th></tr></thead>
    <tbody>
      ${list.map(
        (one) => html`<tr key=${one.name}>
          <th scope="row">${one.name}${isLoadedName(one.name) ? html` <span class="tag">loaded</span>` : null}${one.source ? html` <span class="dim">${one.source}</span>` : null}</th>
          <td class="wide">${one.backend}</td>
          <td class="num to-right">${one.sizeBytes === null ? "…" : one.sizeBytes ? bytes(one.sizeBytes) : "–"}</td>
          <td class="num to-right wide">${one.contextLength ? contextSize(one.contextLength) : "–"}</td>
          <td class="to-right"><button class="small" disabled=${!mayManage.value || !isOpen.value} title=${whyNoManagement.value ?? ""} aria-label=${`Load ${one.name}`} onClick=${() => onLoad(one)}>Load…</button>
            <${Menu} label=${`More for ${one.name}`} items=${[{ text: "Remove from disk", icon: "trash", isDanger: true, run: () => remove(one), why: whyNoManagement.value ?? (isLoadedName(one.name) ? "It is loaded." : null) }]} /></td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

