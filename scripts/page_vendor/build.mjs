// Writes the three files of api/page/vendor and VENDOR.json. Run by `make page-vendor`.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { buildSync } from "esbuild";

const OUT = new URL("../../api/page/vendor/", import.meta.url).pathname;
const CONTENTS = {
  "ui.js": ["preact", "@preact/signals", "@preact/signals-core", "htm"],
  "markdown.js": ["marked"],
  "code.js": ["prismjs"],
};

const files = {};
for (const [file, packages] of Object.entries(CONTENTS)) {
  buildSync({
    entryPoints: [file],
    outfile: OUT + file,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    banner: { js: `/* ${packages.map(described).join(", ")}. Built by make page-vendor. */` },
  });
  const sha256 = createHash("sha256").update(readFileSync(OUT + file)).digest("hex");
  files[file] = { sha256, packages: Object.fromEntries(packages.map(facts)) };
}
const named = [...new Set(Object.values(CONTENTS).flat())];
writeFileSync(OUT + "LICENSES.txt", named.map(licence).join("\n\n"));
writeFileSync(OUT + "VENDOR.json", JSON.stringify({ files }, null, 2) + "\n");

function manifest(name) {
  return JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
}

function licence(name) {
  const folder = `node_modules/${name}/`;
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  return `${described(name)}\n\n${file ? readFileSync(folder + file, "utf8").trim() : ""}\n`;
}

function described(name) {
  const { version, license } = manifest(name);
  return `${name} ${version} (${license})`;
}

function facts(name) {
  const { version, license } = manifest(name);
  return [name, { version, license }];
}
