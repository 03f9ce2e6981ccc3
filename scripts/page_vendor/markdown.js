// Markdown to tokens; js/text/markdown.js makes elements of them.
export { Lexer } from "marked";
