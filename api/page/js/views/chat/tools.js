// Tool calls as cards. A person can paste what the tool would give back.
import { html, useState } from "../../../vendor/ui.js";
import { sendToolResults } from "../../chats/answers.js";
import { isOpen } from "../../live/store.js";
import { Icon } from "../../parts/icons.js";
import { attempt } from "../../parts/toast.js";
import { Code } from "../../text/markdown.js";

export function ToolCalls({ one, calls, isDone }) {
  const [results, setResults] = useState({});
  const send = () => attempt(() => sendToolResults(one, results));
  return html`<div class="tool-calls">
    ${calls.map(
      (call, index) => html`<section key=${index} class="tool-call" aria-label=${`Call of ${call.name}`}>
        <header><${Icon} name="tool" size="16" /><strong>${call.name || "tool"}</strong><span class="dim">${call.id}</span></header>
        <${Code} text=${pretty(call.arguments)} language="json" label="arguments" />
        ${isDone &&
        html`<label class="field">Result
          <textarea rows="2" placeholder="Paste what the tool gives back" value=${results[index] ?? ""} onInput=${(event) => setResults({ ...results, [index]: event.target.value })}></textarea>
        </label>`}
      </section>`,
    )}
    ${isDone && html`<div class="actions"><button class="primary" disabled=${!isOpen.value} onClick=${send}>Send ${calls.length > 1 ? "results" : "result"}</button></div>`}
  </div>`;
}

/** Whole JSON with indentation; what is cut or not JSON as it is. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
