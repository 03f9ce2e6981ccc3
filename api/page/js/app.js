// The shell: rail, header, banners, the page of the route; login where the server wants a key.
import { html, useEffect, useErrorBoundary, useState } from "../vendor/ui.js";
import { isRefused } from "./keys.js";
import { connection, heardAt, isOutdated, live, memoryBytes, memoryLimit, now, numRunning, numWaiting } from "./live/store.js";
import { Failure, lazy, Meter, Skeleton } from "./parts/basics.js";
import { Questions } from "./parts/dialog.js";
import { isHelpOpen, isPaletteOpen, useShortcuts } from "./parts/shortcuts.js";
import { Icon } from "./parts/icons.js";
import { Toasts } from "./parts/toast.js";
import { PAGES, route, to } from "./router.js";
import { bytes, count, duration } from "./text/format.js";
import Chat from "./views/chat/page.js";

/** Pages other than Chat are loaded when they are first shown. */
const LOADERS = {
  compare: () => import("./views/compare.js"),
  models: () => import("./views/models.js"),
  queue: () => import("./views/queue.js"),
  batches: () => import("./views/batches.js"),
  job: () => import("./views/job.js"),
  metrics: () => import("./views/metrics.js"),
  connect: () => import("./views/connect.js"),
  settings: () => import("./views/settings.js"),
  usage: () => import("./views/usage.js"),
};
/** Pages that belong to another one: their titles, and that one. */
const SUBPAGES = { job: ["Job", "queue"], batches: ["Batches", "queue"], usage: ["Usage", "metrics"] };
const loaded = new Map([["chat", Chat]]);

const Help = lazy(() => import("./parts/palette.js"), "Help");
const Palette = lazy(() => import("./parts/palette.js"), "Palette");
const Login = lazy(() => withStyle(import("./views/login.js")));

let style = null;

/** The other pages' style comes with the first of them, before it is shown. */
function withStyle(module) {
  style ??= new Promise((resolve) => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL("../css/views.css", import.meta.url).href;
    link.onload = link.onerror = resolve;
    document.head.append(link);
  });
  return style.then(() => module);
}

export function App() {
  useShortcuts();
  const { page } = route.value;
  const title = SUBPAGES[page]?.[0] ?? PAGES.find((one) => one.name === page)?.title ?? "Not found";
  useEffect(() => {
    const running = numRunning.value;
    document.title = `${running ? `${running} running – ` : ""}${title} – mlx-gguf-server`;
  }, [title, numRunning.value]);
  return html`<div class="app">
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <${Rail} page=${SUBPAGES[page]?.[1] ?? page} />
    <${Head} title=${title} />
    <${Banners} />
    <main id="main" tabindex="-1" class=${connection.value === "open" || connection.value === "connecting" ? "" : "is-stale"}>
      ${isRefused.value ? html`<${Login} />` : html`<${Outlet} page=${page} />`}
    </main>
    <${Toasts} />
    <${Questions} />
    ${isPaletteOpen.value && html`<${Palette} />`}
    ${isHelpOpen.value && html`<${Help} />`}
  </div>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Rail({ page }) {
  return html`<nav class="rail" aria-label="Pages">
    ${PAGES.map(
      (one) => html`<a key=${one.name} href=${to(one.name)} aria-current=${one.name === page ? "page" : null}>
        <${Icon} name=${one.icon} /><span>${one.title}</span>
      </a>`,
    )}
  </nav>`;
}

const STATES = {
  open: "Connected",
  connecting: "Connecting",
  away: "Not connected",
  redis: "Redis is away",
  supervisor: "No supervisor",
  refused: "Key needed",
};

function Head({ title }) {
  const total = memoryLimit.value;
  const word = STATES[connection.value];
  return html`<header class="head">
    <h1>${title}</h1>
    <span class="grow"></span>
    ${total > 0 &&
    html`<a class="head-fact memory" href=${to("models")} title="Memory of the loaded models">
      <${Meter} fraction=${memoryBytes.value / total} label="Memory of the loaded models" />
      <span class="num">${bytes(memoryBytes.value)}<span class="dim"> of ${bytes(total)}</span></span>
    </a>`}
    <a class="head-fact" href=${to("queue")} title="Running and waiting jobs">
      <span class="num">${count(numRunning.value)}<span class="dim"> running</span></span>
      <span class="num">${count(numWaiting.value)}<span class="dim"> waiting</span></span>
    </a>
    <button class="quiet" aria-label="Search and commands" title="Search and commands (Ctrl K)" onClick=${() => (isPaletteOpen.value = true)}><${Icon} name="search" /></button>
    <span class=${`link-state is-${connection.value}`} role="status" title=${word}><span class="mark" aria-hidden="true"></span><span class="offscreen">${word}</span></span>
  </header>`;
}

function Banners() {
  const state = connection.value;
  const age = heardAt.value ? ` What is shown is ${duration(now.value - heardAt.value / 1000)} old.` : "";
  if (isOutdated.value) {
    return html`<div class="banner" role="status">
      <span>The server has a newer version of this page.</span>
      <button class="small" onClick=${() => location.reload()}>Reload</button>
    </div>`;
  }
  if (state === "away") return html`<div class="banner is-fail" role="status"><${Icon} name="alert" size="16" /><span>The server cannot be reached. Trying again.${age}</span></div>`;
  if (state === "redis") return html`<div class="banner is-fail" role="status"><${Icon} name="alert" size="16" /><span>The server has lost its Redis. It continues when Redis is back.${age}</span></div>`;
  if (state === "open" && live.value.supervisors === 0) {
    return html`<div class="banner is-fail" role="status"><${Icon} name="alert" size="16" /><span>No supervisor is running: models are neither loaded nor restarted.</span></div>`;
  }
  return null;
}

function Outlet({ page }) {
  const [, setLoaded] = useState(0);
  const [failure, setFailure] = useState(null);
  const [broken, reset] = useErrorBoundary((error) => console.error(error));
  useEffect(() => {
    setFailure(null);
    reset();
    if (loaded.has(page) || !(page in LOADERS)) return;
    withStyle(LOADERS[page]()).then(
      (module) => {
        loaded.set(page, module.default);
        setLoaded((num) => num + 1);
      },
      () => setFailure({ message: "This part of the page could not be loaded. The server may have a newer version." }),
    );
  }, [page]);
  if (broken) return html`<div class="view"><${Failure} error=${{ message: "This page has failed. The others work.", code: broken.message }} onRetry=${reset} /></div>`;
  if (failure) return html`<div class="view"><${Failure} error=${failure} onRetry=${() => location.reload()} /></div>`;
  const View = loaded.get(page);
  if (View) return html`<${View} />`;
  if (page in LOADERS) return html`<div class="view"><${Skeleton} lines="6" /></div>`;
  return html`<div class="view"><p>There is no such page. <a href=${to("chat")}>Chat</a></p></div>`;
}

