// Markdown as elements.
async ({ load, test, equal }) => {
  const { grown, Markdown } = await load("js/text/markdown.js");
  const { h, render } = await load("vendor/ui.js");
  const shown = (text) => {
    const box = document.createElement("div");
    render(h(Markdown, { text }), box);
    return box;
  };

  test("marks become elements", () => {
    const box = shown("# A\n\n**b** *c* `d` ~~e~~\n\n1. x\n2. y\n\n> q\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n");
    for (const name of ["h3", "strong", "em", "code", "del", "ol li", "blockquote", "table td"]) equal(box.querySelector(name) !== null, true, name);
    equal(box.querySelector("td.to-right").textContent, "2");
  });
  test("HTML stays text", () => {
    const box = shown("<b>x</b> and <script>alert(1)</script>");
    equal([box.querySelector("b"), box.querySelector("script")], [null, null]);
    equal(box.textContent.includes("<script>"), true);
  });
  test("links lead to web and mail only", () => {
    const box = shown("[a](https://a.example) [b](javascript:alert(1)) [c](mailto:x@y.z) ![d](https://d.example/x.png)");
    equal([...box.querySelectorAll("a")].map((a) => a.getAttribute("href")), ["https://a.example", "mailto:x@y.z", "https://d.example/x.png"]);
    equal(box.querySelectorAll("img").length, 0);
    equal([...box.querySelectorAll("a")].every((a) => a.rel.includes("noopener")), true);
  });
  test("entities become characters", () => equal(shown("a &lt; b &amp; c").textContent, "a < b & c"));
  test("a text that grows gives the same as the whole", () => {
    const text = "# T\n\nfirst *para*\n\n- a\n- b\n  - c\n\n```py\nx = 1\n\ny = 2\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nlast **one**\n";
    const kept = { length: 0, blocks: [] };
    let blocks = [];
    for (let n = 1; n <= text.length; n += 3) blocks = grown(kept, text.slice(0, n));
    blocks = grown(kept, text);
    const plain = (list) => list.filter((one) => one.type !== "space").map((one) => [one.type, one.raw.trim()]);
    equal(plain(blocks), plain(grown({ length: 0, blocks: [] }, text)));
  });
  test("a text that is replaced is read anew", () => {
    const kept = { length: 0, blocks: [] };
    grown(kept, "a\n\nb\n\nc\n\nd");
    equal(grown(kept, "other").map((one) => one.raw), ["other"]);
  });
  test("what is very deep is no error", () => equal(shown("> ".repeat(3000) + "x").textContent.length > 0, true));
}
