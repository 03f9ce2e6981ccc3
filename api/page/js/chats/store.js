// The conversations: a list, and the open one as a tree of messages with a chosen path.
import { batch, computed, signal } from "../../vendor/ui.js";
import { inOrder } from "../in_order.js";
import { newId } from "../text/format.js";
import * as db from "./db.js";

/** All conversations, newest first; null while they are read. */
export const conversations = signal(null);
/** Id of the open conversation, and its messages by id. */
export const openId = signal(null);
export const messages = signal(new Map());
/** Text that was typed and not sent, by conversation ("" for a new one). */
export const drafts = new Map();

export const current = computed(() => (conversations.value ?? []).find((one) => one.id === openId.value) ?? null);

/** The messages from the first to the chosen last one. */
export const path = computed(() => pathTo(messages.value, current.value?.leaf));

export function pathTo(all, leaf) {
  const found = [];
  for (let one = all.get(leaf); one && found.length < 10_000; one = all.get(one.parent)) found.unshift(one);
  return found;
}

const channel = new BroadcastChannel("mgs-chats");
channel.onmessage = ({ data }) => reread(data);

/** Another tab has changed something. */
async function reread({ id }) {
  conversations.value = sorted(await db.allConversations());
  if (id === openId.value || id === null) await readMessages(openId.value);
}

const tell = (id) => channel.postMessage({ id });
const sorted = (list) => list.sort((a, b) => b.updated - a.updated);

export async function readConversations() {
  conversations.value = sorted(await db.allConversations());
}

const beginOpen = inOrder();

export async function openConversation(id) {
  const counts = beginOpen();
  const isKnown = conversations.value?.some((one) => one.id === id);
  if (conversations.value === null || (id !== null && !isKnown)) await readConversations();
  const found = id === null ? [] : await db.messagesOf(id);
  if (!counts()) return;
  batch(() => {
    openId.value = id;
    messages.value = new Map(found.map((one) => [one.id, one]));
  });
}

async function readMessages(id) {
  if (id === null) return;
  const found = await db.messagesOf(id);
  if (id === openId.value) messages.value = new Map(found.map((one) => [one.id, one]));
}

/** Saves a conversation: new, or changed. */
export async function saveConversation(changes) {
  const known = (conversations.value ?? []).filter((one) => one.id !== changes.id);
  const saved = { ...(await db.conversation(changes.id)), ...changes, updated: changes.updated ?? Date.now() };
  conversations.value = sorted([...known, saved]);
  await db.put({ conversations: [saved] });
  tell(saved.id);
  return saved;
}

export async function newConversation(fields) {
  const now = Date.now();
  return saveConversation({ id: newId(), title: "", created: now, updated: now, leaf: null, ...fields });
}

/** Saves a message; shows it if its conversation is open. */
export async function saveMessage(changes, { isQuiet = false } = {}) {
  const known = messages.value.get(changes.id) ?? (await db.message(changes.id));
  const saved = { ...known, ...changes };
  if (saved.conversation === openId.value) messages.value = new Map(messages.value).set(saved.id, saved);
  await db.put({ messages: [saved] });
  if (!isQuiet) tell(saved.conversation);
  return saved;
}

/** Adds a message after `parent` and makes it the end of the chosen path. */
export async function addMessage(conversation, parent, fields) {
  const saved = { id: newId(), conversation, parent, created: Date.now(), content: "", status: "done", ...fields };
  const isOpen = conversation === openId.value;
  if (isOpen) messages.value = new Map(messages.value).set(saved.id, saved);
  await db.put({ messages: [saved] });
  await saveConversation({ id: conversation, leaf: saved.id });
  return saved;
}

/** Messages with the same parent, oldest first. */
export function siblings(one) {
  return [...messages.value.values()].filter((other) => other.parent === one.parent).sort((a, b) => a.created - b.created);
}

/** Chooses another branch: the path goes through `one` to its newest end. */
export async function choose(one) {
  let leaf = one;
  for (;;) {
    const next = [...messages.value.values()].filter((other) => other.parent === leaf.id).sort((a, b) => b.created - a.created)[0];
    if (!next) break;
    leaf = next;
  }
  await saveConversation({ id: one.conversation, leaf: leaf.id, updated: current.value.updated });
}

/** A new conversation with a copy of the path up to a message. */
export async function branchOff(one) {
  const from = current.value;
  const copy = await newConversation({ ...from, id: newId(), title: `${titleOf(from)} (branch)`, leaf: null, created: Date.now() });
  let parent = null;
  const copies = pathTo(messages.value, one.id).map((message) => {
    const made = { ...message, id: newId(), conversation: copy.id, parent, job: null, status: message.status === "streaming" ? "cancelled" : message.status };
    parent = made.id;
    return made;
  });
  await db.put({ messages: copies });
  await saveConversation({ id: copy.id, leaf: parent });
  return copy;
}

export const titleOf = (one) => one?.title || "New chat";

export async function removeConversation(id) {
  await db.remove(id);
  conversations.value = conversations.value.filter((one) => one.id !== id);
  tell(id);
}

export async function removeAll() {
  await db.removeAll();
  await openConversation(null);
  await readConversations();
  tell(null);
}

/** Ids of the conversations with the words in their title or messages. */
export async function search(words) {
  const wanted = words.toLowerCase();
  const found = new Set((conversations.value ?? []).filter((one) => titleOf(one).toLowerCase().includes(wanted)).map((one) => one.id));
  for (const one of await db.allMessages()) {
    if ((one.content ?? "").toLowerCase().includes(wanted)) found.add(one.conversation);
  }
  return found;
}

const FORMAT = "mlx-gguf-server chats";

/** The conversation with that id, or all, as a text of JSON. */
export async function exported(id = null) {
  const all = id === null ? await db.allConversations() : [await db.conversation(id)];
  const found = id === null ? await db.allMessages() : await db.messagesOf(id);
  return JSON.stringify({ format: FORMAT, version: 1, conversations: all, messages: found }, null, 1);
}

/** Takes what was exported; entries with a known id replace those. Returns how many conversations. */
export async function imported(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (data?.format !== FORMAT || !Array.isArray(data.conversations) || !Array.isArray(data.messages)) {
    throw new Error("The file is not an export of chats of this page.");
  }
  const ids = new Set(data.conversations.filter((one) => typeof one?.id === "string").map((one) => one.id));
  const kept = data.messages.filter((one) => typeof one?.id === "string" && ids.has(one.conversation));
  await db.put({
    conversations: data.conversations.filter((one) => ids.has(one?.id)).map((one) => ({ ...one, title: String(one.title ?? ""), updated: Number(one.updated) || Date.now() })),
    messages: kept.map((one) => ({ ...one, content: String(one.content ?? ""), status: one.status === "streaming" ? "cancelled" : (one.status ?? "done") })),
  });
  await readConversations();
  await readMessages(openId.value);
  tell(null);
  return ids.size;
}

/** A conversation as a text to read. */
export function asMarkdown(conversation, list) {
  const parts = list.map((one) => `## ${one.role === "user" ? "You" : (one.model ?? one.role)}\n\n${one.content}`);
  return `# ${titleOf(conversation)}\n\n${parts.join("\n\n")}\n`;
}
