// The head of a chat: model, context in use, parameters, and what else can be done.
import { html, useEffect } from "../../../vendor/ui.js";
import { asMarkdown, branchOff, current, exported, path, removeConversation, saveConversation, titleOf } from "../../chats/store.js";
import { bodyOf } from "../../chats/body.js";
import { caller } from "../../keys.js";
import { models } from "../../live/store.js";
import { loadModel, diskModels, readDisk } from "../../models.js";
import { copyText, downloadText, Menu, Meter, State } from "../../parts/basics.js";
import { askText, confirm } from "../../parts/dialog.js";
import { Icon } from "../../parts/icons.js";
import { attempt, say } from "../../parts/toast.js";
import { go } from "../../router.js";
import { contextSize, percent, short } from "../../text/format.js";
import { chooseModel, chosen, isListOpen, isPanelOpen, model } from "./state.js";

export function ChatHead() {
  const list = path.value;
  return html`<header class="chat-head">
    <button class="quiet only-narrow" aria-label="Conversations" onClick=${() => (isListOpen.value = !isListOpen.value)}>
      <${Icon} name="menu" />
    </button>
    <${ModelPicker} />
    <${Context} list=${list} />
    <span class="grow"></span>
    <button class="quiet" aria-label="New chat" title="New chat" onClick=${() => go("chat")}><${Icon} name="plus" /></button>
    <button class="quiet" aria-pressed=${isPanelOpen.value} aria-label="Parameters" title="Parameters" onClick=${() => (isPanelOpen.value = !isPanelOpen.value)}>
      <${Icon} name="tune" />
    </button>
    <${Menu} label="Conversation actions" className="quiet" items=${actions(list)} />
  </header>`;
}

export function ModelPicker() {
  useEffect(() => {
    readDisk();
  }, []);
  const loaded = models.value;
  const names = new Set(loaded.map((one) => one.name));
  const onDisk = (diskModels.value ?? []).filter((one) => !names.has(one.name));
  const onChange = (event) => {
    const [kind, value] = [event.target.value.slice(0, 5), event.target.value.slice(5)];
    if (kind === "load:") attempt(() => loadModel({ llm_model_name: value })).then((found) => found && chooseModel(found));
    else chooseModel(loaded.find((one) => one.slug === value));
  };
  if (!loaded.length && !onDisk.length) return html`<span class="dim">No model</span>`;
  const found = model.value;
  return html`<span class="model-picker">
    <select aria-label="Model" onChange=${onChange} value=${found ? `slug:${found.slug}` : ""}>
      ${!found && html`<option value="">Choose a model</option>`}
      ${loaded.length > 0 &&
      html`<optgroup label="Loaded">
        ${loaded.map((one) => html`<option key=${one.slug} value=${`slug:${one.slug}`}>${labelOf(one, loaded)}</option>`)}
      </optgroup>`}
      ${onDisk.length > 0 &&
      html`<optgroup label="Load from disk">
        ${onDisk.map((one) => html`<option key=${one.name} value=${`load:${one.name}`}>${one.name}</option>`)}
      </optgroup>`}
    </select>
    ${found && found.state !== "ready" && html`<${State} name=${found.state} word=${stateWord(found)} />`}
  </span>`;
}

const stateWord = (one) => (one.fraction ? `${one.state} ${percent(one.fraction)}` : one.state);

/** Two loads of one model are told apart by their ids. */
function labelOf(one, all) {
  const isTwice = all.filter((other) => other.name === one.name).length > 1;
  return `${one.name}${isTwice ? ` (id ${one.id})` : ""}${one.state === "ready" ? "" : ` – ${one.state}`}`;
}

/** How much of the context the conversation fills, as of its last answer. */
function Context({ list }) {
  const length = model.value?.context_length;
  const usage = list.findLast((one) => one.usage)?.usage;
  if (!length || !usage) return null;
  const used = (usage.prompt_tokens ?? 0) + (usage.completion_tokens ?? 0);
  const fraction = used / length;
  const words = `${short(used)} of ${contextSize(length)} tokens of context`;
  return html`<span class="context" title=${words}>
    <${Meter} fraction=${fraction} label=${words} kind=${fraction > 0.9 ? "fail" : "accent"} />
    <span class="num">${short(used)} / ${contextSize(length)}</span>
  </span>`;
}

function actions(list) {
  const open = current.value;
  const snippet = (make) => () =>
    attempt(async () => {
      await copyText(make(await import("../../text/snippets.js")));
      say("Copied");
    });
  const hasKey = caller.value?.is_key_required ?? false;
  const request = () => bodyOf({ ...chosen.value, modelName: model.value?.name }, list.filter((one) => one.status !== "streaming"));
  const python = ({ openaiPython }) => openaiPython(location.origin, request(), hasKey);
  const command = ({ curl }) => curl(location.origin, "/v1/chat/completions", request(), { hasKey, modelId: model.value?.id ?? null });
  return [
    open && { text: "Rename", icon: "edit", run: () => rename(open) },
    open && list.length > 0 && { text: "Branch into a new chat", icon: "branch", run: () => attempt(() => branchOff(list.at(-1))).then((copy) => copy && go("chat", copy.id)) },
    { text: "Copy as curl", icon: "copy", run: snippet(command) },
    { text: "Copy as Python", icon: "copy", run: snippet(python) },
    open && { text: "Export as JSON", icon: "download", run: () => attempt(async () => downloadText(fileName(open, "json"), await exported(open.id))) },
    open && { text: "Export as Markdown", icon: "download", run: () => downloadText(fileName(open, "md"), asMarkdown(open, list), "text/markdown") },
    open && { text: "Delete", icon: "trash", isDanger: true, run: () => attempt(() => removeOne(open)) },
  ];
}

const fileName = (open, ending) => `${titleOf(open).replace(/[^\p{L}\p{N} _-]/gu, "").trim().slice(0, 60) || "chat"}.${ending}`;

export async function rename(one) {
  const title = await askText({ title: "Rename chat", label: "Title", value: titleOf(one) });
  if (title !== null) await attempt(() => saveConversation({ id: one.id, title: title.trim(), updated: one.updated }));
}

export async function removeOne(one) {
  const isSure = await confirm({ title: "Delete chat", text: `“${titleOf(one)}” is deleted from this browser. There is no copy elsewhere.`, yes: "Delete" });
  if (!isSure) return;
  if (current.value?.id === one.id) go("chat");
  await removeConversation(one.id);
}

