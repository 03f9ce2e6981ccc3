// One message: a person's text, an answer with its thoughts and tool calls, or a tool's result.
import { html, useEffect, useRef, useState } from "../../../vendor/ui.js";
import { answer, continueAnswer, runningOf, sendText } from "../../chats/answers.js";
import { speedOf, thoughtMs } from "../../chats/reply.js";
import { branchOff, choose, siblings } from "../../chats/store.js";
import { isOpen, now } from "../../live/store.js";
import { Copy, JobLink, Meter } from "../../parts/basics.js";
import { Icon } from "../../parts/icons.js";
import { attempt } from "../../parts/toast.js";
import { go } from "../../router.js";
import { count, duration, millis, percent, rate } from "../../text/format.js";
import { Markdown } from "../../text/markdown.js";
import { ensureConversation, model } from "./state.js";
import { ToolCalls } from "./tools.js";

const MOST_ANNOUNCED = 1000;

export function Message({ one, isLast }) {
  if (one.role === "user") return html`<${Asked} one=${one} />`;
  if (one.role === "tool") return html`<${ToolResult} one=${one} />`;
  return html`<${Answer} one=${one} isLast=${isLast} />`;
}

function Asked({ one }) {
  const [isEdited, setEdited] = useState(false);
  const resend = async (text) => {
    setEdited(false);
    const open = await ensureConversation();
    await sendText(open, one.parent, text);
  };
  if (isEdited) return html`<${Editor} text=${one.content} onCancel=${() => setEdited(false)} onSend=${(text) => attempt(() => resend(text))} />`;
  return html`<article class="message is-user" aria-label="You">
    <div class="bubble">${one.content}</div>
    <div class="message-foot">
      <${Branches} one=${one} />
      <${Copy} text=${one.content} what="message" />
      <button class="quiet small" aria-label="Edit and send again" title="Edit and send again" onClick=${() => setEdited(true)}><${Icon} name="edit" size="16" /></button>
    </div>
  </article>`;
}

function Editor({ text, onCancel, onSend }) {
  const area = useRef(null);
  useEffect(() => {
    area.current.focus();
    area.current.setSelectionRange(text.length, text.length);
  }, []);
  const send = () => area.current.value.trim() && onSend(area.current.value);
  const onKeyDown = (event) => {
    if (event.key === "Escape") onCancel();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  };
  return html`<div class="message is-user editor">
    <textarea ref=${area} aria-label="Message" rows=${Math.min(12, text.split("\n").length + 1)} onKeyDown=${onKeyDown}>${text}</textarea>
    <div class="actions">
      <button onClick=${onCancel}>Cancel</button>
      <button class="primary" disabled=${!isOpen.value} onClick=${send}>Send</button>
    </div>
  </div>`;
}

function ToolResult({ one }) {
  return html`<details class="message tool-result">
    <summary><${Icon} name="tool" size="16" />Result of ${one.toolName}</summary>
    <pre tabindex="0">${one.content}</pre>
  </details>`;
}

function Answer({ one, isLast }) {
  const running = one.status === "streaming" ? runningOf(one.id) : null;
  const shown = running?.reply ?? one;
  const isBusy = one.status === "streaming";
  const calls = shown.toolCalls ?? [];
  return html`<article class="message is-answer" aria-label=${`Answer of ${one.model ?? "the model"}`} aria-busy=${isBusy}>
    ${shown.reasoning && html`<${Thoughts} text=${shown.reasoning} ms=${running ? thoughtMs(shown) : one.thoughtMs} isOpen=${isBusy && !shown.content} />`}
    ${shown.content && html`<${Markdown} text=${shown.content} />`}
    ${calls.length > 0 && html`<${ToolCalls} one=${one} calls=${calls} isDone=${!isBusy && isLast} />`}
    ${isBusy && html`<${Progress} one=${one} running=${running} />`}
    ${one.error && html`<${Failed} one=${one} />`}
    ${one.status === "cancelled" && html`<p class="note">Stopped.</p>`}
    ${!isBusy && html`<${Foot} one=${one} isLast=${isLast} />`}
    <${Announced} isBusy=${isBusy} text=${shown.content} />
  </article>`;
}

/** For those who listen: the answer once, when it is complete. */
function Announced({ isBusy, text }) {
  const wasBusy = useRef(false);
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (wasBusy.current && !isBusy) setSaid(text.slice(0, MOST_ANNOUNCED));
    wasBusy.current = isBusy;
  }, [isBusy]);
  return html`<div class="offscreen" role="status">${said}</div>`;
}

