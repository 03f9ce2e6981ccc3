// The API key of this tab, and what the server lets its owner do. It is sent in a header only.
import { computed, signal } from "../vendor/ui.js";

const NAME = "mgs.key";

function storedKey() {
  try {
    return sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

export const key = signal(storedKey());

/** Whether the key is also kept for the next session of this browser. */
export const isKept = signal(hasKept());

function hasKept() {
  try {
    return localStorage.getItem(NAME) !== null;
  } catch {
    return false;
  }
}

/** What GET /v1/whoami says; null before its first answer. */
export const caller = signal(null);

/** True while the server refuses the key, or wants one. */
export const isRefused = signal(false);

export const mayManage = computed(() => caller.value?.may_manage ?? true);

/** Why loading and unloading are off, or null. */
export const whyNoManagement = computed(() =>
  mayManage.value ? null : "This needs the management key (MGS_MANAGEMENT_KEY).",
);

export function setKey(value, isToBeKept) {
  key.value = value;
  isKept.value = isToBeKept && value !== "";
  isRefused.value = false;
  try {
    sessionStorage.setItem(NAME, value);
    if (isKept.value) localStorage.setItem(NAME, value);
    else localStorage.removeItem(NAME);
  } catch {
    // Storage is off: the key lasts as long as the page.
  }
}

export function forgetKey() {
  setKey("", false);
  caller.value = null;
}
