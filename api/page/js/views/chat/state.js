// What the chat page has chosen: model, system text and parameters of the open or the next chat.
import { computed, signal } from "../../../vendor/ui.js";
import { current, newConversation, saveConversation } from "../../chats/store.js";
import { models, readyModels } from "../../live/store.js";
import { lastModel } from "../../preferences.js";

const EMPTY = { modelId: null, modelName: null, system: "", params: {} };

/** The settings of a chat that has no message yet. */
export const fresh = signal(EMPTY);

export const chosen = computed(() => current.value ?? fresh.value);

export const isPanelOpen = signal(false);
export const isListOpen = signal(false);

/** The loaded model that answers: the chosen one, or what is there in its place. */
export const model = computed(() => {
  const { modelId, modelName } = chosen.value;
  const all = models.value;
  return (
    all.find((one) => one.id === modelId && (!modelName || one.name === modelName)) ??
    (modelName && all.find((one) => one.name === modelName)) ??
    (current.value?.modelName ? null : (all.find((one) => one.id === lastModel.value) ?? null)) ??
    readyModels.value[0] ??
    all[0] ??
    null
  );
});

export async function change(fields) {
  if (current.value) await saveConversation({ id: current.value.id, ...fields, updated: current.value.updated });
  else fresh.value = { ...fresh.value, ...fields };
}

export async function chooseModel(one) {
  lastModel.value = one.id;
  await change({ modelId: one.id, modelName: one.name });
}

/** The open conversation, made if there is none, with the model that answers now. */
export async function ensureConversation() {
  const { id, name } = model.value;
  const fields = { modelId: id, modelName: name };
  const open = current.value;
  if (open) {
    const isSame = open.modelId === id && open.modelName === name;
    return isSame ? open : saveConversation({ id: open.id, ...fields });
  }
  const { system, params } = fresh.value;
  fresh.value = { ...EMPTY, ...fields, system, params };
  return newConversation({ system, params, ...fields });
}
