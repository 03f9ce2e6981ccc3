// Queues: per model what runs and what waits, live; and all jobs, by pages.
import { html, useEffect, useMemo, useRef, useState } from "../../vendor/ui.js";
import { get, send } from "../api.js";
import { inOrder } from "../in_order.js";
import { whyNoManagement } from "../keys.js";
import { isOpen, live, modelOf, models, now } from "../live/store.js";
import { Empty, Failure, Hue, JobLink, Menu, Meter, Skeleton, State } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { attempt, say } from "../parts/toast.js";
import { go, replace, route, to } from "../router.js";
import { clock, count, duration, hue, rate, short, shortId } from "../text/format.js";
import { PurgeDialog } from "./purge.js";
import { Held, holdItems, QueueTabs } from "./queue_parts.js";

const SUMMARY_EVERY_MS = 10_000;
const PAGE = 50;
const FIRST_SHOWN = 20;

export default function Queue() {
  const { query, id } = route.value;
  const isHistory = query.show === "all";
  return html`<div class="view">
    <div class="view-head wrap">
      <${QueueTabs} shown=${isHistory ? "all" : "live"} />
      <span class="grow"></span>
      <${Find} />
    </div>
    ${isHistory ? html`<${AllJobs} />` : html`<${Lanes} only=${id} />`}
  </div>`;
}

function Find() {
  const onSubmit = (event) => {
    event.preventDefault();
    const id = String(new FormData(event.target).get("id")).trim();
    const known = Object.keys(live.value.jobs).find((one) => one === id || one.endsWith(id));
    if (id) go("job", known ?? id);
  };
  return html`<form class="search" role="search" onSubmit=${onSubmit}>
    <${Icon} name="search" size="16" /><input name="id" type="search" placeholder="Find a job by its id" aria-label="Find a job by its id" />
  </form>`;
}

function Lanes({ only }) {
  const [toPurge, setToPurge] = useState(null);
  const jobs = live.value.jobs;
  const shown = models.value.filter((one) => only === null || one.slug === only);
  const lanes = useMemo(() => bySlug(jobs), [jobs]);
  if (!models.value.length) {
    if (!isOpen.value) return html`<${Skeleton} lines="6" />`;
    return html`<${Empty} icon="queue" title="No queue"><p>A queue appears with each loaded model. <a href=${to("models")}>Models</a></p><//>`;
  }
  return html`
    ${shown.map((one) => html`<${Lane} key=${one.slug} model=${one} running=${lanes.get(one.slug) ?? []} onPurge=${() => setToPurge(one)} />`)}
    ${only !== null && html`<p><a href=${to("queue")}>All queues</a></p>`}
    <${Summary} />
    ${toPurge && html`<${PurgeDialog} model=${toPurge} onClose=${() => setToPurge(null)} />`}
  `;
}

/** Running jobs by model, the oldest first. */
function bySlug(jobs) {
  const found = new Map();
  for (const job of Object.values(jobs)) {
    if (!job.phase) continue;
    if (!found.has(job.model)) found.set(job.model, []);
    found.get(job.model).push(job);
  }
  for (const list of found.values()) list.sort((a, b) => a.created_at - b.created_at);
  return found;
}

