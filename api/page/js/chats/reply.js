// A job's events put together to an answer. Pure: the same events give the same answer.

/** An answer before its first event. `prefix`: text that it continues. */
export function emptyReply(prefix = "") {
  return {
    content: prefix,
    reasoning: "",
    toolCalls: [],
    phase: "waiting",
    fraction: 0,
    numTokens: 0,
    promptTokens: null,
    startedAt: null,
    firstAt: null,
    lastAt: null,
    thoughtAt: null,
    thoughtEnd: null,
    finishReason: null,
    usage: null,
    timings: null,
    error: null,
    lastId: null,
  };
}

/** Adds an event in place. Returns true if it was the last. */
export function addEvent(reply, id, event) {
  if (isOld(reply.lastId, id)) return false;
  reply.lastId = id;
  const add = HANDLERS[event.kind];
  if (add) add(reply, event);
  return event.kind === "finished" || event.kind === "failed" || event.kind === "cancelled";
}

const HANDLERS = {
  started(reply, event) {
    reply.phase = "prefill";
    reply.startedAt = event.t;
    reply.promptTokens = event.usage?.prompt_tokens ?? null;
  },
  progress(reply, event) {
    reply.fraction = event.fraction ?? 0;
  },
  chunk(reply, event) {
    if ((event.choice ?? 0) !== 0) return;
    reply.phase = "decode";
    reply.firstAt ??= event.t;
    reply.lastAt = event.t;
    reply.numTokens += event.token_ids?.length ?? 0;
    if (event.reasoning) {
      reply.thoughtAt ??= event.t;
      reply.thoughtEnd = event.t;
      reply.reasoning += event.reasoning;
    }
    reply.content += event.text ?? "";
    for (const call of event.tool_calls ?? []) addCall(reply.toolCalls, call);
    if (event.finish_reason) reply.finishReason = event.finish_reason;
  },
  finished(reply, event) {
    reply.phase = "done";
    reply.usage = event.usage ?? null;
    reply.timings = event.timings ?? null;
  },
  failed(reply, event) {
    reply.phase = "failed";
    reply.error = event.error ?? { message: "The job failed.", code: "" };
    reply.usage = event.usage ?? null;
  },
  cancelled(reply, event) {
    reply.phase = "cancelled";
    reply.usage = event.usage ?? null;
  },
};

/** A call's first part has its id and name; others go on with its arguments. */
function addCall(calls, { id = "", name = "", arguments: text = "{}" }) {
  if (id || name || !calls.length) calls.push({ id, name, arguments: text });
  else calls[calls.length - 1].arguments += text;
}

/** Ids are "<attempt>-<number>", and grow. */
function isOld(last, id) {
  if (last === null || id === null) return false;
  const [a, b] = last.split("-").map(Number);
  const [c, d] = id.split("-").map(Number);
  return c < a || (c === a && d <= b);
}

/** Tokens per second so far, or of the whole answer; null before there are two. */
export function speedOf(reply) {
  if (reply.timings?.decode_tokens_per_s) return reply.timings.decode_tokens_per_s;
  const seconds = (reply.lastAt ?? 0) - (reply.firstAt ?? 0);
  return reply.numTokens > 1 && seconds > 0.2 ? (reply.numTokens - 1) / seconds : null;
}

export function thoughtMs(reply) {
  if (reply.thoughtAt === null) return null;
  return (reply.thoughtEnd - reply.thoughtAt) * 1000;
}

/** What is kept of an answer, as fields of its message. */
export function keptFields(reply) {
  return {
    content: reply.content,
    reasoning: reply.reasoning,
    toolCalls: reply.toolCalls,
    thoughtMs: thoughtMs(reply),
    usage: reply.usage,
    timings: reply.timings,
    finishReason: reply.finishReason,
    error: reply.error,
  };
}
