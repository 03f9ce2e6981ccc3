// Settings of this browser: key, appearance, stored chats; the server's version.
import { html, useState } from "../../vendor/ui.js";
import { checkKey } from "../api.js";
import { conversations, exported, removeAll } from "../chats/store.js";
import { caller, forgetKey, isKept, isRefused, key, setKey } from "../keys.js";
import { live } from "../live/store.js";
import { downloadText } from "../parts/basics.js";
import { confirm } from "../parts/dialog.js";
import { attempt, say } from "../parts/toast.js";
import { density, motion, presets, sendsOnEnter, theme } from "../preferences.js";
import { plural } from "../text/format.js";

export default function Settings() {
  return html`<div class="view narrow-view settings">
    <section aria-labelledby="look"><h2 id="look">Appearance</h2>
      <${Choice} title="Theme" of=${theme} options=${[["auto", "System"], ["light", "Light"], ["dark", "Dark"]]} />
      <${Choice} title="Density" of=${density} options=${[["comfortable", "Comfortable"], ["compact", "Compact"]]} />
      <${Choice} title="Motion" of=${motion} options=${[["auto", "System"], ["none", "None"]]} />
      <${Choice} title="Send with" of=${sendsOnEnter} options=${[[true, "Enter"], [false, "Ctrl Enter"]]} />
    </section>
    <${Key} />
    <${Stored} />
    <section aria-labelledby="about"><h2 id="about">About</h2>
      <dl class="facts">
        <div><dt>Server</dt><dd>mlx-gguf-server ${caller.value?.version ?? ""}</dd></div>
        <div><dt>Page</dt><dd><code>${live.value.build ?? caller.value?.build ?? ""}</code></dd></div>
        <div><dt>Management</dt><dd>${caller.value?.may_manage ? "allowed" : "needs the management key"}</dd></div>
      </dl>
      ${caller.value && !caller.value.is_key_required && html`<p><a href="/docs">Documentation of the API</a></p>`}
    </section>
  </div>`;
}

function Choice({ title, of, options }) {
  return html`<fieldset class="choice"><legend>${title}</legend>
    <div class="tabs">${options.map(([value, text]) => html`<button key=${text} type="button" aria-pressed=${of.value === value} onClick=${() => (of.value = value)}>${text}</button>`)}</div>
  </fieldset>`;
}

function Key() {
  const [problem, setProblem] = useState(null);
  const save = async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    setKey(String(data.get("key")).trim(), data.get("keep") === "on");
    const isTaken = await attempt(checkKey);
    if (isTaken) say("The server takes the key");
    else if (isRefused.value) setProblem("The server does not take this key.");
  };
  return html`<section aria-labelledby="key-title"><h2 id="key-title">Key</h2>
    <p class="dim">${key.value ? (isKept.value ? "A key is kept on this device." : "A key is kept until this tab is closed.") : "No key is set."} It is sent in a header, never in an address.</p>
    <form class="row-form" onSubmit=${save}>
      <label class="field">Key<input name="key" type="password" autocomplete="current-password" required /></label>
      <label class="check"><input type="checkbox" name="keep" checked=${isKept.value} />Keep it on this device</label>
      <button>Use key</button>
      ${key.value && html`<button type="button" onClick=${forgetKey}>Forget key</button>`}
    </form>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
  </section>`;
}

function Stored() {
  const num = conversations.value?.length ?? 0;
  const remove = async () => {
    const isSure = await confirm({ title: "Delete all chats", text: `${plural(num, "chat")} and all presets are deleted from this browser. There is no copy elsewhere.`, yes: "Delete all" });
    if (!isSure) return;
    await attempt(removeAll);
    presets.value = [];
    say("All chats are deleted");
  };
  return html`<section aria-labelledby="stored"><h2 id="stored">Stored in this browser</h2>
    <p class="dim">${conversations.value === null ? "Chats" : plural(num, "chat")} and ${plural(presets.value.length, "preset")}. The server keeps no chats.</p>
    <div class="actions start">
      <button onClick=${() => attempt(async () => downloadText("chats.json", await exported()))}>Export all chats</button>
      <button class="danger" onClick=${remove}>Delete all chats</button>
    </div>
  </section>`;
}
