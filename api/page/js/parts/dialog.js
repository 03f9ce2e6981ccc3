// Dialogs: the browser's own <dialog>, which keeps and returns the focus and closes with Escape.
import { html, signal, useEffect, useRef } from "../../vendor/ui.js";
import { Icon } from "./icons.js";

export function Dialog({ title, onClose, children, className = "" }) {
  const ref = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  const onDown = (event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} class=${className} aria-label=${title} onClose=${onClose} onPointerDown=${onDown}>
    <div class="dialog-body">
      <header>
        <h2>${title}</h2>
        <button class="quiet small" aria-label=${`Close ${title}`} onClick=${onClose}><${Icon} name="close" size="16" /></button>
      </header>
      ${children}
    </div>
  </dialog>`;
}

const question = signal(null);

/** Asks before something that cannot be undone. Resolves to true or false. */
export function confirm({ title, text, yes, isDanger = true }) {
  return new Promise((resolve) => {
    question.value = { title, text, yes, isDanger, resolve };
  });
}

/** Asks for one line of text; null if closed. */
export function askText({ title, label, value = "", yes = "Save" }) {
  return new Promise((resolve) => {
    question.value = { title, label, value, yes, resolve, isText: true };
  });
}

export function Questions() {
  const asked = question.value;
  if (asked === null) return null;
  const answer = (value) => {
    question.value = null;
    asked.resolve(value);
  };
  const no = asked.isText ? null : false;
  const onSubmit = (event) => {
    event.preventDefault();
    answer(asked.isText ? new FormData(event.target).get("text") : true);
  };
  return html`<${Dialog} title=${asked.title} onClose=${() => answer(no)} className="narrow">
    <form onSubmit=${onSubmit} class="stack">
      ${asked.text && html`<p>${asked.text}</p>`}
      ${asked.isText && html`<label class="field">${asked.label}<input name="text" value=${asked.value} autofocus required maxlength="200" /></label>`}
      <div class="actions">
        <button type="button" onClick=${() => answer(no)}>Cancel</button>
        <button class=${asked.isDanger ? "danger" : "primary"}>${asked.yes}</button>
      </div>
    </form>
  <//>`;
}
