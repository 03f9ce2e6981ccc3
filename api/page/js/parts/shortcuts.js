// Keys: Ctrl or ⌘ K for the palette, g and a letter for pages, ? for help.
import { signal, useEffect } from "../../vendor/ui.js";
import { go, PAGES } from "../router.js";

const CHORD_MS = 1200;

export const isPaletteOpen = signal(false);
export const isHelpOpen = signal(false);

export function useShortcuts() {
  useEffect(() => {
    let chordUntil = 0;
    const onKeyDown = (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        isPaletteOpen.value = !isPaletteOpen.value;
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (Date.now() < chordUntil) {
        chordUntil = 0;
        const page = PAGES.find((one) => one.letter === event.key);
        if (page) go(page.name);
      } else if (event.key === "g") chordUntil = Date.now() + CHORD_MS;
      else if (event.key === "?") isHelpOpen.value = true;
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
}

const isTyping = (element) => element.closest?.("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]");
