// The reducer of the live feed.
async ({ load, test, equal }) => {
  const { EMPTY, reduce, withPoint } = await load("js/live/state.js");
  const model = { id: "0", name: "fake", state: "ready" };
  const start = reduce(EMPTY, {
    event: "snapshot",
    data: { t: 1, models: { 0: model }, queues: { 0: { waiting: 3, order: ["a", "b", "c"] } }, jobs: { a: { id: "a" } } },
  });

  test("a delta changes only the fields it names", () => {
    const next = reduce(start, { event: "delta", data: { t: 2, models: { 0: { state: "loading" } } } });
    equal(next.models["0"], { ...model, state: "loading" });
    equal(next.jobs === start.jobs, true);
  });
  test("a queue drops its first jobs and gets new ones at its end", () => {
    const next = reduce(start, { event: "delta", data: { t: 2, queues: { 0: { waiting: 2, drop: 2, add: ["d"] } } } });
    equal(next.queues["0"], { waiting: 2, order: ["c", "d"] });
  });
  test("a queue in another order comes as a whole", () => {
    const next = reduce(start, { event: "delta", data: { t: 2, queues: { 0: { waiting: 2, order: ["c", "a"] } } } });
    equal(next.queues["0"].order, ["c", "a"]);
  });
  test("the queues of batches move like the others", () => {
    const next = reduce(start, { event: "delta", data: { t: 2, batch_queues: { 0: { waiting: 1, order: ["b"] } } } });
    equal([next.batch_queues["0"], next.queues === start.queues], [{ waiting: 1, order: ["b"] }, true]);
  });
  test("what is gone leaves", () => {
    const next = reduce(start, { event: "delta", data: { t: 2, models_gone: ["0"], jobs_gone: ["a"] } });
    equal([next.models, next.queues, next.jobs], [{}, {}, {}]);
  });
  test("a snapshot replaces everything", () => {
    equal(reduce(start, { event: "snapshot", data: { t: 9 } }), { ...EMPTY, t: 9 });
  });
  test("a second without news repeats the last values", () => {
    const one = withPoint(start, 100);
    equal(one.history["0"], [[100, 0, 0, null, 3, 0, 0, null]]);
    equal(withPoint(one, 100.5).history["0"].length, 1);
    equal(withPoint(one, 101).history["0"].length, 2);
  });
  test("ten minutes are kept", () => {
    let state = start;
    for (let t = 0; t < 700; t += 1) state = withPoint(state, t);
    equal(state.history["0"].length, 600);
    equal(state.history["0"][0][0], 100);
  });
}
