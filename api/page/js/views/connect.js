// Connect: the same request from other programs, with this address and a loaded model.
import { html, useState } from "../../vendor/ui.js";
import { caller } from "../keys.js";
import { models } from "../live/store.js";
import { to } from "../router.js";
import { Code } from "../text/markdown.js";
import { anthropicPython, curl, openaiNode, openaiPython } from "../text/snippets.js";

const TABS = [
  { name: "curl", language: "bash", make: (origin, body, hasKey) => curl(origin, "/v1/chat/completions", body, { hasKey }) },
  { name: "OpenAI, Python", language: "python", make: openaiPython, needs: "pip install openai" },
  { name: "OpenAI, Node", language: "javascript", make: openaiNode, needs: "npm install openai" },
  { name: "Anthropic, Python", language: "python", make: anthropicPython, needs: "pip install anthropic" },
];

export default function Connect() {
  const [at, setAt] = useState(0);
  const [chosen, setChosen] = useState(null);
  const list = models.value;
  const model = list.find((one) => one.slug === chosen) ?? list[0];
  const hasKey = caller.value?.is_key_required ?? false;
  const name = model ? (list.filter((one) => one.name === model.name).length > 1 ? model.id : model.name) : "MODEL";
  const body = { model: name, messages: [{ role: "user", content: "Hello!" }] };
  const tab = TABS[at];
  return html`<div class="view narrow-view">
    <p>Programs for OpenAI's, Anthropic's and llama-server's APIs work with this server. They need two settings:</p>
    <dl class="facts">
      <div><dt>Base URL</dt><dd><code>${location.origin}/v1</code></dd></div>
      <div><dt>Key</dt><dd>${hasKey ? html`<code>$MGS_API_KEY</code>` : "any text: this server has none"}</dd></div>
      <div><dt>Model</dt><dd>
        ${list.length ? html`<select aria-label="Model" value=${model.slug} onChange=${(event) => setChosen(event.target.value)}>${list.map((one) => html`<option key=${one.slug} value=${one.slug}>${one.name} (id ${one.id})</option>`)}</select>` : html`none is loaded: <a href=${to("models")}>Models</a>`}
      </dd></div>
    </dl>
    <div class="tabs" role="group" aria-label="Client">
      ${TABS.map((one, index) => html`<button key=${one.name} aria-pressed=${index === at} onClick=${() => setAt(index)}>${one.name}</button>`)}
    </div>
    ${tab.needs && html`<${Code} text=${tab.needs} language="bash" label="once" />`}
    <${Code} text=${tab.make(location.origin, body, hasKey)} language=${tab.language} label=${tab.name} />
    <h2>In the background</h2>
    <p>With the header <code>Prefer: respond-async</code>, any request is a job that goes on by itself.</p>
    <${Code} language="bash" label="a job" text=${`${curl(location.origin, "/v1/chat/completions", body, { hasKey }).replace("\\\n", "-H 'Prefer: respond-async' \\\n")}
${curl(location.origin, "/v1/jobs/JOB_ID/events", null, { hasKey, method: "GET" }).replace("-X GET ", "-N ")}`} />
  </div>`;
}
