// Pages are addressed behind "#", so that the server sees one path and no key is ever in a URL.
import { signal } from "../vendor/ui.js";

export const PAGES = [
  { name: "chat", title: "Chat", icon: "chat", letter: "c" },
  { name: "compare", title: "Compare", icon: "compare", letter: "o" },
  { name: "models", title: "Models", icon: "models", letter: "m" },
  { name: "queue", title: "Queue", icon: "queue", letter: "q" },
  { name: "metrics", title: "Metrics", icon: "metrics", letter: "e" },
  { name: "connect", title: "Connect", icon: "connect", letter: "n" },
  { name: "settings", title: "Settings", icon: "settings", letter: "s" },
];

function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/");
  return {
    page: page || "chat",
    id: rest.length ? decode(rest.join("/")) : null,
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

/** {page, id, query}: "#/job/abc?x=1" is page "job", id "abc", query {x: "1"}. */
export const route = signal(parse(location.hash));

addEventListener("hashchange", () => {
  route.value = parse(location.hash);
});

/** The address of a page, for links. */
export function to(page, id = null, query = {}) {
  const search = new URLSearchParams(query).toString();
  return `#/${page}${id === null ? "" : "/" + encodeURIComponent(id)}${search ? "?" + search : ""}`;
}

export function go(page, id = null, query = {}) {
  location.hash = to(page, id, query);
}

/** The same without a new entry in the history. */
export function replace(page, id = null, query = {}) {
  history.replaceState(null, "", to(page, id, query));
  route.value = parse(location.hash);
}
