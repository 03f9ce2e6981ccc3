// The palette of commands, and the help for the keyboard. Loaded when first opened.
import { html, useEffect, useMemo, useRef, useState } from "../../vendor/ui.js";
import { conversations, titleOf } from "../chats/store.js";
import { caller } from "../keys.js";
import { models } from "../live/store.js";
import { diskModels, isLoadedName, loadModel, readDisk, unloadModel } from "../models.js";
import { theme } from "../preferences.js";
import { go, PAGES } from "../router.js";
import { Dialog } from "./dialog.js";
import { Icon } from "./icons.js";
import { isHelpOpen, isPaletteOpen } from "./shortcuts.js";
import { attempt } from "./toast.js";

const MOST_SHOWN = 12;

function commands() {
  const found = [
    { text: "New chat", icon: "plus", run: () => go("chat") },
    ...PAGES.map((one) => ({ text: one.title, icon: one.icon, hint: `g ${one.letter}`, run: () => go(one.name) })),
    { text: "Theme: light", icon: "settings", run: () => (theme.value = "light") },
    { text: "Theme: dark", icon: "settings", run: () => (theme.value = "dark") },
    { text: "Theme: as the system", icon: "settings", run: () => (theme.value = "auto") },
    ...(caller.value?.may_manage ? [{ text: "Usage of keys", icon: "table", run: () => go("usage") }] : []),
    { text: "Keyboard help", icon: "more", hint: "?", run: () => (isHelpOpen.value = true) },
  ];
  for (const one of models.value) found.push({ text: `Unload ${one.name}`, icon: "models", hint: `id ${one.id}`, run: () => attempt(() => unloadModel(one)) });
  for (const one of diskModels.value ?? []) {
    if (!isLoadedName(one.name)) found.push({ text: `Load ${one.name}`, icon: "models", run: () => attempt(() => loadModel({ llm_model_name: one.name })) });
  }
  for (const one of conversations.value ?? []) found.push({ text: titleOf(one), icon: "chat", hint: "chat", run: () => go("chat", one.id) });
  return found;
}

function matching(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = commands().filter((one) => wanted.every((word) => one.text.toLowerCase().includes(word)));
  const id = words.trim();
  if (/^[\w-]{8,}$/.test(id)) found.push({ text: `Job ${id}`, icon: "queue", run: () => go("job", id) });
  return found.slice(0, MOST_SHOWN);
}

export function Palette() {
  const [words, setWords] = useState("");
  const [at, setAt] = useState(0);
  const list = useRef(null);
  const found = useMemo(() => matching(words), [words, diskModels.value, models.value]);
  useEffect(() => {
    if (diskModels.value === null) readDisk();
  }, []);
  useEffect(() => list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" }), [at, words]);
  const close = () => {
    isPaletteOpen.value = false;
  };
  const run = (one) => {
    close();
    one?.run();
  };
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setAt((at + step + found.length) % Math.max(1, found.length));
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(found[at]);
    }
  };
  return html`<${Dialog} title="Search and commands" onClose=${close} className="palette">
    <input type="text" role="combobox" aria-expanded="true" aria-controls="commands" aria-activedescendant=${found.length ? `command-${at}` : null} aria-label="Search pages, models, chats, jobs" placeholder="Pages, models, chats, a job's id" autofocus value=${words}
      onInput=${(event) => {
        setWords(event.target.value);
        setAt(0);
      }}
      onKeyDown=${onKeyDown} />
    <ul id="commands" role="listbox" aria-label="Commands" ref=${list}>
      ${found.map(
        (one, index) => html`<li key=${one.text + index} id=${`command-${index}`} role="option" aria-selected=${index === at} onClick=${() => run(one)} onPointerMove=${() => setAt(index)}>
          <${Icon} name=${one.icon} size="16" /><span>${one.text}</span>${one.hint && html`<kbd>${one.hint}</kbd>`}
        </li>`,
      )}
    </ul>
    ${!found.length && html`<p class="dim pad">Nothing found.</p>`}
  <//>`;
}

const KEYS = [
  ["Ctrl K or ⌘ K", "Search and commands"],
  ...PAGES.map((one) => [`g ${one.letter}`, one.title]),
  ["Enter", "Send the message"],
  ["Shift Enter", "A new line"],
  ["Escape", "Close a dialog or menu"],
  ["?", "This help"],
];

export function Help() {
  const close = () => {
    isHelpOpen.value = false;
  };
  return html`<${Dialog} title="Keyboard" onClose=${close} className="narrow">
    <dl class="keys">${KEYS.map(([name, what]) => html`<div key=${name}><dt><kbd>${name}</kbd></dt><dd>${what}</dd></div>`)}</dl>
  <//>`;
}
