// AI SDK: `ai` with `@ai-sdk/openai-compatible`.

import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const Sum = z.object({ a: z.int(), b: z.int(), total: z.int() });
const SUM_AS_JSON = "What is 2 + 3? Answer in JSON.";

export async function chat(target) {
  const { text, usage, finishReason } = await generateText({
    ...options(target),
    prompt: "What is 2 + 3?",
  });
  assert.equal(text, "2 + 3 = 5");
  assert.equal(finishReason, "stop");
  assert.ok(usage.totalTokens > 8);
}

export async function stream(target) {
  const errors = [];
  const result = streamText({
    ...options(target),
    prompt: "Count from 1 to 5.",
    onError: ({ error }) => errors.push(error),
  });
  let text = "";
  for await (const delta of result.textStream) text += delta;
  assert.deepEqual(errors, []);
  assert.equal(text, "1, 2, 3, 4, 5");
  assert.ok((await result.usage).outputTokens > 8);
  assert.equal(await result.finishReason, "stop");
}

export async function structured_output(target) {
  const { output } = await generateText({
    ...options(target),
    prompt: SUM_AS_JSON,
    output: Output.object({ schema: Sum }),
  });
  assert.deepEqual(output, { a: 2, b: 3, total: 5 });
}

export async function structured_output_stream(target) {
  const result = streamText({
    ...options(target),
    prompt: SUM_AS_JSON,
    output: Output.object({ schema: Sum }),
  });
  let last = null;
  for await (const partial of result.partialOutputStream) last = partial;
  assert.deepEqual(last, { a: 2, b: 3, total: 5 });
}

export async function tools(target) {
  const asked = [];
  const { text, steps } = await generateText({
    ...options(target),
    prompt: "What is 2 + 3?",
    tools: { add: adder(asked) },
    stopWhen: stepCountIs(3),
  });
  assert.equal(text, "2 + 3 = 5");
  assert.equal(steps.length, 2);
  assert.equal(steps[0].finishReason, "tool-calls");
  assert.deepEqual(asked, [{ a: 2, b: 3 }]);
}

export async function tools_stream(target) {
  const asked = [];
  const errors = [];
  const result = streamText({
    ...options(target),
    prompt: "What is 2 + 3?",
    tools: { add: adder(asked) },
    stopWhen: stepCountIs(3),
    onError: ({ error }) => errors.push(error),
  });
  let text = "";
  for await (const delta of result.textStream) text += delta;
  assert.deepEqual(errors, []);
  assert.equal(text, "2 + 3 = 5");
  assert.deepEqual(asked, [{ a: 2, b: 3 }]);
}

export async function tools_forced(target) {
  const asked = [];
  const { toolCalls } = await generateText({
    ...options(target),
    prompt: "Hello!",
    tools: { add: adder(asked) },
    toolChoice: "required",
  });
  assert.equal(toolCalls.length, 1);
  assert.equal(asked.length, 1);
}

export async function embeddings(target) {
  const { embeddings } = await embedMany({
    model: provider(target).embeddingModel(target.model),
    values: ["Hello!", "What is 2 + 3?"],
    maxRetries: 0,
  });
  assert.equal(embeddings.length, 2);
  assert.ok(embeddings[0].length > 8);
}

function adder(asked) {
  return tool({
    description: "Add two numbers.",
    inputSchema: z.object({ a: z.int(), b: z.int() }),
    execute: async (values) => {
      asked.push(values);
      return String(values.a + values.b);
    },
  });
}

function options(target) {
  return { model: provider(target)(target.model), temperature: 0, maxRetries: 0 };
}

function provider({ openaiUrl }) {
  return createOpenAICompatible({
    name: "ours",
    baseURL: openaiUrl,
    apiKey: "none",
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
}
