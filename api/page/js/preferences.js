// Preferences of this browser, kept in localStorage. Never a key, a prompt or an answer.
import { effect, signal } from "../vendor/ui.js";

const PREFIX = "mgs.";

/** A signal that keeps its value. Other tabs get changes, too. */
export function kept(name, initial) {
  const found = signal(read(name) ?? initial);
  effect(() => write(name, found.value));
  addEventListener("storage", (event) => {
    if (event.key === PREFIX + name) found.value = read(name) ?? initial;
  });
  return found;
}

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? "null");
  } catch {
    return null;
  }
}

function write(name, value) {
  try {
    const text = JSON.stringify(value);
    if (localStorage.getItem(PREFIX + name) !== text) localStorage.setItem(PREFIX + name, text);
  } catch {
    // Storage is off or full: the value lasts as long as the tab.
  }
}

/** "auto", "light" or "dark". */
export const theme = kept("theme", "auto");
/** "comfortable" or "compact". */
export const density = kept("density", "comfortable");
/** "auto" or "none". */
export const motion = kept("motion", "auto");
/** Model id of the last chat, for the next one. */
export const lastModel = kept("model", null);
/** Named sets of parameters: [{name, system, params}]. */
export const presets = kept("presets", []);
/** Whether Enter sends; otherwise Ctrl+Enter does. */
export const sendsOnEnter = kept("sends", true);

export function applyPreferences() {
  for (const [name, value] of Object.entries({ theme, density, motion })) {
    effect(() => {
      document.documentElement.dataset[name] = value.value;
    });
  }
}