function Thoughts({ text, ms, isOpen: isThinking }) {
  const [isChosen, setChosen] = useState(null);
  const isShown = isChosen ?? false;
  return html`<details class="thoughts" open=${isShown} onToggle=${(event) => setChosen(event.currentTarget.open)}>
    <summary>${isThinking ? "Thinking" : "Thought"} ${ms ? html`<span class="num">${millis(ms)}</span>` : null}</summary>
    ${isShown && html`<${Markdown} text=${text} />`}
  </details>`;
}

function Progress({ one, running }) {
  if (running === null) return html`<p class="progress"><span class="cursor" aria-hidden="true"></span>Sending</p>`;
  const { reply, isAway } = running;
  if (isAway) return html`<p class="progress is-away"><${Icon} name="alert" size="16" />The server cannot be reached. The answer goes on when it is back.</p>`;
  if (reply.phase === "waiting") {
    const seconds = now.value - (one.sentAt ?? one.created) / 1000;
    return html`<p class="progress"><span class="cursor" aria-hidden="true"></span>Waiting ${seconds > 2 ? html`<span class="num">${duration(seconds)}</span>` : null} <${JobLink} id=${one.job}>job<//></p>`;
  }
  if (reply.phase === "prefill") {
    return html`<p class="progress"><${Meter} fraction=${reply.fraction} label="Reading the prompt" />Reading <span class="num">${reply.promptTokens ? `${count(reply.promptTokens)} tokens` : percent(reply.fraction)}</span></p>`;
  }
  const speed = speedOf(reply);
  return html`<p class="progress"><span class="cursor" aria-hidden="true"></span><span class="num">${speed ? `${rate(speed)} tok/s` : `${reply.numTokens} tokens`}</span></p>`;
}

function Failed({ one }) {
  const { message, code } = one.error;
  return html`<div class="failure" role="alert">
    <${Icon} name="alert" size="18" />
    <span>${message} ${code && html`<code>${code}</code>`}</span>
    ${one.job && html`<${JobLink} id=${one.job}>Job<//>`}
  </div>`;
}

function Foot({ one, isLast }) {
  const again = () => attempt(async () => answer((await ensureConversation()).id, one.parent));
  const goOn = () => attempt(async () => (await ensureConversation()) && continueAnswer(one));
  const branch = async () => {
    const copy = await attempt(() => branchOff(one));
    if (copy) go("chat", copy.id);
  };
  const isCut = one.finishReason === "length" || one.status === "cancelled" || one.status === "failed";
  const isOff = !isOpen.value || !model.value;
  return html`<div class="message-foot">
    <${Branches} one=${one} />
    <${Copy} text=${one.content} what="answer" />
    <button class="quiet small" aria-label="Answer again" title="Answer again" disabled=${isOff} onClick=${again}><${Icon} name="again" size="16" /></button>
    <button class="quiet small" aria-label="Branch into a new chat" title="Branch into a new chat" onClick=${branch}><${Icon} name="branch" size="16" /></button>
    ${isLast && isCut && one.content && html`<button class="quiet small" disabled=${isOff} onClick=${goOn}><${Icon} name="play" size="16" />Continue</button>`}
    <${Stats} one=${one} />
  </div>`;
}

function Stats({ one }) {
  const { usage, timings } = one;
  const speed = timings?.decode_tokens_per_s;
  const parts = [
    speed && { text: `${rate(speed)} tok/s`, title: "Speed after the first token" },
    timings?.ttft_ms !== undefined && { text: millis(timings.ttft_ms), title: "Time to the first token" },
    usage && { text: `${count(usage.completion_tokens)} tokens`, title: `${count(usage.prompt_tokens)} tokens of prompt` },
    usage?.cached_tokens > 0 && { text: `${count(usage.cached_tokens)} cached`, title: "Prompt tokens found in the prompt cache" },
    one.finishReason === "length" && { text: "cut at the limit", title: "finish_reason: length" },
  ].filter(Boolean);
  return html`<span class="stats">
    ${parts.map((part) => html`<span key=${part.title} class="num" title=${part.title}>${part.text}</span>`)}
    ${one.job && html`<${JobLink} id=${one.job}>job<//>`}
  </span>`;
}

function Branches({ one }) {
  const all = siblings(one);
  if (all.length < 2) return null;
  const at = all.findIndex((other) => other.id === one.id);
  const turn = (step) => () => attempt(() => choose(all[at + step]));
  return html`<span class="branches">
    <button class="quiet small" aria-label="Previous version" disabled=${at === 0} onClick=${turn(-1)}><${Icon} name="left" size="14" /></button>
    <span class="num" aria-label=${`Version ${at + 1} of ${all.length}`}>${at + 1}/${all.length}</span>
    <button class="quiet small" aria-label="Next version" disabled=${at === all.length - 1} onClick=${turn(1)}><${Icon} name="right" size="14" /></button>
  </span>`;
}
