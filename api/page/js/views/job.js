// One job: facts, timeline, what it wrote, and its events, live or replayed at their own pace.
import { html, useEffect, useRef, useState } from "../../vendor/ui.js";
import { events, get, send } from "../api.js";
import { addEvent, emptyReply } from "../chats/reply.js";
import { inOrder } from "../in_order.js";
import { isOpen, live, modelOf, now } from "../live/store.js";
import { Copy, Failure, JobLink, Skeleton, State } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/toast.js";
import { route, to } from "../router.js";
import { clock, count, duration, millis, percent, rate, shortId } from "../text/format.js";
import { Code, Markdown } from "../text/markdown.js";

const MOST_EVENTS = 20_000;
const MOST_ROWS = 200;
const READ_EVERY_MS = 2000; // of a job that has not ended: its place, and what it waits for
const ENDED = new Set(["finished", "failed", "cancelled"]);

export default function Job() {
  const { id } = route.value;
  return html`<div class="view job">${id ? html`<${JobOf} key=${id} id=${id} />` : html`<p>Which job? <a href=${to("queue", null, { show: "all" })}>All jobs</a></p>`}</div>`;
}

function JobOf({ id }) {
  const [job, setJob] = useState(null);
  const [error, setError] = useState(null);
  const log = useEvents(id);
  const isEnded = log.isOver || ENDED.has(job?.status);
  const isKnown = useRef(false);
  const begin = useRef(inOrder()).current;
  const read = async () => {
    const counts = begin();
    try {
      const found = await get(`/v1/jobs/${encodeURIComponent(id)}`);
      if (!counts()) return;
      setJob(found);
      isKnown.current = true;
      setError(null);
    } catch (failure) {
      if (counts() && (!isKnown.current || !failure.isTransient)) setError(failure); // else what was read stays
    }
  };
  useEffect(() => {
    read();
    if (isEnded) return undefined;
    const timer = setInterval(() => !document.hidden && isOpen.peek() && read(), READ_EVERY_MS);
    return () => clearInterval(timer);
  }, [id, isEnded]);
  if (error) return html`<${Failure} error=${error} onRetry=${read} />`;
  if (job === null) return html`<${Skeleton} lines="6" />`;
  const cancel = () => attempt(async () => {
    const counts = begin();
    const found = await send("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
    if (counts()) setJob(found);
  });
  return html`
    <div class="view-head wrap">
      <h2 class="job-title"><code>${id}</code></h2><${Copy} text=${id} what="job id" />
      <${State} name=${job.status} />
      <span class="grow"></span>
      ${!isEnded && html`<button class="small" disabled=${!isOpen.value} onClick=${cancel}>Cancel job</button>`}
    </div>
    ${job.error && html`<${Failure} error=${job.error} />`}
    ${job.cancel_reason && html`<p class="dim">${job.cancel_reason}</p>`}
    <${Facts} job=${job} events=${log.events} />
    <${Timeline} job=${job} events=${log.events} />
    <${Replay} log=${log} isEnded=${isEnded} result=${job.result} />
  `;
}

/** All events so far, and those to come; a broken connection is opened again. */
function useEvents(id) {
  const [state, setState] = useState({ events: [], isOver: false });
  useEffect(() => {
    const abort = new AbortController();
    const found = [];
    let isPlanned = false;
    const show = (isOver) => {
      if (isOver) return setState({ events: [...found], isOver });
      if (isPlanned) return undefined;
      isPlanned = true;
      return requestAnimationFrame(() => {
        isPlanned = false;
        setState((known) => (known.isOver ? known : { events: [...found], isOver: false }));
      });
    };
    const run = async () => {
      while (!abort.signal.aborted) {
        try {
          const options = { signal: abort.signal, lastId: found.at(-1)?.id ?? null };
          for await (const { id: eventId, data } of events(`/v1/jobs/${encodeURIComponent(id)}/events`, options)) {
            if (found.length < MOST_EVENTS || ENDED.has(data.kind)) found.push({ id: eventId, event: data });
            if (ENDED.has(data.kind)) return show(true);
            show(false);
          }
          if (found.length && ENDED.has(found.at(-1).event.kind)) return show(true);
        } catch (error) {
          if (error.status && error.status < 500) return show(true);
        }
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
      return undefined;
    };
    run();
    return () => abort.abort();
  }, [id]);
  return state;
}

function Facts({ job, events: list }) {
  const last = list.at(-1)?.event ?? {};
  const row = live.value.jobs[job.id];
  const age = (job.ended_at ?? now.value) - job.created_at;
  const facts = [
    ["Task", row?.api ? `${job.task} (${row.api})` : job.task],
    ["Model", html`<a href=${to("queue", modelOf(job.model_id)?.slug ?? null)}>${modelOf(job.model_id)?.name ?? job.model_id}</a>`],
    ["Made", clock(job.created_at)],
    [job.ended_at ? "Took" : "Age", duration(age)],
    ...placeOf(job),
    job.attempt > 1 && ["Attempt", String(job.attempt)],
    job.yields > 0 && ["Gave way", `${count(job.yields)}×`],
    job.deadline_at && ["Deadline", job.ended_at ? clock(job.deadline_at) : `${clock(job.deadline_at)}, in ${duration(job.deadline_at - now.value)}`],
    job.key && ["Key", job.key],
    job.batch && ["Batch", html`<a href=${to("batches")}>${shortId(job.batch)}</a>${job.line === null ? "" : `, line ${count(job.line)}`}`],
    job.retry_of && ["Repeats", html`<${JobLink} id=${job.retry_of} />`],
    last.usage && ["Prompt", `${count(last.usage.prompt_tokens ?? 0)} tokens${last.usage.cached_tokens ? `, ${count(last.usage.cached_tokens)} cached` : ""}`],
    last.usage && ["Answer", `${count(last.usage.completion_tokens ?? 0)} tokens`],
    last.timings && ["Speed", `${rate(last.timings.decode_tokens_per_s)} tok/s`],
    last.timings && ["First token", millis(last.timings.ttft_ms)],
    ["Background", job.background ? "yes" : "no"],
  ].filter(Boolean);
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="num">${value}</dd></div>`)}</dl>`;
}

/** Its class and priority; while it waits, its place among others and what it waits for. */
function placeOf({ queue, wait, status }) {
  if (!queue) return [];
  const { position, ahead, estimated_start_s: start } = queue;
  const isWaiting = status === "queued";
  return [
    ["Class", queue.class],
    ["Priority", String(queue.priority)],
    isWaiting && position !== null && ["Place", `${count(position)}${ahead === null ? "" : `, ${count(ahead)} before it`}`],
    isWaiting && start !== null && ["Starts", `in about ${duration(start)}`],
    isWaiting && wait && ["Waits for", waitWords(wait)],
  ];
}

function waitWords({ phase, fraction }) {
  if (phase === "loading") return `its model${fraction ? `, ${percent(fraction)} loaded` : ""}`;
  return phase === "waiting" ? "memory for its model" : "a slot";
}

/** Waiting, reading the prompt and writing, as parts of one bar. */
function Timeline({ job, events: list }) {
  const started = list.find((one) => one.event.kind === "started")?.event.t ?? job.started_at;
  const first = list.find((one) => one.event.kind === "chunk")?.event.t;
  const end = job.ended_at ?? (ENDED.has(job.status) ? list.at(-1)?.event.t : now.value) ?? now.value;
  const marks = [
    ["waiting", "wait", job.created_at, started ?? end],
    ["prompt", "read", started, first ?? end],
    ["answer", "run", first, end],
  ].filter(([, , from]) => from);
  const total = Math.max(0.001, end - job.created_at);
  return html`<section class="timeline" aria-label="Timeline">
    <div class="timeline-bar" aria-hidden="true">
      ${marks.map(([name, kind, from, until]) => html`<span key=${name} class=${`is-${kind}`} style=${{ flexGrow: Math.max(0, until - from) / total }}></span>`)}
    </div>
    <ul>${marks.map(([name, kind, from, until]) => html`<li key=${name}><span class=${`key-mark is-${kind}`} aria-hidden="true"></span>${name} <span class="num">${millis(Math.max(0, until - from) * 1000)}</span></li>`)}</ul>
  </section>`;
}

function Replay({ log, isEnded, result }) {
  const [speed, setSpeed] = useState(0);
  const shown = usePaced(log.events, speed);
  const reply = emptyReply();
  for (const { id, event } of shown) addEvent(reply, id, event);
  const rows = shown.slice(-MOST_ROWS);
  return html`
    <section aria-labelledby="answer-title">
      <div class="view-head wrap">
        <h2 id="answer-title">Answer</h2>
        <span class="grow"></span>
        ${isEnded &&
        log.events.length > 1 &&
        html`<div class="tabs" role="group" aria-label="Replay">
          ${[[0, "Whole"], [1, "Replay"], [10, "10×"]].map(([value, text]) => html`<button key=${value} aria-pressed=${speed === value} onClick=${() => setSpeed(value)}>${value ? html`<${Icon} name="play" size="14" />` : null}${text}</button>`)}
        </div>`}
      </div>
      ${reply.reasoning && html`<details class="thoughts"><summary>Thoughts</summary><${Markdown} text=${reply.reasoning} /></details>`}
      ${reply.content && html`<div class="paper"><${Markdown} text=${reply.content} /></div>`}
      ${reply.toolCalls.map((call, index) => html`<${Code} key=${index} text=${call.arguments} language="json" label=${call.name} />`)}
      ${!reply.content && !reply.toolCalls.length && result && html`<${Code} text=${JSON.stringify(result, null, 2)} language="json" label="result" />`}
      ${!reply.content && !result && html`<p class="dim">${isEnded ? "It wrote nothing." : "Nothing yet."}</p>`}
    </section>
    <details class="events">
      <summary>${count(log.events.length)} events</summary>
      <ol>
        ${rows.map(({ id, event }) => html`<li key=${id}><code>${id}</code><span class="num">${clock(event.t)}</span><span>${event.kind}</span><span class="dim">${summary(event)}</span></li>`)}
      </ol>
    </details>
  `;
}

function summary(event) {
  if (event.kind === "chunk") return (event.reasoning || event.text || event.tool_calls?.map((call) => call.name || call.arguments).join("") || "").slice(0, 80);
  if (event.kind === "progress") return `${event.phase} ${Math.round((event.fraction ?? 0) * 100)} %`;
  return event.error?.message ?? "";
}

/** The events up to where the replay is; all of them at speed 0. */
function usePaced(list, speed) {
  const [num, setNum] = useState(0);
  const begun = useRef(0);
  useEffect(() => {
    if (!speed || !list.length) return undefined;
    begun.current = performance.now();
    setNum(0);
    const first = list[0].event.t;
    let frame = 0;
    const step = () => {
      const at = first + ((performance.now() - begun.current) / 1000) * speed;
      const reached = list.findIndex((one) => one.event.t > at);
      setNum(reached < 0 ? list.length : reached);
      if (reached >= 0) frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [speed, list.length]);
  return speed ? list.slice(0, num) : list;
}
