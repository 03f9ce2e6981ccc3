// Compare: one prompt, two models, the same seed, both timed.
import { html, signal, useEffect } from "../../vendor/ui.js";
import { send, submit } from "../api.js";
import { follow } from "../chats/follow.js";
import { emptyReply, speedOf, thoughtMs } from "../chats/reply.js";
import { isOpen, readyModels } from "../live/store.js";
import { Copy, Empty, Failure, Hue, JobLink, Meter } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/toast.js";
import { to } from "../router.js";
import { count, hue, millis, rate } from "../text/format.js";
import { Markdown } from "../text/markdown.js";

const NAME = "mgs.compare";
const MOST_SEED = 2 ** 31 - 1;

/** What is asked, and each side's model and job; kept for this tab, so that a reload goes on. */
const state = signal(stored());
/** Each side's reply, while the page is open. */
const replies = signal([null, null]);
const followed = [null, null];

function stored() {
  const empty = { prompt: "", system: "", temperature: "", maxTokens: "", sides: [{ slug: null, job: null }, { slug: null, job: null }] };
  try {
    return { ...empty, ...JSON.parse(sessionStorage.getItem(NAME) ?? "{}") };
  } catch {
    return empty;
  }
}

function change(fields) {
  state.value = { ...state.value, ...fields };
  try {
    sessionStorage.setItem(NAME, JSON.stringify(state.value));
  } catch {
    // Storage is off: the comparison lasts as long as the page.
  }
}

const changeSide = (index, fields) => change({ sides: state.value.sides.map((side, i) => (i === index ? { ...side, ...fields } : side)) });

/** The model of a side: the chosen one, else the first and the second that are ready. */
function modelOf(index) {
  const list = readyModels.value;
  return list.find((one) => one.slug === state.value.sides[index].slug) ?? list[Math.min(index, list.length - 1)] ?? null;
}

export default function Compare() {
  useEffect(() => {
    for (const index of [0, 1]) resume(index);
  }, []);
  if (!readyModels.value.length && !state.value.sides.some((side) => side.job)) {
    return html`<div class="view"><${Empty} icon="compare" title="Compare two models"><p>Load at least one first; two loads of the same model can be compared, too. <a href=${to("models")}>Models</a></p><//></div>`;
  }
  return html`<div class="view compare">
    <${Question} />
    <div class="sides">${[0, 1].map((index) => html`<${Side} key=${index} index=${index} />`)}</div>
  </div>`;
}

function Question() {
  const { prompt, system, temperature, maxTokens, sides } = state.value;
  const isBusy = replies.value.some((reply) => reply && !isOver(reply));
  const swap = () => {
    change({ sides: [{ ...sides[1], slug: modelOf(1)?.slug ?? null }, { ...sides[0], slug: modelOf(0)?.slug ?? null }] });
    followed.reverse();
    replies.value = [...replies.value].reverse();
  };
  const ask = async (event) => {
    event.preventDefault();
    const seed = Math.floor(Math.random() * MOST_SEED);
    await Promise.all([0, 1].map((index) => attempt(() => start(index, seed))));
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && prompt.trim() && !isBusy) ask(event);
  };
  return html`<form class="question" onSubmit=${ask}>
    <label class="field">Prompt for both<textarea rows="3" value=${prompt} onInput=${(event) => change({ prompt: event.target.value })} onKeyDown=${onKeyDown}></textarea></label>
    <details><summary>System text and parameters</summary>
      <label class="field">System text<textarea rows="2" value=${system} onChange=${(event) => change({ system: event.target.value })}></textarea></label>
      <div class="pairs">
        <label class="field">Temperature<input type="number" min="0" max="2" step="0.1" placeholder="models'" value=${temperature} onChange=${(event) => change({ temperature: event.target.value })} /></label>
        <label class="field">Longest answer<input type="number" min="1" placeholder="tokens" value=${maxTokens} onChange=${(event) => change({ maxTokens: event.target.value })} /></label>
      </div>
    </details>
    <div class="actions">
      <button type="button" onClick=${swap}><${Icon} name="swap" size="16" />Swap sides</button>
      ${isBusy ? html`<button type="button" class="stop" onClick=${() => attempt(stopBoth)}><${Icon} name="stop" size="16" />Stop both</button>` : html`<button class="primary" disabled=${!prompt.trim() || !isOpen.value || !readyModels.value.length}>Ask both</button>`}
    </div>
  </form>`;
}

