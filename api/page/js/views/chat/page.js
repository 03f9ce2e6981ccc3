// Chat: conversations at the left, the messages, what is written next.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../../vendor/ui.js";
import { resumeAll, sendText } from "../../chats/answers.js";
import { conversations, openConversation, openId, path } from "../../chats/store.js";
import { models } from "../../live/store.js";
import { Icon } from "../../parts/icons.js";
import { attempt } from "../../parts/toast.js";
import { lazy, Skeleton } from "../../parts/basics.js";
import { replace, route } from "../../router.js";
import { Composer } from "./composer.js";
import { ChatHead } from "./head.js";
import { ChatList } from "./list.js";
import { Message } from "./message.js";
import { Welcome } from "./welcome.js";
import { chooseModel, ensureConversation, isListOpen, isPanelOpen } from "./state.js";

const Panel = lazy(() => import("./panel.js"));
const FIRST_SHOWN = 8;
const STEP = 4;
const STRETCH = 8;
const whenIdle = globalThis.requestIdleCallback ?? ((call) => setTimeout(call, 30)); // not in Safari
const cancelIdle = globalThis.cancelIdleCallback ?? clearTimeout;
const NEAR_PX = 48;

export default function Chat() {
  const { id, query } = route.value;
  useLayoutEffect(() => {
    isListOpen.value = false;
    attempt(() => openConversation(id)).then(resumeAll);
  }, [id]);
  const wanted = models.value.find((one) => one.id === query.model);
  useEffect(() => {
    if (id === null && wanted) chooseModel(wanted);
  }, [query.model, wanted?.slug]);
  const isReady = conversations.value !== null && openId.value === id;
  return html`<div class="chat ${isPanelOpen.value ? "has-panel" : ""} ${isListOpen.value ? "has-list" : ""}">
    <${ChatList} />
    <section class="chat-main" aria-label="Conversation">
      <${ChatHead} />
      ${isReady ? html`<${Thread} key=${id} />` : html`<div class="thread"><${Skeleton} lines="4" /></div>`}
      <${Composer} key=${`c-${id}`} onSend=${(text) => attempt(() => sendNew(text))} />
    </section>
    ${isPanelOpen.value && html`<${Panel} />`}
  </div>`;
}

async function sendNew(text) {
  const open = await ensureConversation();
  const isNew = openId.value !== open.id;
  if (isNew) {
    await openConversation(open.id);
    replace("chat", open.id);
  }
  await sendText(open, open.leaf ?? null, text);
}

function Thread() {
  const scroller = useRef(null);
  const isAtEnd = useRef(true);
  const lastTop = useRef(0);
  const [isBehind, setBehind] = useState(false);
  const list = path.value;
  const isToTop = useRef(false);
  const numShown = useGrowing(list.length, scroller, isToTop);
  const hidden = Math.max(0, list.length - numShown);

  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = scroller.current;
    const rest = scrollHeight - scrollTop - clientHeight;
    // Who moves up wants to leave the end, also while a smooth scroll has only begun.
    isAtEnd.current = rest < (scrollTop < lastTop.current ? 2 : NEAR_PX);
    if (scrollTop > 0) isToTop.current = false;
    lastTop.current = scrollTop;
    setBehind(rest >= NEAR_PX);
  };
  // At once: a scroll that takes its time ends where the top was before what it passes was laid out.
  const onKeyDown = (event) => {
    const isHome = event.key === "Home" || (event.metaKey && event.key === "ArrowUp");
    if (!isHome || event.shiftKey || event.target.matches("input, textarea, select")) return;
    event.preventDefault();
    isToTop.current = true;
    scroller.current.scrollTop = 0;
  };
  const toEnd = () => {
    const { scrollHeight, scrollTop, clientHeight } = scroller.current;
    // Setting it ends a scroll that a key has begun, even if it changes nothing.
    if (scrollHeight - scrollTop - clientHeight > 1) scroller.current.scrollTop = scrollHeight;
  };
  useLayoutEffect(() => {
    const watcher = new ResizeObserver(() => isAtEnd.current && toEnd());
    watcher.observe(scroller.current.firstElementChild);
    watcher.observe(scroller.current);
    return () => watcher.disconnect();
  }, []);
  useLayoutEffect(() => {
    isAtEnd.current = true; // a new message of one's own
    toEnd();
  }, [list.at(-1)?.id]);

  return html`<div class="thread" ref=${scroller} onScroll=${onScroll} onKeyDown=${onKeyDown} tabindex="0" role="region" aria-label="Messages">
    <div class="thread-body">
      ${!list.length && html`<${Welcome} />`}
      ${stretches(list, hidden).map(([start, part]) => html`<div key=${start} class="stretch">${part.map((one) => html`<${Kept} key=${one.id} one=${one} isLast=${one === list.at(-1)} />`)}</div>`)}
    </div>
    ${isBehind && html`<button class="to-end" onClick=${toEnd} aria-label="Go to the end"><${Icon} name="down" size="18" /></button>`}
  </div>`;
}

/** A message is drawn again only when it changes, or what it follows by itself. */
function Kept({ one, isLast }) {
  return useMemo(() => html`<${Message} one=${one} isLast=${isLast} />`, [one, isLast]);
}

/** The list from `first` on, in parts that the browser lays out only when they come into view. */
function stretches(list, first) {
  const found = [];
  for (let start = first - (first % STRETCH); start < list.length; start += STRETCH) {
    found.push([start, list.slice(Math.max(first, start), start + STRETCH)]);
  }
  return found;
}

/** How many of the newest messages are shown: a screenful, then the rest bit by bit, above them. */
function useGrowing(num, scroller, isToTop) {
  const [shown, setShown] = useState(FIRST_SHOWN);
  const fromEnd = useRef(0);
  useLayoutEffect(() => {
    const { current } = scroller;
    if (fromEnd.current) current.scrollTop = isToTop.current ? 0 : current.scrollHeight - fromEnd.current;
  }, [shown]);
  useEffect(() => {
    if (shown >= num) return undefined;
    const asked = whenIdle(() => {
      const { scrollHeight, scrollTop } = scroller.current;
      fromEnd.current = scrollHeight - scrollTop; // what is read stays where it is
      setShown(shown + STEP);
    });
    return () => cancelIdle(asked);
  }, [shown, num]);
  return Math.max(shown, FIRST_SHOWN);
}
