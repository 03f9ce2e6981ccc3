// Parameters of a conversation, and presets of them.
import { html } from "../../../vendor/ui.js";
import { PARAMS } from "../../chats/body.js";
import { askText } from "../../parts/dialog.js";
import { Icon } from "../../parts/icons.js";
import { say } from "../../parts/toast.js";
import { presets } from "../../preferences.js";
import { change, chosen, isPanelOpen } from "./state.js";

export default function Panel() {
  const { system = "", params = {} } = chosen.value;
  const set = (name) => (event) => change({ params: { ...chosen.value.params, [name]: event.target.value } });
  return html`<aside class="panel" aria-label="Parameters">
    <header>
      <h2>Parameters</h2>
      <button class="quiet small" aria-label="Close parameters" onClick=${() => (isPanelOpen.value = false)}><${Icon} name="close" size="16" /></button>
    </header>
    <${Presets} />
    <label class="field">System text<textarea rows="4" value=${system} onChange=${(event) => change({ system: event.target.value })}></textarea></label>
    <div class="pairs">
      ${PARAMS.map(
        (one) => html`<label key=${one.name} class="field" title=${one.hint ?? one.name}>${one.label}
          <input type="number" min=${one.min} max=${one.max} step=${one.step} placeholder="model's" value=${params[one.name] ?? ""} onChange=${set(one.name)} />
        </label>`,
      )}
      <label class="field">Thinking
        <select value=${params.thinking ?? ""} onChange=${set("thinking")}>
          <option value="">model's</option><option value="on">on</option><option value="off">off</option>
        </select>
      </label>
      <label class="field">Most thoughts<input type="number" min="0" step="1" placeholder="tokens" value=${params.thinkingBudget ?? ""} onChange=${set("thinkingBudget")} /></label>
    </div>
    <label class="field">Stop at<textarea rows="2" placeholder="one text a line" value=${params.stop ?? ""} onChange=${set("stop")}></textarea></label>
    <label class="field">Form of the answer
      <select value=${params.form ?? ""} onChange=${set("form")}>
        <option value="">any text</option><option value="json">JSON</option><option value="schema">JSON schema</option><option value="grammar">Grammar (GBNF or Lark)</option>
      </select>
    </label>
    ${params.form === "schema" && html`<label class="field">JSON schema<textarea class="mono" rows="6" placeholder='{"type": "object"}' value=${params.schema ?? ""} onChange=${set("schema")}></textarea></label>`}
    ${params.form === "grammar" && html`<label class="field">Grammar<textarea class="mono" rows="6" placeholder='root ::= "yes" | "no"' value=${params.grammar ?? ""} onChange=${set("grammar")}></textarea></label>`}
    <label class="field">Tools<textarea class="mono" rows="3" placeholder='[{"type": "function", …}]' value=${params.tools ?? ""} onChange=${set("tools")}></textarea></label>
    <label class="field">Other fields<textarea class="mono" rows="2" placeholder='{"logprobs": true}' value=${params.other ?? ""} onChange=${set("other")}></textarea></label>
  </aside>`;
}

function Presets() {
  const all = presets.value;
  const apply = (event) => {
    const found = all[Number(event.target.value)];
    if (found) change({ system: found.system, params: found.params });
    event.target.value = "";
  };
  const save = async () => {
    const name = await askText({ title: "Save preset", label: "Name", yes: "Save" });
    if (!name?.trim()) return;
    const { system = "", params = {} } = chosen.value;
    presets.value = [...presets.value.filter((one) => one.name !== name.trim()), { name: name.trim(), system, params }];
    say("Preset saved");
  };
  const remove = (event) => {
    const found = all[Number(event.target.value)];
    if (found) presets.value = presets.value.filter((one) => one !== found);
    event.target.value = "";
  };
  return html`<div class="presets">
    <select aria-label="Use a preset" value="" disabled=${!all.length} onChange=${apply}>
      <option value="">${all.length ? "Use a preset" : "No presets yet"}</option>
      ${all.map((one, index) => html`<option key=${one.name} value=${index}>${one.name}</option>`)}
    </select>
    <button onClick=${save}>Save</button>
    ${all.length > 0 &&
    html`<select aria-label="Delete a preset" value="" onChange=${remove}>
      <option value="">Delete</option>
      ${all.map((one, index) => html`<option key=${one.name} value=${index}>${one.name}</option>`)}
    </select>`}
  </div>`;
}
