// Answers as jobs: sent, followed, stopped. They go on without the page and are picked up again.
import { signal } from "../../vendor/ui.js";
import { ApiError, send, submit } from "../api.js";
import { follow } from "./follow.js";
import * as db from "./db.js";
import { emptyReply, keptFields } from "./reply.js";
import { addMessage, messages, openId, pathTo, saveConversation, saveMessage } from "./store.js";
import { bodyOf } from "./body.js";

const SAVE_EVERY_MS = 1500;
const MOST_TITLE = 60;

/** Answers that are being followed: message id -> {reply, isAway, version}. A signal per message. */
const running = new Map();
export const numRunning = signal(0);
/** Messages that were stopped while their request was on its way. */
const stopped = new Set();

/** The state of a running answer, or null. Reading it follows its changes. */
export function runningOf(id) {
  numRunning.value; // eslint-disable-line no-unused-expressions
  return running.get(id)?.shown.value ?? null;
}

/** Sends the user's text; the answer is a new message after it. */
export async function sendText(conversation, parent, text) {
  const asked = await addMessage(conversation.id, parent, { role: "user", content: text });
  if (!conversation.title) await saveConversation({ id: conversation.id, title: titleFrom(text) });
  return answer(conversation.id, asked.id);
}

export const titleFrom = (text) => {
  const line = text.trim().split("\n")[0];
  return line.length > MOST_TITLE ? line.slice(0, MOST_TITLE - 1) + "…" : line;
};

/** Adds an answer after `parent` and starts its job. */
export async function answer(conversationId, parent) {
  const conversation = await db.conversation(conversationId);
  const made = await addMessage(conversationId, parent, {
    role: "assistant",
    status: "streaming",
    model: conversation.modelName ?? null,
  });
  await start(made, conversation);
  return made;
}

/** Goes on with an answer that was cut. */
export async function continueAnswer(one) {
  const conversation = await db.conversation(one.conversation);
  const changed = await saveMessage({ id: one.id, status: "streaming", prefix: one.content, job: null, error: null });
  await start(changed, conversation, { isContinued: true });
}

async function start(one, conversation, options = {}) {
  try {
    const all = new Map((await db.messagesOf(conversation.id)).map((other) => [other.id, other]));
    const list = pathTo(all, options.isContinued ? one.id : one.parent);
    const body = bodyOf(conversation, list, options);
    const headers = conversation.modelId === null || conversation.modelId === undefined ? {} : { "X-Model-Id": conversation.modelId };
    const job = await submit("/v1/chat/completions", body, headers);
    const saved = await saveMessage({ id: one.id, job, sentAt: Date.now() });
    resume(saved);
    if (stopped.delete(one.id)) await cancel(job);
  } catch (error) {
    const { message, code = "", jobId = null } = error;
    await saveMessage({ id: one.id, status: "failed", error: { message, code }, job: jobId });
    if (!(error instanceof ApiError) && !(error instanceof Error)) throw error;
  }
}

/** Follows a message's job, unless it is followed already. */
export function resume(one) {
  if (!one.job || running.has(one.id)) return Promise.resolve();
  const reply = emptyReply(one.prefix ?? "");
  const abort = new AbortController();
  const entry = { job: one.job, abort, shown: signal({ reply, isAway: false, version: 0 }) };
  running.set(one.id, entry);
  numRunning.value = running.size;
  return drive(one, reply, entry).finally(() => {
    running.delete(one.id);
    numRunning.value = running.size;
  });
}

async function drive(one, reply, entry) {
  let isPlanned = false;
  let savedAt = Date.now();
  const show = (changes = {}) => {
    entry.shown.value = { ...entry.shown.value, ...changes, version: entry.shown.value.version + 1 };
  };
  const onChange = () => {
    if (!isPlanned) {
      isPlanned = true;
      requestAnimationFrame(() => {
        isPlanned = false;
        show();
      });
    }
    if (Date.now() - savedAt > SAVE_EVERY_MS) {
      savedAt = Date.now();
      saveMessage({ id: one.id, ...keptFields(reply) }, { isQuiet: true });
    }
  };
  try {
    await follow(one.job, reply, {
      signal: entry.abort.signal,
      onChange,
      onAway: (isAway) => isAway !== entry.shown.value.isAway && show({ isAway }),
    });
  } catch (error) {
    return saveMessage({ id: one.id, status: "failed", ...keptText(one, reply), error: gone(error) });
  }
  if (entry.abort.signal.aborted) return undefined;
  const status = { done: "done", failed: "failed", cancelled: "cancelled" }[reply.phase];
  return saveMessage({ id: one.id, status, ...keptFields(reply) });
}

/** Of a job that the server no longer knows, what was saved before stays. */
const keptText = (one, reply) => (reply.content.length > (one.content ?? "").length ? keptFields(reply) : {});

const gone = (error) =>
  error.status === 404
    ? { message: "The server no longer has this answer. What came before is shown.", code: error.code }
    : { message: error.message, code: error.code ?? "" };

/** Cancels the job, now or as soon as it has an id. The answer ends with what came so far. */
export async function stop(one) {
  const job = running.get(one.id)?.job ?? messages.value.get(one.id)?.job ?? one.job;
  if (job) await cancel(job);
  else stopped.add(one.id);
}

const cancel = (job) => send("DELETE", `/v1/jobs/${encodeURIComponent(job)}`);

/**
 * After a reload: follows every answer that had not ended. Those of the open conversation at once,
 * the others one by one, since browsers allow six connections to one server.
 */
export async function resumeAll() {
  const open = await db.openAnswers();
  const isShown = (one) => one.conversation === openId.value;
  for (const one of open.filter(isShown)) resume(one);
  for (const one of open.filter((other) => !isShown(other))) {
    if (one.job) await resume(one);
    else if (Date.now() - one.created > 30_000) await saveMessage({ id: one.id, status: "failed", error: { message: "The page was closed before the request was sent.", code: "" } });
  }
}

/** Adds the results of tool calls, then asks on. */
export async function sendToolResults(one, results) {
  let parent = one.id;
  for (const [index, call] of one.toolCalls.entries()) {
    const made = await addMessage(one.conversation, parent, {
      role: "tool",
      content: results[index] ?? "",
      toolCallId: call.id,
      toolName: call.name,
    });
    parent = made.id;
  }
  return answer(one.conversation, parent);
}
