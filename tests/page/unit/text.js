// Events, numbers, snippets, request bodies.
async ({ load, test, equal, throws }) => {
  const { parseEvent, readEvents } = await load("js/text/sse.js");
  const format = await load("js/text/format.js");
  const { curl, openaiPython, python } = await load("js/text/snippets.js");
  const { bodyOf } = await load("js/chats/body.js");

  test("an event has its id, name and lines", () => {
    equal(parseEvent("event: x\nid: 1-2\ndata: a\ndata: b"), { event: "x", id: "1-2", data: "a\nb" });
    equal(parseEvent(": comment"), null);
  });
  await test("events are read from pieces of any size", async () => {
    const bytes = new TextEncoder().encode("event: a\ndata: é1\n\n:\ndata: 2\n\n");
    for (const size of [1, 2, 7, 100]) {
      const body = new ReadableStream({
        start(controller) {
          for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
          controller.close();
        },
      });
      const found = [];
      for await (const event of readEvents(body)) found.push(event.data);
      equal(found, ["é1", "2"]);
    }
  });
  test("numbers are short and steady", () => {
    equal([format.short(999), format.short(1234), format.short(12345), format.short(2e6)], ["999", "1.2k", "12k", "2M"]);
    equal([format.bytes(0), format.bytes(5.1e9), format.bytes(52e6)], ["0 MB", "5.1 GB", "52 MB"]);
    equal([format.duration(-1), format.duration(59.9), format.duration(61), format.duration(7200)], ["0 s", "59 s", "1 min", "2 h"]);
    equal(format.millis(null), "–");
  });
  test("a hue is the same each time", () => equal(format.hue("0") === format.hue("0"), true));
  test("a quote in a command is quoted", () => equal(curl("http://x", "/p", { a: "it's" }).includes("it'\\''s"), true));
  test("a snippet names the key's variable", () => {
    equal(curl("http://x", "/p", {}).includes("$MGS_API_KEY"), true);
    equal(openaiPython("http://x", { model: "m", messages: [], min_p: 0.1 }, true).includes("extra_body"), true);
  });
  test("Python has its own words", () => equal(python({ a: [true, null], b: "True" }), '{\n    "a": [\n        True,\n        None,\n    ],\n    "b": "True",\n}'));
  test("a conversation becomes a body", () => {
    const list = [{ role: "user", content: "q" }, { role: "assistant", content: "", toolCalls: [{ id: "1", name: "f", arguments: "{}" }] }, { role: "tool", content: "r", toolCallId: "1" }];
    const body = bodyOf({ system: "s", modelName: "m", params: { temperature: "0.5", stop: "a\nb", thinking: "off", top_k: "" } }, list);
    equal([body.temperature, body.stop, body.enable_thinking, "top_k" in body], [0.5, ["a", "b"], false, false]);
    equal(body.messages.map((one) => one.role), ["system", "user", "assistant", "tool"]);
    equal(body.messages[2].content, null);
  });
  test("a box that is not JSON is named", () => throws(() => bodyOf({ params: { form: "schema", schema: "{" } }, []), "JSON schema"));
  test("a schema and a grammar have their fields", () => {
    equal(bodyOf({ params: { form: "schema", schema: '{"type":"object"}' } }, []).response_format.type, "json_schema");
    equal(bodyOf({ params: { form: "grammar", grammar: "root ::= x" } }, []).grammar, "root ::= x");
  });
}
