// Markdown as elements: the lexer's tokens, never HTML. What a model writes stays text.
import { h, html, useMemo, useRef } from "../../vendor/ui.js";
import { Lexer } from "../../vendor/markdown.js";
import { Copy } from "../parts/basics.js";
import { highlighted } from "./highlight.js";

const OPTIONS = { gfm: true, breaks: true };
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const LIVE_BLOCKS = 2; // of a text that grows, the last blocks may still change
const MOST_DEEP = 24; // quotes and lists inside each other
const MARKS = { strong: "strong", em: "em", del: "del" };

/**
 * A text in Markdown. While it grows, only its last blocks are read again.
 * @param {{text: string}} props
 */
export function Markdown({ text }) {
  const kept = useRef({ length: 0, blocks: [] });
  const blocks = grown(kept.current, text);
  return html`<div class="prose">${blocks.map((block, index) => h(Block, { key: index, token: block, raw: block.raw }))}</div>`;
}

/** The blocks of the text; those before the last few are frozen in `kept`. */
export function grown(kept, text) {
  if (!text.startsWith(kept.text ?? "")) {
    kept.length = 0;
    kept.blocks = [];
  }
  kept.text = text;
  const fresh = tokens(text.slice(kept.length));
  const frozen = fresh.slice(0, Math.max(0, fresh.length - LIVE_BLOCKS));
  const all = [...kept.blocks, ...fresh];
  // Only what is all there: a token's raw text may differ from its source by tabs and line ends.
  for (const token of frozen) {
    if (!text.startsWith(token.raw, kept.length)) break;
    kept.length += token.raw.length;
    kept.blocks.push(token);
  }
  return all;
}

function tokens(text) {
  try {
    return new Lexer(OPTIONS).lex(text);
  } catch {
    return [{ type: "text", raw: text, text }]; // too deep for the lexer
  }
}

function Block({ token, raw }) {
  return useMemo(() => block(token, 0), [raw]);
}

function block(token, depth) {
  if (depth > MOST_DEEP) return token.raw;
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return h(`h${Math.min(6, token.depth + 2)}`, null, inline(token.tokens, depth));
    case "code":
      return h(Code, { text: token.text, language: languageOf(token.lang) });
    case "hr":
      return h("hr");
    case "blockquote":
      return h("blockquote", null, blocks(token.tokens, depth));
    case "list":
      return list(token, depth);
    case "table":
      return table(token, depth);
    case "paragraph":
      return h("p", null, inline(token.tokens, depth));
    case "text":
      return token.tokens ? h("p", null, inline(token.tokens, depth)) : token.text;
    default:
      return h("p", null, token.raw); // HTML stays text
  }
}

const blocks = (list, depth) => (list ?? []).map((token, index) => h("div", { key: index, class: "block" }, block(token, depth + 1)));

function list(token, depth) {
  const items = token.items.map((item, index) => h("li", { key: index }, checkbox(item), listItem(item, depth)));
  return h(token.ordered ? "ol" : "ul", token.ordered ? { start: Number(token.start) || 1 } : null, items);
}

const checkbox = (item) =>
  item.task ? h("input", { type: "checkbox", checked: Boolean(item.checked), disabled: true, "aria-label": item.checked ? "done" : "not done" }) : null;

function listItem(item, depth) {
  return item.tokens
    .filter((token) => token.type !== "checkbox")
    .map((token, index) =>
      token.type === "text" || token.type === "paragraph"
        ? h("span", { key: index, class: item.loose ? "loose" : "" }, token.tokens ? inline(token.tokens.filter((t) => t.type !== "checkbox"), depth) : token.text)
        : h("div", { key: index }, block(token, depth + 1)),
    );
}

function table(token, depth) {
  const cells = (row, name) => row.map((cell, i) => h(name, { key: i, class: `to-${token.align[i] ?? "left"}` }, inline(cell.tokens, depth)));
  return h(
    "div",
    { class: "table-box", tabindex: 0, role: "region", "aria-label": "Table" },
    h("table", null, h("thead", null, h("tr", null, cells(token.header, "th"))), h("tbody", null, token.rows.map((row, i) => h("tr", { key: i }, cells(row, "td"))))),
  );
}

function inline(list, depth) {
  if (depth > MOST_DEEP) return (list ?? []).map((token) => token.raw).join("");
  return (list ?? []).map((token, index) => inlineOne(token, index, depth + 1));
}

function inlineOne(token, key, depth) {
  if (token.type in MARKS) return h(MARKS[token.type], { key }, inline(token.tokens, depth));
  switch (token.type) {
    case "codespan":
      return h("code", { key }, token.text);
    case "br":
      return h("br", { key });
    case "link":
      return link(token.href, token.tokens ? inline(token.tokens, depth) : token.text, key);
    case "image": // never fetched: a picture of a foreign server would tell it who reads
      return link(token.href, token.text || token.href, key);
    case "text":
      return token.tokens ? h("span", { key }, inline(token.tokens, depth)) : unescaped(token);
    case "escape":
      return token.text;
    default:
      return token.raw;
  }
}

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", "#39": "'" };

/** The lexer leaves entities as they are; the common ones become characters, which are text. */
const unescaped = (token) => token.text.replace(/&(amp|lt|gt|quot|apos|nbsp|#39);/g, (_, name) => ENTITIES[name]);

function link(href, content, key) {
  if (!SAFE_LINK.test(href)) return h("span", { key }, content);
  return h("a", { key, href, target: "_blank", rel: "noopener noreferrer nofollow" }, content);
}

const languageOf = (info) => (info ?? "").trim().split(/\s+/)[0].toLowerCase().slice(0, 30);

export function Code({ text, language = "", label = null }) {
  return html`<figure class="code">
    <figcaption><span>${label ?? (language || "text")}</span><${Copy} text=${text} what="code" label="Copy" /></figcaption>
    <pre tabindex="0" role="region" aria-label=${label ?? `Code ${language}`}><code>${highlighted(text, language)}</code></pre>
  </figure>`;
}