async function start(index, seed) {
  const model = modelOf(index);
  const { prompt, system, temperature, maxTokens } = state.value;
  const messages = [...(system.trim() ? [{ role: "system", content: system }] : []), { role: "user", content: prompt }];
  const body = { model: model.name, messages, stream: true, seed, ...(temperature !== "" && { temperature: Number(temperature) }), ...(maxTokens !== "" && { max_tokens: Number(maxTokens) }) };
  const job = await submit("/v1/chat/completions", body, { "X-Model-Id": model.id });
  changeSide(index, { job, slug: model.slug, name: model.name });
  resume(index);
}

async function stopBoth() {
  await Promise.all(state.value.sides.map(({ job }) => job && send("DELETE", `/v1/jobs/${encodeURIComponent(job)}`)));
}

const isOver = (reply) => ["done", "failed", "cancelled"].includes(reply.phase);

/** Follows a side's job; its reply is found again by its job, since sides can be swapped. */
async function resume(index) {
  const { job } = state.value.sides[index];
  if (!job || followed[index] === job) return;
  followed[index] = job;
  const reply = emptyReply();
  const show = () => {
    const at = state.value.sides.findIndex((side) => side.job === job);
    if (at >= 0) replies.value = replies.value.map((known, i) => (i === at ? { ...reply } : known));
  };
  show();
  let isPlanned = false;
  const onChange = () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      show();
    });
  };
  try {
    await follow(job, reply, { signal: new AbortController().signal, onChange });
  } catch (error) {
    Object.assign(reply, { phase: "failed", error });
  }
  show();
}

function Side({ index }) {
  const side = state.value.sides[index];
  const reply = replies.value[index];
  const model = modelOf(index);
  return html`<section class="side" aria-label=${index ? "Right side" : "Left side"}>
    <header>
      ${model && html`<${Hue} value=${hue(model.slug)} />`}
      <select aria-label=${index ? "Model of the right side" : "Model of the left side"} value=${model?.slug ?? ""} onChange=${(event) => changeSide(index, { slug: event.target.value })}>
        ${readyModels.value.map((one) => html`<option key=${one.slug} value=${one.slug}>${one.name} (id ${one.id})</option>`)}
      </select>
      <span class="grow"></span>
      ${reply?.content && html`<${Copy} text=${reply.content} what="answer" />`}
    </header>
    <div class="side-body" aria-busy=${Boolean(reply && !isOver(reply))}>
      ${reply === null && html`<p class="dim">The answer of ${model?.name ?? "the model"} comes here.</p>`}
      ${reply?.reasoning && html`<details class="thoughts"><summary>Thought ${millis(thoughtMs(reply))}</summary><${Markdown} text=${reply.reasoning} /></details>`}
      ${reply?.content && html`<${Markdown} text=${reply.content} />`}
      ${reply?.error && html`<${Failure} error=${reply.error} />`}
      ${reply?.phase === "prefill" && html`<p class="progress"><${Meter} fraction=${reply.fraction} label="Reading the prompt" />Reading</p>`}
    </div>
    ${reply && side.job && html`<footer class="stats"><${Figures} reply=${reply} /><${JobLink} id=${side.job}>job<//></footer>`}
  </section>`;
}

function Figures({ reply }) {
  const speed = speedOf(reply);
  const first = reply.timings?.ttft_ms ?? null;
  return html`
    <span class="num">${speed ? `${rate(speed)} tok/s` : "–"}</span>
    <span class="num" title="Time to the first token">${millis(first)}</span>
    <span class="num">${count(reply.usage?.completion_tokens ?? reply.numTokens)} tokens</span>
    ${reply.phase === "cancelled" && html`<span>stopped</span>`}
  `;
}