function Lane({ model, running, onPurge }) {
  const queue = live.value.queues[model.slug] ?? { waiting: 0, order: [] };
  const batch = live.value.batch_queues[model.slug] ?? { waiting: 0, order: [] };
  const [numShown, setNumShown] = useState(FIRST_SHOWN);
  const order = queue.order.slice(0, numShown);
  const isIdle = !running.length && !queue.waiting && !batch.waiting;
  const more = Math.min(queue.order.length, 100) - order.length;
  const each = secondsAPlace(model, running);
  return html`<section class="lane" aria-labelledby=${`lane-${model.slug}`}>
    <header>
      <${Hue} value=${hue(model.slug)} />
      <h2 id=${`lane-${model.slug}`}><a href=${to("models", model.slug)}>${model.name}</a></h2>
      ${model.state !== "ready" && html`<${State} name=${model.state} />`}
      <span class="num dim">${isIdle ? "idle" : `${count(model.running)} running · ${count(queue.waiting)} waiting${batch.waiting ? ` · ${count(batch.waiting)} batch` : ""}`}</span>
      <${Held} model=${model} />
      <span class="grow"></span>
      ${model.decode_rate ? html`<span class="num">${rate(model.decode_rate)} <span class="dim">tok/s</span></span>` : null}
      <${Menu} label=${`Actions for the queue of ${model.name}`} items=${[
        ...holdItems(model, whyNoManagement.value),
        { text: "Purge old jobs…", icon: "trash", isDanger: true, run: onPurge, why: whyNoManagement.value },
        { text: "All jobs of this model", icon: "table", run: () => go("queue", null, { show: "all", model: model.id }) },
      ]} />
    </header>
    ${!isIdle &&
    html`<table class="rows jobs">
      <caption class="offscreen">Jobs of ${model.name}</caption>
      <colgroup><col class="place" /><col class="name" /><col /><col class="key wide" /><col class="age" /><col class="end" /></colgroup>
      <thead class="offscreen-head"><tr><th scope="col">Place</th><th scope="col">Job</th><th scope="col">Progress</th><th scope="col" class="wide">Key</th><th scope="col">Age</th><th scope="col">Actions</th></tr></thead>
      <tbody>
        ${running.map((job) => html`<${RunningRow} key=${job.id} job=${job} />`)}
        ${order.map((id, index) => html`<${WaitingRow} key=${id} job=${live.value.jobs[id]} place=${index + 1} wait=${each && duration(each * (index + 1))} />`)}
        ${batch.order.length > 0 && html`<tr class="class-row"><th colspan="6" scope="rowgroup">Batch: when nobody waits above</th></tr>`}
        ${batch.order.map((id, index) => html`<${WaitingRow} key=${id} job=${live.value.jobs[id]} place=${index + 1} wait=${null} />`)}
      </tbody>
    </table>`}
    ${more > 0 && html`<button class="quiet small" onClick=${() => setNumShown(numShown + 80)}>${count(more)} more</button>`}
    ${queue.waiting > 100 && numShown >= 100 && html`<p class="dim pad">The first 100 of ${count(queue.waiting)}. <a href=${to("queue", null, { show: "all", model: model.id, status: "queued" })}>List the others</a></p>`}
  </section>`;
}

function RunningRow({ job }) {
  const [name, end] = useKeptCells(job);
  const isRead = job.phase === "decode";
  const fraction = job.prompt_tokens ? (job.prefilled ?? 0) / job.prompt_tokens : 0;
  return html`<tr class="is-running">
    <td class="place"><span class="state is-running"><span class="mark" aria-hidden="true"></span><span class="offscreen">running</span></span></td>
    ${name}
    <td class="what"><div>
      ${isRead
        ? html`<span class="num">${count(job.generated)} tokens</span><span class="num dim">${rate(job.rate)} tok/s</span>`
        : html`<${Meter} fraction=${fraction} label=${`Prompt of job ${shortId(job.id)}`} kind="run" /><span class="num">${job.phase === "embed" ? "vectors" : "prompt"} ${short(job.prefilled ?? 0)} of ${short(job.prompt_tokens ?? 0)}</span>`}
    </div></td>
    ${end}
  </tr>`;
}

/** When the queue moves, only its place and its wait are drawn again; its age ticks by itself. */
function WaitingRow({ job, place, wait }) {
  const [name, end] = useKeptCells(job);
  return job && html`<tr>
    <td class="place num">${place}</td>
    ${name}
    <td class="what"><div><span class="num dim">${job.prompt_chars ? `~${short(job.prompt_chars)} chars` : ""}</span>${wait !== null && html`<span class="num dim">in about ${wait}</span>`}</div></td>
    ${end}
  </tr>`;
}

/** The cells of a job that stay the same while it runs: the same elements until they change. */
function useKeptCells(job) {
  const { id, api, task, key, created_at: since, attempt: num, yields, priority, phase, job_class: ofClass } = job ?? {};
  return useMemo(
    () => (job ? [html`<${NameCell} job=${job} />`, html`<${EndCells} job=${job} />`] : []),
    [id, api, task, key, since, num, yields, priority, Boolean(phase), ofClass],
  );
}

/**
 * Seconds for one place of the queue, from the mean time of the jobs that ended last, and at least
 * of those that run; null if unknown.
 */
function secondsAPlace(model, running) {
  if (!model.service_s || !model.slots) return null;
  const ages = running.map((job) => now.peek() - job.created_at);
  const age = ages.length ? ages.reduce((sum, one) => sum + one, 0) / ages.length : 0;
  return Math.max(model.service_s, age) / model.slots;
}

function NameCell({ job }) {
  return html`<td class="name"><${JobLink} id=${job.id}>${shortId(job.id)}<//> <span>${job.api || job.task}</span><${Tags} job=${job} /></td>`;
}

function Tags({ job }) {
  const isLost = job.attempt > 1 && !job.yields;
  return html`${job.phase && job.job_class === "batch" ? html` <span class="tag">batch</span>` : null}${job.priority ? html` <span class="tag" title="Lower ones go first">priority ${job.priority}</span>` : null}${job.yields ? html` <span class="tag" title="It gave its slot to others, and goes on">gave way ${job.yields}×</span>` : null}${isLost ? html` <span class="tag" title="Its worker was lost; it goes on">attempt ${job.attempt}</span>` : null}`;
}

