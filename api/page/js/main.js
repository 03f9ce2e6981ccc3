// The start: asks what the key may do, then shows the page and follows the feed.
import { h, render } from "../vendor/ui.js";
import { checkKey } from "./api.js";
import { App } from "./app.js";
import { resumeAll } from "./chats/answers.js";
import { startLive } from "./live/store.js";
import { applyPreferences } from "./preferences.js";

applyPreferences();
render(h(App), document.getElementById("app"));
checkKey()
  .catch(() => false)
  .then((isKnown) => {
    startLive();
    if (isKnown) resumeAll();
  });
