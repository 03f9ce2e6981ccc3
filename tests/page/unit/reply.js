// A job's events as an answer.
async ({ load, test, equal }) => {
  const { addEvent, emptyReply, keptFields, speedOf, thoughtMs } = await load("js/chats/reply.js");
  const chunk = (seq, fields) => [`1-${seq}`, { kind: "chunk", t: seq, token_ids: [1], ...fields }];
  const replied = (list, prefix = "") => {
    const reply = emptyReply(prefix);
    for (const [id, event] of list) addEvent(reply, id, event);
    return reply;
  };

  test("texts are joined, thoughts apart from them", () => {
    const reply = replied([chunk(1, { reasoning: "hm" }), chunk(3, { reasoning: "m" }), chunk(4, { text: "yes" }), chunk(5, { text: "!" })]);
    equal([reply.reasoning, reply.content, reply.numTokens], ["hmm", "yes!", 4]);
    equal(thoughtMs(reply), 2000);
  });
  test("an event that came before is left out", () => {
    const reply = replied([chunk(1, { text: "a" }), chunk(2, { text: "b" }), chunk(1, { text: "a" }), chunk(2, { text: "b" }), ["2-3", { kind: "chunk", t: 9, text: "c" }]]);
    equal(reply.content, "abc");
  });
  test("a tool call is put together from its parts", () => {
    const reply = replied([chunk(1, { tool_calls: [{ index: 0, id: "x", name: "f", arguments: '{"a"' }] }), chunk(2, { tool_calls: [{ index: 0, arguments: ": 1}" }] }), chunk(3, { tool_calls: [{ index: 1, id: "y", name: "g", arguments: "{}" }] })]);
    equal(reply.toolCalls, [{ id: "x", name: "f", arguments: '{"a": 1}' }, { id: "y", name: "g", arguments: "{}" }]);
  });
  test("an answer goes on after what it continues", () => {
    equal(replied([chunk(1, { text: " world" })], "hello").content, "hello world");
  });
  test("each end has its phase", () => {
    equal(replied([["1-1", { kind: "failed", error: { message: "no", code: "x" } }]]).error.message, "no");
    equal(replied([["1-1", { kind: "cancelled" }]]).phase, "cancelled");
    const reply = emptyReply();
    equal(addEvent(reply, "1-1", { kind: "finished", timings: { decode_tokens_per_s: 7 } }), true);
    equal(speedOf(reply), 7);
  });
  test("what is kept has no state of the stream", () => {
    equal("lastId" in keptFields(emptyReply()), false);
  });
  test("other choices are not mixed in", () => {
    equal(replied([chunk(1, { text: "a" }), chunk(2, { choice: 1, text: "b" })]).content, "a");
  });
}
