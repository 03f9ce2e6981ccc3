// Requests as commands and programs. The key is always a variable, never the key itself.

const KEY = "$MGS_API_KEY";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const literal = (value) => JSON.stringify(value, null, 2);

/** Python's literals: JSON but for three words, outside strings. */
export function python(value, indent = 0) {
  const pad = "    ".repeat(indent + 1);
  const end = "    ".repeat(indent);
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((item) => pad + python(item, indent + 1)).join(",\n")},\n${end}]`;
  }
  if (typeof value === "object") {
    const items = Object.entries(value).map(([name, item]) => `${pad}${JSON.stringify(name)}: ${python(item, indent + 1)}`);
    return items.length ? `{\n${items.join(",\n")},\n${end}}` : "{}";
  }
  return JSON.stringify(value);
}

export function curl(origin, path, body, { modelId = null, hasKey = true, method = "POST" } = {}) {
  const lines = [`curl ${origin}${path}`];
  if (method !== "POST") lines[0] = `curl -X ${method} ${origin}${path}`;
  if (hasKey) lines.push(`-H "Authorization: Bearer ${KEY}"`);
  if (modelId !== null) lines.push(`-H ${quoted(`X-Model-Id: ${modelId}`)}`);
  if (body !== undefined && body !== null) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(literal(body))}`);
  return lines.join(" \\\n  ");
}

const pythonKey = (hasKey) => (hasKey ? 'os.environ["MGS_API_KEY"]' : '"none"');
const nodeKey = (hasKey) => (hasKey ? "process.env.MGS_API_KEY" : '"none"');

/** Fields that the client library does not know by name go into extra_body. */
const KNOWN = new Set(
  "model messages max_tokens temperature top_p seed stop n tools tool_choice response_format presence_penalty frequency_penalty stream".split(" "),
);

export function openaiPython(origin, body, hasKey) {
  const fields = Object.entries(body).filter(([name]) => name !== "stream");
  const known = fields.filter(([name]) => KNOWN.has(name)).map(([name, value]) => `    ${name}=${python(value, 1)},`);
  const extra = Object.fromEntries(fields.filter(([name]) => !KNOWN.has(name)));
  if (Object.keys(extra).length) known.push(`    extra_body=${python(extra, 1)},`);
  return `${hasKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=${pythonKey(hasKey)})
stream = client.chat.completions.create(
${known.join("\n")}
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)`;
}

export function openaiNode(origin, body, hasKey) {
  const shown = literal({ ...body, stream: true }).replaceAll("\n", "\n");
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${origin}/v1", apiKey: ${nodeKey(hasKey)} });
const stream = await client.chat.completions.create(${shown});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");`;
}

export function anthropicPython(origin, body, hasKey) {
  const messages = body.messages.filter((message) => message.role !== "system");
  return `${hasKey ? "import os\n\n" : ""}from anthropic import Anthropic

client = Anthropic(base_url="${origin}", api_key=${pythonKey(hasKey)})
with client.messages.stream(
    model=${python(body.model)},
    max_tokens=${body.max_tokens ?? 512},
    messages=${python(messages, 1)},
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)`;
}
