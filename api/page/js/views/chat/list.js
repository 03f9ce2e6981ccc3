// The list of conversations: search, import, export.
import { html, useEffect, useRef, useState } from "../../../vendor/ui.js";
import { conversations, exported, imported, openId, search, titleOf } from "../../chats/store.js";
import { downloadText, Menu, Skeleton } from "../../parts/basics.js";
import { Icon } from "../../parts/icons.js";
import { attempt, say } from "../../parts/toast.js";
import { go, to } from "../../router.js";
import { day, plural } from "../../text/format.js";
import { removeOne, rename } from "./head.js";
import { isListOpen } from "./state.js";

const SEARCH_AFTER_MS = 150;

export function ChatList() {
  const [words, setWords] = useState("");
  const found = useSearch(words);
  const all = conversations.value;
  const shown = (all ?? []).filter((one) => found === null || found.has(one.id));
  return html`<aside class="chat-list" aria-label="Conversations">
    <div class="chat-list-head">
      <button class="primary" onClick=${() => go("chat")}><${Icon} name="plus" size="16" />New chat</button>
      <${ListMenu} />
    </div>
    <label class="search">
      <${Icon} name="search" size="16" />
      <input type="search" placeholder="Search chats" aria-label="Search chats" value=${words} onInput=${(event) => setWords(event.target.value)} />
    </label>
    <nav aria-label="Chats">
      ${all === null && html`<${Skeleton} lines="5" />`}
      ${all !== null && !shown.length && html`<p class="dim pad">${words ? "Nothing found." : "Your chats will be listed here. They stay in this browser."}</p>`}
      ${groups(shown).map(
        ([name, list]) => html`<section key=${name} aria-label=${name}>
          <h2>${name}</h2>
          <ul>
            ${list.map((one) => html`<${Entry} key=${one.id} one=${one} />`)}
          </ul>
        </section>`,
      )}
    </nav>
    <button class="scrim" aria-label="Close conversations" tabindex="-1" onClick=${() => (isListOpen.value = false)}></button>
  </aside>`;
}

function Entry({ one }) {
  const isOpen = one.id === openId.value;
  const title = titleOf(one);
  return html`<li class=${isOpen ? "is-open" : ""}>
    <a href=${to("chat", one.id)} aria-current=${isOpen ? "page" : null} onClick=${() => (isListOpen.value = false)}>${title}</a>
    <${Menu} label=${`Actions for ${title}`} items=${[
      { text: "Rename", icon: "edit", run: () => rename(one) },
      { text: "Export", icon: "download", run: () => attempt(async () => downloadText("chat.json", await exported(one.id))) },
      { text: "Delete", icon: "trash", isDanger: true, run: () => attempt(() => removeOne(one)) },
    ]} />
  </li>`;
}

function ListMenu() {
  const file = useRef(null);
  const take = async (event) => {
    const [chosen] = event.target.files;
    event.target.value = "";
    if (!chosen) return;
    const num = await attempt(async () => imported(await chosen.text()));
    if (num !== undefined) say(`Imported ${plural(num, "chat")}`);
  };
  return html`<${Menu} label="Import and export" items=${[
      { text: "Import chats", icon: "upload", run: () => file.current.click() },
      { text: "Export all chats", icon: "download", run: () => attempt(async () => downloadText("chats.json", await exported())) },
    ]} />
    <input ref=${file} type="file" accept="application/json,.json" class="offscreen" tabindex="-1" aria-label="File to import" onChange=${take} />`;
}

/** Ids of what is found; null without words. */
function useSearch(words) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    if (!words.trim()) {
      setFound(null);
      return undefined;
    }
    let isCurrent = true;
    const timer = setTimeout(async () => {
      const ids = await attempt(() => search(words.trim()));
      if (isCurrent && ids) setFound(ids);
    }, SEARCH_AFTER_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [words, conversations.value]);
  return found;
}

/** Today, yesterday, this week, then by month. */
function groups(list) {
  const found = new Map();
  const midnight = new Date().setHours(0, 0, 0, 0);
  for (const one of list) {
    const name = groupOf(one.updated, midnight);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(one);
  }
  return [...found];
}

function groupOf(time, midnight) {
  if (time >= midnight) return "Today";
  if (time >= midnight - 86_400_000) return "Yesterday";
  if (time >= midnight - 6 * 86_400_000) return "This week";
  return day(time).replace(/^\D*\d+\D+(?=\w{3})/, "");
}
