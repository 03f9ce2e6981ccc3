// Short messages at the edge of the page: what was done, and errors in the server's words.
import { html, signal } from "../../vendor/ui.js";
import { to } from "../router.js";
import { Icon } from "./icons.js";

const SHOWN_MS = 6000;

const toasts = signal([]);
let number = 0;

export function say(text, { isError = false, action = null } = {}) {
  const toast = { id: ++number, text, isError, action };
  toasts.value = [...toasts.value.slice(-3), toast];
  if (!isError) setTimeout(() => close(toast.id), SHOWN_MS);
}

/** An error of a request; its job is linked. */
export function complain(error) {
  if (error.name === "AbortError") return;
  const action = error.jobId ? { text: "Job", href: to("job", error.jobId) } : null;
  say(error.message, { isError: true, action });
}

/** Runs what may fail; an error is shown, not thrown. Returns undefined then. */
export async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    if (error.name === "TypeError" || error.name === "ReferenceError") console.error(error); // ours
    complain(error);
    return undefined;
  }
}

const close = (id) => {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
};

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${toasts.value.map(
      (toast) => html`<div key=${toast.id} class="toast ${toast.isError ? "is-error" : ""}">
        <${Icon} name=${toast.isError ? "alert" : "check"} size="16" />
        <span>${toast.text}</span>
        ${toast.action && html`<a href=${toast.action.href}>${toast.action.text}</a>`}
        <button class="quiet small" aria-label="Close message" onClick=${() => close(toast.id)}>
          <${Icon} name="close" size="14" />
        </button>
      </div>`,
    )}
  </div>`;
}
