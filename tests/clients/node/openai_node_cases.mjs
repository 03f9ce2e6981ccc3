// openai-node: chat, completions, embeddings, models, responses.

import assert from "node:assert/strict";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const COUNT = [{ role: "user", content: "Count from 1 to 5." }];
const SUM = [{ role: "user", content: "What is 2 + 3?" }];
const SUM_AS_JSON = [{ role: "user", content: "What is 2 + 3? Answer in JSON." }];
const Sum = z.object({ a: z.int(), b: z.int(), total: z.int() });
const PARAMETERS = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
};
const ADD = { name: "add", description: "Add two numbers.", parameters: PARAMETERS };

export async function chat({ openaiUrl, model }) {
  const answer = await client(openaiUrl).chat.completions.create({
    model,
    messages: SUM,
    temperature: 0,
  });
  assert.equal(answer.choices[0].message.content, "2 + 3 = 5");
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.ok(answer.usage.total_tokens > 8);
}

export async function chat_stream({ openaiUrl, model }) {
  const stream = await client(openaiUrl).chat.completions.create({
    model,
    messages: COUNT,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "1, 2, 3, 4, 5");
  assert.ok(usage.completion_tokens > 8);
}

export async function chat_stream_helper({ openaiUrl, model }) {
  const stream = client(openaiUrl).chat.completions.stream({
    model,
    messages: COUNT,
    temperature: 0,
  });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  assert.equal(await stream.finalContent(), "1, 2, 3, 4, 5");
  assert.equal(text, "1, 2, 3, 4, 5");
}

export async function structured_output({ openaiUrl, model }) {
  const answer = await client(openaiUrl).chat.completions.parse({
    model,
    messages: SUM_AS_JSON,
    temperature: 0,
    response_format: zodResponseFormat(Sum, "sum"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, { a: 2, b: 3, total: 5 });
}

export async function tools({ openaiUrl, model }) {
  const asked = [];
  const runner = client(openaiUrl).chat.completions.runTools({
    model,
    messages: SUM,
    temperature: 0,
    tools: [adder(asked)],
  });
  assert.equal(await runner.finalContent(), "2 + 3 = 5");
  assert.deepEqual(asked, [{ a: 2, b: 3 }]);
}

export async function tools_stream({ openaiUrl, model }) {
  const asked = [];
  const runner = client(openaiUrl).chat.completions.runTools({
    model,
    messages: SUM,
    temperature: 0,
    tools: [adder(asked)],
    stream: true,
  });
  assert.equal(await runner.finalContent(), "2 + 3 = 5");
  assert.deepEqual(asked, [{ a: 2, b: 3 }]);
}

export async function completions({ openaiUrl, model }) {
  const asked = { model, prompt: "1, 2, 3,", max_tokens: 8, temperature: 0 };
  const whole = await client(openaiUrl).completions.create(asked);
  assert.ok(whole.choices[0].text);
  let text = "";
  for await (const chunk of await client(openaiUrl).completions.create({ ...asked, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, whole.choices[0].text);
}

export async function embeddings({ openaiUrl, model }) {
  const input = ["Hello!", "What is 2 + 3?"];
  const packed = await client(openaiUrl).embeddings.create({ model, input });
  const plain = await client(openaiUrl).embeddings.create({
    model,
    input,
    encoding_format: "float",
  });
  assert.equal(packed.data.length, 2);
  assert.deepEqual(packed.data[1].embedding, plain.data[1].embedding.map(Math.fround));
}

export async function models({ openaiUrl, model }) {
  const ids = [];
  for await (const entry of client(openaiUrl).models.list()) ids.push(entry.id);
  assert.ok(ids.includes(model));
}

export async function responses({ openaiUrl, model }) {
  const first = await client(openaiUrl).responses.create({
    model,
    input: "What is 2 + 3?",
    temperature: 0,
  });
  assert.equal(first.output_text, "2 + 3 = 5");
  const stream = client(openaiUrl).responses.stream({
    model,
    input: "Count from 1 to 5.",
    temperature: 0,
    previous_response_id: first.id,
  });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  assert.equal((await stream.finalResponse()).output_text, "1, 2, 3, 4, 5");
  assert.equal(text, "1, 2, 3, 4, 5");
}

export async function responses_structured_output({ openaiUrl, model }) {
  const answer = await client(openaiUrl).responses.parse({
    model,
    input: SUM_AS_JSON,
    temperature: 0,
    text: { format: zodTextFormat(Sum, "sum") },
  });
  assert.deepEqual(answer.output_parsed, { a: 2, b: 3, total: 5 });
}

export async function responses_tools({ openaiUrl, model }) {
  const tools = [{ type: "function", ...ADD, strict: false }];
  const asked = { model, tools, temperature: 0 };
  const first = await client(openaiUrl).responses.create({ ...asked, input: SUM });
  const [call] = first.output;
  assert.equal(call.type, "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { a: 2, b: 3 });
  const last = await client(openaiUrl).responses.create({
    ...asked,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "5" }],
  });
  assert.equal(last.output_text, "2 + 3 = 5");
}

export async function errors({ openaiUrl, model }) {
  const wrong = { model, messages: SUM, temperature: 3 };
  await assert.rejects(client(openaiUrl).chat.completions.create(wrong), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
}

function adder(asked) {
  const run = (values) => {
    asked.push(values);
    return String(values.a + values.b);
  };
  return { type: "function", function: { ...ADD, parse: JSON.parse, function: run } };
}

function client(baseURL) {
  return new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60_000 });
}