function EndCells({ job }) {
  const name = shortId(job.id);
  const [isEnding, setEnding] = useState(false);
  const cancel = () =>
    attempt(async () => {
      setEnding(true);
      try {
        await send("DELETE", `/v1/jobs/${encodeURIComponent(job.id)}`);
        say(`Cancelled job ${name}`);
      } catch (error) {
        setEnding(false);
        throw error;
      }
    });
  return html`
    <td class="key dim wide">${job.key ? html`<span title="The name of its key, or the start of its hash">key ${job.key}</span>` : ""}</td>
    <td class="age num"><${Age} since=${job.created_at} /></td>
    <td class="to-right"><button class="quiet small" disabled=${isEnding || !isOpen.value} aria-label=${`Cancel job ${name}`} title="Cancel" onClick=${cancel}><${Icon} name="close" size="16" /></button></td>
  `;
}

function Age({ since }) {
  return duration(now.value - since);
}

/** For those who listen: how many run and wait, not more often than every 10 seconds. */
function Summary() {
  const [text, setText] = useState("");
  useEffect(() => {
    const speak = () => {
      const waiting = Object.values(live.value.queues).reduce((sum, queue) => sum + queue.waiting, 0);
      const running = models.value.reduce((sum, one) => sum + (one.running ?? 0), 0);
      setText(`${running} running, ${waiting} waiting`);
    };
    const timer = setInterval(speak, SUMMARY_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<p class="offscreen" role="status">${text}</p>`;
}

const STATUSES = ["queued", "running", "finished", "failed", "cancelled"];

function AllJobs() {
  const { model = "", status = "" } = route.value.query;
  const [page, setPage] = useState(null);
  const [cursors, setCursors] = useState([null]); // of the pages from the newest to the shown one
  const [error, setError] = useState(null);
  const begin = useRef(inOrder()).current;
  const read = async (path) => {
    const counts = begin();
    const cursor = path.at(-1);
    const query = new URLSearchParams({ limit: PAGE, ...(model && { model }), ...(status && { status }), ...(cursor && { cursor }) });
    try {
      const found = await get(`/v1/jobs?${query}`);
      if (!counts()) return;
      setPage(found);
      setCursors(path);
      setError(null);
    } catch (failure) {
      if (counts()) setError(failure);
    }
  };
  useEffect(() => {
    begin.forget();
    setPage(null);
    read([null]);
  }, [model, status]);
  const filter = (name) => (event) => replace("queue", null, clean({ ...route.value.query, [name]: event.target.value }));
  const rows = page?.data ?? [];
  return html`
    <div class="filters">
      <label class="field">Model<select value=${model} onChange=${filter("model")}><option value="">all</option>${models.value.map((one) => html`<option key=${one.slug} value=${one.id}>${one.name} (id ${one.id})</option>`)}</select></label>
      <label class="field">Status<select value=${status} onChange=${filter("status")}><option value="">all</option>${STATUSES.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
      <button class="small" onClick=${() => read(cursors)}><${Icon} name="again" size="16" />Read again</button>
    </div>
    ${error && html`<${Failure} error=${error} onRetry=${() => read(cursors)} />`}
    ${!page && !error && html`<${Skeleton} lines="8" />`}
    ${page && !rows.length && html`<p class="dim pad">No such job. Ended jobs are kept for an hour.</p>`}
    ${rows.length > 0 &&
    html`<table class="rows">
      <thead><tr><th scope="col">Job</th><th scope="col">Status</th><th scope="col" class="wide">Model</th><th scope="col" class="to-right">Made</th><th scope="col" class="to-right wide">Took</th></tr></thead>
      <tbody>
        ${rows.map(
          (one) => html`<tr key=${one.id}>
            <th scope="row"><${JobLink} id=${one.id}>${shortId(one.id)}<//> <span class="dim">${one.task}</span></th>
            <td><${State} name=${one.status} /></td>
            <td class="wide">${modelOf(one.model_id)?.name ?? one.model_id}</td>
            <td class="num to-right">${clock(one.created_at)}</td>
            <td class="num to-right wide">${one.ended_at && one.started_at ? duration(one.ended_at - one.started_at) : "–"}</td>
          </tr>`,
        )}
      </tbody>
    </table>`}
    ${(cursors.length > 1 || page?.next_cursor) &&
    html`<div class="actions start">
      <button disabled=${cursors.length === 1} onClick=${() => read(cursors.slice(0, -1))}>Newer</button>
      <button disabled=${!page?.next_cursor} onClick=${() => read([...cursors, page.next_cursor])}>Older</button>
      <span class="dim" role="status">Page ${count(cursors.length)}</span>
    </div>`}
  `;
}

const clean = (query) => Object.fromEntries(Object.entries(query).filter(([, value]) => value));

