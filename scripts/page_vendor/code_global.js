// The languages add themselves to a global Prism.
import Prism from "prismjs/components/prism-core.js";
globalThis.Prism = Prism;
