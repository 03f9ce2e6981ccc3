// How fast a batch is, and what its file asks for.
async ({ load, test, equal }) => {
  const { firstUrl, isActive, isOver, paceOf } = await load("js/views/batch_pace.js");
  test("a pace needs some seconds", () => {
    equal(paceOf([], 10), null);
    equal(paceOf(undefined, 10), null);
    equal(paceOf([{ t: 0, done: 0, tokens: 0 }, { t: 2, done: 1, tokens: 9 }], 10), null);
  });
  test("a pace is of the readings", () => {
    const samples = [{ t: 0, done: 2, tokens: 100 }, { t: 5, done: 4, tokens: 150 }, { t: 10, done: 7, tokens: 200 }];
    equal(paceOf(samples, 12), { tokensPerS: 10, leftS: 10 });
  });
  test("a batch that stands still has no end", () => {
    equal(paceOf([{ t: 0, done: 2, tokens: 5 }, { t: 9, done: 2, tokens: 5 }], 12), { tokensPerS: 0, leftS: null });
  });
  test("four statuses are ends", () => {
    const over = ["completed", "failed", "expired", "cancelled", "cancelling", "in_progress"].filter((status) => isOver({ status }));
    equal(over, ["completed", "failed", "expired", "cancelled"]);
    equal(isActive({ status: "finalizing" }), true);
  });
  test("the first line of a file names its route", () => {
    equal(firstUrl('\ufeff{"url":"/v1/completions"}\r\n{"url":"x"}'), "/v1/completions");
    equal(firstUrl('{"url":"/v1/moderations"}'), null);
    equal(firstUrl("no json"), null);
    equal(firstUrl('{"url":"/v1/comp'), null);
  });
}
