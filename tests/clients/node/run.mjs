// Runs the cases of one client: `node run.mjs PROGRAM URL MODEL`.
//
// A case is a function that the program exports; how each ended is told as a line of JSON, as
// programs/run.py does.

const [program, url, model] = process.argv.slice(2);
const cases = await import(`./${program}.mjs`);

for (const [name, run] of Object.entries(cases)) {
  console.log(JSON.stringify({ case: name, outcome: await outcome(run) }));
}

async function outcome(run) {
  try {
    await run({ url, openaiUrl: `${url}/v1`, model });
  } catch (error) {
    return String(error?.stack ?? error);
  }
  return "ok";
}
