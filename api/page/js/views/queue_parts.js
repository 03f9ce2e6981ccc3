// Parts of the pages of queues: their tabs, and the classes that are on hold or drained.
import { html } from "../../vendor/ui.js";
import { post } from "../api.js";
import { isOpen } from "../live/store.js";
import { whyNoManagement } from "../keys.js";
import { attempt } from "../parts/toast.js";
import { to } from "../router.js";

const CLASSES = ["interactive", "batch"];
const WORDS = { hold: "on hold", drain: "takes no new jobs" };

const change = (model, what, name) =>
  attempt(() => post(`/management/queues/${encodeURIComponent(model.id)}/${what}`, { classes: [name] }));

/** The held classes of a model, each with its way back. */
export function Held({ model }) {
  return Object.entries(model.held ?? {}).map(
    ([name, how]) => html`<span key=${name} class="held"><span class="tag">${name} ${WORDS[how] ?? how}</span>
      <button class="small" disabled=${Boolean(whyNoManagement.value) || !isOpen.value} title=${whyNoManagement.value ?? ""} aria-label=${`Resume ${name} jobs of ${model.name}`} onClick=${() => change(model, "resume", name)}>Resume</button></span>`,
  );
}

/** For a menu: hold and drain of each class that is open. */
export function holdItems(model, why) {
  return CLASSES.filter((name) => !model.held?.[name]).flatMap((name) => [
    { text: `Hold ${name} jobs`, icon: "stop", run: () => change(model, "hold", name), why },
    { text: `Take no new ${name} jobs`, icon: "down", run: () => change(model, "drain", name), why },
  ]);
}

export function QueueTabs({ shown }) {
  const tabs = [
    ["live", "Waiting and running", to("queue")],
    ["all", "All jobs", to("queue", null, { show: "all" })],
    ["batches", "Batches", to("batches")],
  ];
  return html`<div class="tabs" role="group" aria-label="What is shown">
    ${tabs.map(([name, text, href]) => html`<a key=${name} href=${href} aria-current=${name === shown ? "true" : null}>${text}</a>`)}
  </div>`;
}
