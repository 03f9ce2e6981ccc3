// Before the first message: what to do next, in one button.
import { html, useEffect } from "../../../vendor/ui.js";
import { whyNoManagement } from "../../keys.js";
import { isOpen, models, readyModels } from "../../live/store.js";
import { diskModels, loadModel, readDisk } from "../../models.js";
import { Empty, Meter, Skeleton } from "../../parts/basics.js";
import { Icon } from "../../parts/icons.js";
import { attempt } from "../../parts/toast.js";
import { to } from "../../router.js";
import { bytes, percent } from "../../text/format.js";
import { chooseModel, model } from "./state.js";

export function Welcome() {
  useEffect(() => {
    readDisk();
  }, [models.value.length]);
  if (!isOpen.value && !models.value.length) return html`<${Skeleton} lines="3" />`;
  if (readyModels.value.length) {
    return html`<${Empty} icon="chat" title="Ask anything">
      <p>${model.value?.name ?? readyModels.value[0].name} is ready.</p>
    <//>`;
  }
  const loading = models.value[0];
  if (loading) {
    return html`<${Empty} icon="models" title=${`${loading.name} is ${loading.state}`}>
      <${Meter} fraction=${loading.fraction ?? 0} label=${`Loading ${loading.name}`} />
      <p class="num">${percent(loading.fraction)}</p>
    <//>`;
  }
  if (diskModels.value === null) return html`<${Skeleton} lines="3" />`;
  if (!diskModels.value.length) {
    return html`<${Empty} icon="models" title="No model yet">
      <p>Put a folder in MLX format or a .gguf file into the server's models folder. It is listed at once.</p>
    <//>`;
  }
  return html`<${Empty} icon="models" title="Load a model to begin">
    <${Suggestions} />
    <p><a href=${to("models")}>All models and load options</a></p>
  <//>`;
}

/** Up to four models, the demo first, then the smallest. */
function Suggestions() {
  const list = [...diskModels.value].sort((a, b) => rank(a) - rank(b)).slice(0, 4);
  const load = async (one) => {
    const found = await attempt(() => loadModel({ llm_model_name: one.name }));
    if (found) await chooseModel(found);
  };
  return html`<div class="suggestions">
    ${list.map(
      (one, index) => html`<button key=${one.name} class=${index ? "" : "primary"} disabled=${Boolean(whyNoManagement.value)} title=${whyNoManagement.value ?? ""} onClick=${() => load(one)}>
        <${Icon} name="play" size="16" />Load ${one.name}${one.sizeBytes ? html` <span class="num dim-in">${bytes(one.sizeBytes)}</span>` : null}
      </button>`,
    )}
  </div>`;
}

const rank = (one) => (one.name === "demo" ? -1 : (one.sizeBytes ?? 1e15));
