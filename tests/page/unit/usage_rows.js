// Rows of usage: order, sums, and a file for spreadsheets.
async ({ load, test, equal }) => {
  const { csv, sorted, total } = await load("js/views/usage_rows.js");
  const none = { num_jobs: 0, num_failed: 0, num_cancelled: 0, prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0, total_tokens: 0 };
  const rows = [{ ...none, key: "bob", num_jobs: 9 }, { ...none, key: "alice", num_jobs: 10 }, { ...none, key: null, num_jobs: 2 }];
  const keys = (order) => sorted(rows, order).map((row) => row.key);
  await test("numbers are ordered as numbers", () => equal(keys({ by: "num_jobs", isDown: true }), ["alice", "bob", null]));
  await test("names are ordered as words", () => equal(keys({ by: "key", isDown: false }), [null, "alice", "bob"]));
  await test("the order of equal rows stays", () => equal(keys({ by: "num_failed", isDown: true }), ["bob", "alice", null]));
  await test("the rows that are given stay as they are", () => equal(rows[0].key, "bob"));
  await test("a sum is of all rows", () => equal(total(rows), { ...none, num_jobs: 21 }));
  await test("a file has a line for each row, its names quoted where they must be", () => {
    const row = { ...none, key: 'a "b", c', model: "x\ny", num_jobs: 3 };
    equal(csv([row], ["key", "model"]).split("\r\n"), [
      "key,model,num_jobs,num_failed,num_cancelled,prompt_tokens,cached_tokens,completion_tokens,total_tokens",
      '"a ""b"", c","x\ny",3,0,0,0,0,0,0',
      "",
    ]);
  });
  await test("a name is no formula", () => {
    for (const name of ["=1+1", "+1", "-1", "@x", "\t=1"]) equal(csv([{ ...none, key: name }], ["key"]).split("\r\n")[1].startsWith(`'${name}`), true, name);
  });
};
