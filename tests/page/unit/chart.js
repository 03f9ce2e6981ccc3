// The arithmetic of charts: round ticks, lines with gaps, the place under the pointer.
async ({ load, test, equal }) => {
  const { ticks, pieces, placeAt } = await load("js/parts/chart.js");
  await test("ticks are round and few", () => {
    equal(ticks(1.1, 3), [0, 0.5, 1]);
    equal(ticks(110, 3), [0, 50, 100]);
    equal(ticks(44, 3), [0, 20, 40]);
    equal(ticks(8.8e9, 3), [0, 5e9]);
  });
  await test("a tick that is the top itself is there", () => equal(ticks(30, 3), [0, 10, 20, 30]));
  await test("ticks of whole things are whole", () => equal(ticks(1.1, 3, 1), [0, 1]));
  await test("a line has a piece between each two gaps", () => {
    equal(pieces([null, 1, 2, null, null, 3]), [[1, 2], [5]]);
    equal(pieces([0, 0]), [[0, 1]]);
  });
  await test("what is unknown is no line", () => equal(pieces([null, undefined]), []));
  await test("the pointer is at a second of the chart, or beside it", () => {
    equal(placeAt(56, 664, 601), 0);
    equal(placeAt(356, 664, 601), 300);
    equal(placeAt(656, 664, 601), 600);
    equal(placeAt(20, 664, 601), null);
    equal(placeAt(660, 664, 601), null);
  });
};
