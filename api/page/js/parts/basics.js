// Small parts: copy button, state mark, meter, menu, empty state, loading skeleton.
import { html, useEffect, useRef, useState } from "../../vendor/ui.js";
import { Icon } from "./icons.js";
import { say } from "./toast.js";

const SKELETON_AFTER_MS = 150;

/** Copies text, on plain http too, where navigator.clipboard is missing. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "offscreen";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function Copy({ text, what, label = null, isSmall = true }) {
  const [isDone, setDone] = useState(false);
  const copy = async () => {
    await copyText(typeof text === "function" ? text() : text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button class="quiet ${isSmall ? "small" : ""}" aria-label=${`Copy ${what}`} title=${`Copy ${what}`} onClick=${copy}>
    <${Icon} name=${isDone ? "check" : "copy"} size="16" />${label && html`<span>${isDone ? "Copied" : label}</span>`}
  </button>`;
}

/** A state as shape, colour and word. */
export function State({ name, word = name }) {
  return html`<span class="state is-${name}"><span class="mark" aria-hidden="true"></span>${word}</span>`;
}

/** A bar of a fraction, with its words for those who do not see it. */
export function Meter({ fraction, label, kind = "accent" }) {
  const value = Math.max(0, Math.min(1, fraction || 0));
  return html`<span class="meter is-${kind}" role="progressbar" aria-label=${label} aria-valuenow=${Math.round(value * 100)} aria-valuemin="0" aria-valuemax="100">
    <span style=${{ transform: `scaleX(${value})` }}></span>
  </span>`;
}

/** A dot in the model's hue. */
export function Hue({ value }) {
  return html`<span class="hue" style=${{ "--hue": value }} aria-hidden="true"></span>`;
}

export function Empty({ icon, title, children }) {
  return html`<div class="empty">
    <${Icon} name=${icon} size="28" />
    <h2>${title}</h2>
    ${children}
  </div>`;
}

/** Grey lines, only where something takes longer than a moment. */
export function Skeleton({ lines = 3 }) {
  const [isShown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), SKELETON_AFTER_MS);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="skeleton" aria-busy="true" aria-label="Loading">
    ${isShown && Array.from({ length: lines }, (_, i) => html`<span key=${i}></span>`)}
  </div>`;
}

/** A part that is loaded when it is first shown. */
export function lazy(load, name = "default") {
  let Part = null;
  return function Lazy(props) {
    const [, setLoaded] = useState(false);
    useEffect(() => {
      if (Part) return;
      load().then(
        (module) => {
          Part = module[name];
          setLoaded(true);
        },
        () => say("This part of the page could not be loaded: reload the page.", { isError: true }),
      );
    }, []);
    return Part && html`<${Part} ...${props} />`;
  };
}

/** An error in place, with a way on. */
export function Failure({ error, onRetry = null }) {
  return html`<div class="failure" role="alert">
    <${Icon} name="alert" size="18" />
    <span>${error.message} ${error.code && html`<code>${error.code}</code>`}</span>
    ${error.jobId && html`<a href=${`#/job/${encodeURIComponent(error.jobId)}`}>Job</a>`}
    ${onRetry && html`<button class="small" onClick=${onRetry}>Try again</button>`}
  </div>`;
}

/**
 * A button that opens a list of actions.
 * @param {{items: {text: string, icon?: string, run: () => void, isDanger?: boolean, why?: string}[]}} props
 */
export function Menu({ label, items, children = null, className = "quiet small" }) {
  const [isOpen, setOpen] = useState(false);
  const root = useRef(null);
  useEffect(() => {
    if (!isOpen) return undefined;
    root.current?.querySelector("[role=menuitem]")?.focus();
    const onDown = (event) => root.current?.contains(event.target) || setOpen(false);
    addEventListener("pointerdown", onDown);
    return () => removeEventListener("pointerdown", onDown);
  }, [isOpen]);
  const close = () => {
    setOpen(false);
    root.current?.querySelector("button")?.focus();
  };
  return html`<div class="menu" ref=${root} onKeyDown=${(event) => onMenuKey(event, root.current, close, isOpen)}>
    <button class=${className} aria-haspopup="menu" aria-expanded=${isOpen} aria-label=${label} title=${label} onClick=${() => setOpen(!isOpen)}>
      ${children ?? html`<${Icon} name="more" size="18" />`}
    </button>
    ${isOpen &&
    html`<div class="menu-list" role="menu" aria-label=${label}>
      ${items.filter(Boolean).map(
        (item) => html`<button key=${item.text} role="menuitem" tabindex="-1" class=${item.isDanger ? "is-danger" : ""} disabled=${Boolean(item.why)} title=${item.why ?? ""}
          onClick=${() => {
            close();
            item.run();
          }}>
          ${item.icon && html`<${Icon} name=${item.icon} size="16" />`}${item.text}
        </button>`,
      )}
    </div>`}
  </div>`;
}

function onMenuKey(event, root, close, isOpen) {
  if (!isOpen) return;
  if (event.key === "Escape") {
    event.stopPropagation();
    close();
  }
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const items = [...root.querySelectorAll("[role=menuitem]:not(:disabled)")];
  const at = items.indexOf(document.activeElement) + steps[event.key];
  items.at(at % items.length)?.focus();
}

/** A link to a job, by the end of its id. */
export function JobLink({ id, children = null }) {
  return html`<a class="job-link" href=${`#/job/${encodeURIComponent(id)}`} title=${id}>${children ?? id.slice(-4)}</a>`;
}

export function downloadText(name, text, type = "application/json") {
  downloadBlob(name, new Blob([text], { type }));
}

export function downloadBlob(name, data) {
  const url = URL.createObjectURL(data);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  say(`Saved ${name}`);
}
