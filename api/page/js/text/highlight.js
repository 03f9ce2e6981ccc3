// Code in colours: prism's tokens as elements. Loaded with the first block of code.
import { h, signal } from "../../vendor/ui.js";

const MOST_CHARS = 40_000; // longer code stays plain

/** The vendored module, once loaded. */
const prism = signal(null);
let isAsked = false;

const ALIASES = {
  cs: "csharp",
  dockerfile: "docker",
  html: "markup",
  js: "javascript",
  mjs: "javascript",
  py: "python",
  rb: "ruby",
  rs: "rust",
  sh: "bash",
  shell: "bash",
  svg: "markup",
  ts: "typescript",
  xml: "markup",
  yml: "yaml",
  zsh: "bash",
};

/** What to show for the code: text, or elements of its tokens. */
export function highlighted(code, language) {
  const name = ALIASES[language] ?? language;
  if (!name || code.length > MOST_CHARS) return code;
  if (prism.value === null) {
    load();
    return code;
  }
  const grammar = Object.hasOwn(prism.value.languages, name) ? prism.value.languages[name] : null;
  if (grammar === null || typeof grammar === "function") return code;
  return elements(prism.value.tokenize(code, grammar));
}

function load() {
  if (isAsked) return;
  isAsked = true;
  import("../../vendor/code.js").then(
    (found) => {
      prism.value = found;
    },
    () => {
      isAsked = false; // without the network, the code stays plain
    },
  );
}

function elements(tokens) {
  return tokens.map((token, index) => {
    if (typeof token === "string") return token;
    const content = Array.isArray(token.content) ? elements(token.content) : String(token.content);
    return h("span", { key: index, class: `t-${token.type}` }, content);
  });
}
