// Server-sent events of a fetch's body. EventSource cannot send an Authorization header.

/**
 * Yields {event, id, data} of each event; data is text. Comments are skipped.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body, onBytes = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      rest += value;
      for (;;) {
        const end = /\r?\n\r?\n/.exec(rest);
        if (end === null) break;
        const found = parseEvent(rest.slice(0, end.index));
        rest = rest.slice(end.index + end[0].length);
        if (found !== null) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** One event of its lines; null without data. */
export function parseEvent(text) {
  const found = { event: "message", id: null, data: "" };
  const data = [];
  for (const line of text.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (name === "data") data.push(value);
    else if (name === "event") found.event = value;
    else if (name === "id") found.id = value;
  }
  found.data = data.join("\n");
  return data.length ? found : null;
}
