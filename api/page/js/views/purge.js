// Ending old jobs of a queue: how many there are is counted before anything happens.
import { html, useEffect, useState } from "../../vendor/ui.js";
import { post } from "../api.js";
import { Failure } from "../parts/basics.js";
import { Dialog } from "../parts/dialog.js";
import { say } from "../parts/toast.js";
import { count, plural } from "../text/format.js";

const AGES = [
  ["0", "All jobs"],
  ["60", "Older than a minute"],
  ["600", "Older than 10 minutes"],
  ["3600", "Older than an hour"],
  ["86400", "Older than a day"],
];
const PATH = "/management/process/clean-up";

export function PurgeDialog({ model, onClose }) {
  const [age, setAge] = useState("600");
  const [jobClass, setClass] = useState("interactive");
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const headers = { "X-Model-Id": model.id };
  const ask = (isDry) => post(PATH, { timeout: Number(age), class: jobClass, dry_run: isDry }, { headers });
  useEffect(() => {
    let isCurrent = true;
    setFound(null);
    ask(true).then(
      (answer) => isCurrent && setFound(answer),
      (failure) => isCurrent && setError(failure),
    );
    return () => {
      isCurrent = false;
    };
  }, [age, jobClass]);
  const purge = async (event) => {
    event.preventDefault();
    try {
      const done = await ask(false);
      say(`Ended ${plural(done.num_waiting + done.num_running, "job")} of ${model.name}`);
      onClose();
    } catch (failure) {
      setError(failure);
    }
  };
  const total = found ? found.num_waiting + found.num_running : 0;
  return html`<${Dialog} title=${`Purge the queue of ${model.name}`} onClose=${onClose} className="narrow">
    <form class="stack" onSubmit=${purge}>
      <label class="field">Jobs<select value=${age} onChange=${(event) => setAge(event.target.value)}>${AGES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select></label>
      <label class="field">Class<select value=${jobClass} onChange=${(event) => setClass(event.target.value)}>${["interactive", "batch", "all"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
      <p role="status">${found === null ? "Counting" : total ? html`<strong>${plural(total, "job")}</strong> would end: ${count(found.num_waiting)} waiting, ${count(found.num_running)} running. Their clients get an error.` : "No job is that old."}</p>
      ${error && html`<${Failure} error=${error} />`}
      <div class="actions">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button class="danger" disabled=${!total}>${total ? `End ${plural(total, "job")}` : "End jobs"}</button>
      </div>
    </form>
  <//>`;
}
