// The key, where the server wants one. Until it is right, nothing else is shown or asked for.
import { html, useState } from "../../vendor/ui.js";
import { checkKey } from "../api.js";
import { resumeAll } from "../chats/answers.js";
import { isRefused, key, setKey } from "../keys.js";

export default function Login() {
  const [problem, setProblem] = useState(key.value ? "The server does not take this key." : null);
  const [isBusy, setBusy] = useState(false);
  const onSubmit = async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const given = String(data.get("key")).trim();
    setBusy(true);
    setProblem(null);
    setKey(given, data.get("keep") === "on");
    try {
      if (await checkKey()) resumeAll();
      else setProblem(isRefused.value ? "The server does not take this key." : "The server cannot be reached.");
    } catch (error) {
      setProblem(error.message);
    }
    setBusy(false);
  };
  return html`<section class="login" aria-label="Key">
    <form class="stack" onSubmit=${onSubmit}>
      <h2>This server wants a key</h2>
      <p class="dim">It is the value of <code>MGS_API_KEY</code>, or of <code>MGS_MANAGEMENT_KEY</code> to load models, too.</p>
      <label class="field">Key<input name="key" type="password" autocomplete="current-password" required autofocus aria-describedby="key-problem" aria-invalid=${Boolean(problem)} /></label>
      <label class="check"><input type="checkbox" name="keep" />Keep it on this device</label>
      <p id="key-problem" class="problem" role="alert">${problem}</p>
      <div class="actions"><button class="primary" disabled=${isBusy}>Continue</button></div>
    </form>
  </section>`;
}
