// What keys have used, and their limits. For managers.
import { html, useEffect, useRef, useState } from "../../vendor/ui.js";
import { get } from "../api.js";
import { inOrder } from "../in_order.js";
import { caller, whyNoManagement } from "../keys.js";
import { downloadText, Empty, Failure, Skeleton } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { replace, route, to } from "../router.js";
import { count } from "../text/format.js";
import { csv, NUMBERS, sorted, total, WORDS } from "./usage_rows.js";

const DAY_MS = 86_400_000;
const DAYS = { 1: "today", 7: "7 days", 30: "30 days", 90: "90 days" };
const GROUPS = { key: "key", "key,model": "key and model", "key,day": "key and day", "key,model,day": "key, model and day" };

export default function Usage() {
  if (caller.value === null) return html`<div class="view"><${Skeleton} lines="6" /></div>`;
  if (whyNoManagement.value) {
    return html`<div class="view"><${Empty} icon="table" title="For managers"><p>${whyNoManagement.value} <a href=${to("settings")}>Settings</a></p><//></div>`;
  }
  return html`<${OfKeys} />`;
}

function OfKeys() {
  const { days, by } = chosen(route.value.query);
  const [answer, setAnswer] = useState(null);
  const [error, setError] = useState(null);
  const begin = useRef(inOrder()).current;
  const read = async () => {
    const counts = begin();
    try {
      const from = new Date(Date.now() - (days - 1) * DAY_MS).toISOString().slice(0, 10);
      const found = await get(`/v1/usage?from=${from}&group_by=${by}`);
      if (!counts()) return;
      setAnswer(found);
      setError(null);
    } catch (failure) {
      if (counts()) setError(failure);
    }
  };
  useEffect(() => {
    begin.forget();
    setAnswer(null);
    read();
  }, [days, by]);
  const choose = (name) => (event) => replace("usage", null, { ...route.value.query, [name]: event.target.value });
  return html`<div class="view">
    <div class="filters">
      <${Choice} label="Time" options=${DAYS} value=${days} onChange=${choose("days")} />
      <${Choice} label="By" options=${GROUPS} value=${by} onChange=${choose("by")} />
      <button class="small" onClick=${read}><${Icon} name="again" size="16" />Read again</button>
      ${answer?.data.length > 0 && html`<button class="small" onClick=${() => downloadText("usage.csv", csv(answer.data, answer.group_by), "text/csv")}><${Icon} name="download" size="16" />Save as CSV</button>`}
    </div>
    ${!caller.value.is_key_required && html`<p class="dim">No keys are configured (<code>MGS_API_KEY</code>, <code>MGS_KEYS_FILE</code>): what everybody uses is counted together.</p>`}
    ${error && html`<${Failure} error=${error} onRetry=${read} />`}
    ${!answer && !error && html`<${Skeleton} lines="6" />`}
    ${answer && html`<${Used} answer=${answer} /><${Limits} keys=${answer.keys} />`}
  </div>`;
}

/** What the address says, if it is one of the choices. */
function chosen({ days, by }) {
  return { days: Object.hasOwn(DAYS, days) ? Number(days) : 30, by: Object.hasOwn(GROUPS, by) ? by : "key" };
}

function Choice({ label, options, value, onChange }) {
  return html`<label class="field">${label}<select value=${String(value)} onChange=${onChange}>${Object.entries(options).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}</select></label>`;
}

function Used({ answer }) {
  const [order, setOrder] = useState({ by: "total_tokens", isDown: true });
  const { data, group_by: groups, first, last } = answer;
  const turn = (by) => () => setOrder({ by, isDown: order.by === by ? !order.isDown : by in NUMBERS });
  const sums = total(data);
  const heads = [...groups.map((name) => [name, WORDS[name]]), ...Object.entries(NUMBERS)];
  if (!data.length) return html`<p>Nothing has ended from ${first} to ${last} (UTC).</p>`;
  return html`<p class="dim">Jobs that ended from ${first} to ${last} (UTC), and their tokens.</p>
  <div class="table-box" tabindex="0" role="region" aria-label="Usage">
    <table class="rows usage">
      <thead><tr>${heads.map(([name, text]) => html`<th key=${name} scope="col" class=${name in NUMBERS ? "to-right" : ""} aria-sort=${order.by === name ? (order.isDown ? "descending" : "ascending") : null}>
        <button class="quiet small" onClick=${turn(name)}>${text}${order.by === name && html`<${Icon} name=${order.isDown ? "down" : "up"} size="14" />`}</button>
      </th>`)}</tr></thead>
      <tbody>
        ${sorted(data, order).map((row) => html`<tr key=${groups.map((name) => row[name]).join(" ")}>
          ${groups.map((name, index) => (index ? html`<td key=${name}>${row[name]}</td>` : html`<th key=${name} scope="row">${row[name] || "no key"}</th>`))}
          <${Numbers} row=${row} />
        </tr>`)}
      </tbody>
      ${data.length > 1 && html`<tfoot><tr><th scope="row" colspan=${groups.length}>All</th><${Numbers} row=${sums} /></tr></tfoot>`}
    </table>
  </div>`;
}

function Numbers({ row }) {
  return Object.keys(NUMBERS).map((name) => html`<td key=${name} class="num to-right">${count(row[name])}</td>`);
}

const LIMITS = { max_jobs: "Jobs", max_running: "Running", rpm: "Requests a minute", tpm: "Tokens a minute" };

function Limits({ keys }) {
  if (!keys.length) return null;
  return html`<section aria-labelledby="limits"><h2 id="limits">Limits</h2>
    <div class="table-box" tabindex="0" role="region" aria-label="Limits of keys">
      <table class="rows usage">
        <thead><tr><th scope="col">Key</th><th scope="col" class="to-right">Weight</th>${Object.values(LIMITS).map((text) => html`<th key=${text} scope="col" class="to-right">${text}</th>`)}<th scope="col">Classes</th><th scope="col">Models</th></tr></thead>
        <tbody>
          ${keys.map((one) => html`<tr key=${one.name}>
            <th scope="row">${one.name}${one.is_manager && html` <span class="tag">manager</span>`}</th>
            <td class="num to-right">${one.weight}</td>
            ${Object.keys(LIMITS).map((name) => html`<td key=${name} class="num to-right">${one[name] === null ? "–" : count(one[name])}</td>`)}
            <td>${one.classes.join(", ")}</td>
            <td>${one.is_manager || one.models.includes("*") ? "all" : one.models.join(", ")}</td>
          </tr>`)}
        </tbody>
      </table>
    </div>
  </section>`;
}
