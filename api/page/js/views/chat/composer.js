// Where the next message is written. Drafts are kept; the number of tokens is counted meanwhile.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../../../vendor/ui.js";
import { post } from "../../api.js";
import { bodyOf } from "../../chats/body.js";
import { stop } from "../../chats/answers.js";
import { drafts, openId, path } from "../../chats/store.js";
import { isOpen } from "../../live/store.js";
import { Icon } from "../../parts/icons.js";
import { attempt } from "../../parts/toast.js";
import { sendsOnEnter } from "../../preferences.js";
import { count } from "../../text/format.js";
import { chosen, model } from "./state.js";

const COUNT_AFTER_MS = 500;
const TALLEST_PX = 280;

export function Composer({ onSend }) {
  const area = useRef(null);
  const draftKey = openId.value ?? "";
  const [text, setText] = useState(drafts.get(draftKey) ?? "");
  const last = path.value.at(-1);
  const isAnswering = last?.status === "streaming";
  const why = whyNot();
  const numTokens = useTokenCount(text);

  useEffect(() => {
    if (matchMedia("(hover: hover)").matches) area.current.focus();
  }, []);
  useLayoutEffect(() => {
    area.current.style.height = "auto";
    area.current.style.height = `${Math.min(TALLEST_PX, area.current.scrollHeight)}px`;
  }, [text]);

  const write = (value) => {
    drafts.set(draftKey, value);
    setText(value);
  };
  const submit = (event) => {
    event?.preventDefault();
    if (!text.trim() || why || isAnswering) return;
    write("");
    onSend(text);
  };
  const onKeyDown = (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    const isWanted = sendsOnEnter.value ? !event.shiftKey : event.ctrlKey || event.metaKey;
    if (isWanted) submit(event);
  };
  return html`<form class="composer" onSubmit=${submit}>
    <div class="composer-box">
      <textarea ref=${area} rows="1" aria-label="Message" placeholder=${why ?? "Message"} value=${text} onInput=${(event) => write(event.target.value)} onKeyDown=${onKeyDown}></textarea>
      <div class="composer-foot">
        <span class="composer-extra"></span>
        <span class="hint num" aria-hidden="true">${numTokens === null ? "" : `${count(numTokens)} tokens`}</span>
        ${isAnswering
          ? html`<button type="button" class="stop" aria-label="Stop answering" onClick=${() => attempt(() => stop(last))}><${Icon} name="stop" size="18" />Stop</button>`
          : html`<button class="primary send" aria-label="Send message" title=${why ?? "Send"} disabled=${!text.trim() || Boolean(why)}><${Icon} name="send" size="18" /></button>`}
      </div>
    </div>
  </form>`;
}

function whyNot() {
  if (!isOpen.value) return "Not connected";
  if (!model.value) return chosen.value.modelName ? `${chosen.value.modelName} is not loaded` : "No model is loaded";
  return null;
}

/** Tokens of the whole prompt with this text, counted by the model; null while unknown. */
function useTokenCount(text) {
  const [num, setNum] = useState(null);
  const found = model.value;
  useEffect(() => {
    setNum(null);
    if (!text.trim() || found?.state !== "ready") return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const { messages } = bodyOf(chosen.value, [...path.value, { role: "user", content: text }]);
        const { length } = await post("/v1/internal/token-count", { messages }, { signal: abort.signal, headers: { "X-Model-Id": found.id } });
        setNum(length);
      } catch {
        // Only a hint: sending shows what is wrong.
      }
    }, COUNT_AFTER_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text, found?.id, found?.state]);
  return num;
}
