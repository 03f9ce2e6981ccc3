// Batches: start one from a file, follow it, cancel it, repeat its failed lines, fetch its answers.
import { html, useEffect, useRef, useState } from "../../vendor/ui.js";
import { blob, get, post } from "../api.js";
import { inOrder } from "../in_order.js";
import { isOpen, now } from "../live/store.js";
import { downloadBlob, Empty, Failure, Menu, Meter, Skeleton, State } from "../parts/basics.js";
import { confirm } from "../parts/dialog.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/toast.js";
import { clock, count, duration, plural, rate, short, shortId } from "../text/format.js";
import { ENDPOINTS, firstUrl, isActive, isOver, paceOf } from "./batch_pace.js";
import { QueueTabs } from "./queue_parts.js";

const READ_EVERY_MS = 2000;
const PAGE = 20;

export default function Batches() {
  const [pages, setPages] = useState(null);
  const [error, setError] = useState(null);
  const seen = useRef(new Map());
  const begin = useRef(inOrder()).current;
  const read = async (after) => {
    const counts = after ? () => true : begin(); // later pages are added, so none replaces another
    try {
      const found = await get(`/v1/batches?limit=${PAGE}${after ? `&after=${after}` : ""}`);
      if (!counts()) return;
      for (const one of found.data) note(seen.current, one);
      // What is read again replaces what was shown; pages behind the first stay.
      setPages((known) => (after ? [...known, found] : [found, ...(known ?? []).slice(1)]));
      setError(null);
    } catch (failure) {
      if (counts()) setError(failure);
    }
  };
  const list = unique(pages);
  const isBusy = list.some(isActive);
  useEffect(() => {
    read(null);
  }, []);
  useEffect(() => {
    if (!isBusy) return undefined;
    const timer = setInterval(() => !document.hidden && isOpen.peek() && read(null), READ_EVERY_MS);
    return () => clearInterval(timer);
  }, [isBusy]);
  const last = pages?.at(-1);
  return html`<div class="view">
    <div class="view-head wrap"><${QueueTabs} shown="batches" /></div>
    <${Start} onStarted=${() => read(null)} />
    ${error && html`<${Failure} error=${error} onRetry=${() => read(null)} />`}
    ${pages === null && !error && html`<${Skeleton} lines="6" />`}
    ${pages !== null && !list.length && html`<${Empty} icon="queue" title="No batch"><p>A batch answers the lines of a .jsonl file in the background, while people come first. <code>mgs batch FILE</code> does the same.</p><//>`}
    <ul class="cards">${list.map((one) => html`<${Batch} key=${one.id} one=${one} samples=${seen.current.get(one.id)} onChanged=${() => read(null)} />`)}</ul>
    ${last?.has_more && html`<button onClick=${() => read(last.last_id)}>More</button>`}
  </div>`;
}

/** A batch that moved to a later page meanwhile is shown once, as it was read last. */
const unique = (pages) => [...new Map((pages ?? []).flatMap((page) => page.data.map((one) => [one.id, one])).reverse()).values()].reverse();

function note(seen, one) {
  const samples = seen.get(one.id) ?? [];
  samples.push({ t: performance.now() / 1000, done: doneOf(one), tokens: one.usage.output_tokens });
  seen.set(one.id, samples.slice(-30));
}

const doneOf = (one) => one.request_counts.completed + one.request_counts.failed;

function Start({ onStarted }) {
  const [isSending, setSending] = useState(false);
  const [endpoint, setEndpoint] = useState("");
  const onFile = async (event) => {
    const file = event.target.files[0];
    if (file) setEndpoint(firstUrl(await file.slice(0, 65536).text()) ?? "");
  };
  const onSubmit = (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    attempt(async () => {
      setSending(true);
      const upload = new FormData();
      upload.append("purpose", "batch");
      upload.append("file", data.get("file"));
      const file = await post("/v1/files", upload);
      await post("/v1/batches", { input_file_id: file.id, endpoint, completion_window: data.get("window") });
      onStarted();
    }).then(() => setSending(false));
  };
  return html`<form class="filters" onSubmit=${onSubmit}>
    <label class="field">Requests, one JSON object a line<input type="file" name="file" accept=".jsonl" required onChange=${onFile} /></label>
    <label class="field">Route<select name="endpoint" value=${endpoint} required onChange=${(event) => setEndpoint(event.target.value)}><option value="">choose</option>${ENDPOINTS.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
    <label class="field">Within<select name="window">${["24h", "7d", "30d"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
    <button class="primary" disabled=${isSending || !isOpen.value}><${Icon} name="upload" size="16" />${isSending ? "Sending" : "Start batch"}</button>
  </form>`;
}

function Batch({ one, samples, onChanged }) {
  const { total, completed, failed } = one.request_counts;
  const pace = isActive(one) ? paceOf(samples, total) : null;
  const name = shortId(one.id);
  return html`<li class="card batch" aria-label=${`Batch ${name}`}>
    <header>
      <h3 title=${one.id}>${one.model ?? one.endpoint} <span class="dim">${name}</span></h3>
      <${State} name=${one.status} word=${one.status.replace("_", " ")} />
      <span class="grow"></span>
      <${Actions} one=${one} name=${name} onChanged=${onChanged} />
    </header>
    ${total > 0 &&
    html`<p class="loading-line">
      <${Meter} fraction=${doneOf(one) / total} label=${`Lines of batch ${name}`} kind=${failed ? "accent" : "run"} />
      <span class="num">${count(doneOf(one))} of ${plural(total, "line")}</span>
      ${failed > 0 && html`<span class="num problem">${count(failed)} failed</span>`}
      ${pace && html`<span class="num dim">${rate(pace.tokensPerS)} tok/s${pace.leftS === null ? "" : `, ends in about ${duration(pace.leftS)}`}</span>`}
    </p>`}
    ${one.waiting && html`<p class="dim" role="status">Waits: ${one.waiting.message}</p>`}
    ${one.errors?.data.slice(0, 5).map((error, index) => html`<p key=${index} class="problem">${error.line ? `Line ${error.line}: ` : ""}${error.message}</p>`)}
    <p class="small-print">${[one.endpoint, `made ${clock(one.created_at)}`, isOver(one) ? null : `expires in ${duration(one.expires_at - now.value)}`, one.usage.total_tokens && `${short(one.usage.input_tokens)} tokens read, ${short(one.usage.output_tokens)} written`, one.retry_of && `repeats ${shortId(one.retry_of)}`].filter(Boolean).join(" · ")}</p>
  </li>`;
}

function Actions({ one, name, onChanged }) {
  const path = `/v1/batches/${one.id}`;
  const cancel = async () => {
    const isSure = await confirm({ title: "Cancel the batch", text: "Lines that are answered are kept; all others end as cancelled.", yes: "Cancel batch" });
    if (isSure) await attempt(() => post(`${path}/cancel`, {}));
    onChanged();
  };
  const retry = () =>
    attempt(async () => {
      await post(`${path}/retry`, {});
      onChanged();
    });
  const save = (id, kind) => attempt(async () => downloadBlob(`${one.id}_${kind}.jsonl`, await blob(`/v1/files/${id}/content`)));
  const items = [
    one.error_file_id && { text: "Download errors", icon: "download", run: () => save(one.error_file_id, "errors") },
    isOver(one) && one.request_counts.failed > 0 && { text: "Repeat the lines that failed", icon: "again", run: retry },
  ];
  return html`
    ${one.output_file_id && html`<button class="small" aria-label=${`Download the answers of batch ${name}`} onClick=${() => save(one.output_file_id, "output")}><${Icon} name="download" size="16" />Answers</button>`}
    ${["validating", "in_progress"].includes(one.status) && html`<button class="small" disabled=${!isOpen.value} aria-label=${`Cancel batch ${name}`} onClick=${cancel}>Cancel</button>`}
    ${items.some(Boolean) && html`<${Menu} label=${`More for batch ${name}`} items=${items} />`}
  `;
}
