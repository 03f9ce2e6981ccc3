// A conversation as the body of POST /v1/chat/completions.

/** The parameters that the panel shows: name of the field, label, and how it is typed. */
export const PARAMS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1, hint: "0 always takes the likeliest token" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.05 },
  { name: "top_k", label: "Top k", min: 0, max: 1000, step: 1 },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01 },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.1, max: 2, step: 0.05 },
  { name: "max_tokens", label: "Longest answer", min: 1, max: 1_000_000, step: 1, hint: "in tokens" },
  { name: "seed", label: "Seed", min: 0, max: 2 ** 31 - 1, step: 1, hint: "the same seed, the same text" },
];

/** Throws an Error with words for the panel when a box does not hold what it should. */
export function bodyOf(conversation, list, { isContinued = false } = {}) {
  const { system = "", params = {} } = conversation;
  const messages = list.map(asMessage);
  if (system.trim()) messages.unshift({ role: "system", content: system });
  const body = { model: conversation.modelName ?? undefined, messages, stream: true, ...fieldsOf(params) };
  if (isContinued) Object.assign(body, { continue_final_message: true, add_generation_prompt: false });
  return body;
}

function fieldsOf(params) {
  const body = {};
  for (const { name } of PARAMS) {
    if (params[name] !== undefined && params[name] !== null && params[name] !== "") body[name] = Number(params[name]);
  }
  const stops = (params.stop ?? "").split("\n").filter(Boolean);
  if (stops.length) body.stop = stops;
  if (params.thinking === "on" || params.thinking === "off") body.enable_thinking = params.thinking === "on";
  if (params.thinkingBudget) body.thinking_budget = Number(params.thinkingBudget);
  Object.assign(body, formOf(params));
  if (params.tools?.trim()) body.tools = json(params.tools, "Tools", Array.isArray, "a list of tools");
  if (params.other?.trim()) Object.assign(body, json(params.other, "Other fields", isObject, "an object"));
  return body;
}

function formOf({ form, schema = "", grammar = "" }) {
  if (form === "json") return { response_format: { type: "json_object" } };
  if (form === "schema" && schema.trim()) {
    return { response_format: { type: "json_schema", json_schema: { name: "answer", schema: json(schema, "JSON schema", isObject, "an object") } } };
  }
  return form === "grammar" && grammar.trim() ? { grammar } : {};
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function json(text, name, check, what) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
  if (!check(value)) throw new Error(`${name}: this has to be ${what}.`);
  return value;
}

function asMessage(one) {
  if (one.role === "tool") return { role: "tool", content: one.content, tool_call_id: one.toolCallId };
  const message = { role: one.role, content: one.content };
  if (one.toolCalls?.length) {
    message.tool_calls = one.toolCalls.map(({ id, name, arguments: text }) => ({ id, type: "function", function: { name, arguments: text } }));
    if (!one.content) message.content = null;
  }
  return message;
}
