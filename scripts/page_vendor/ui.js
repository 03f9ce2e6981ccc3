// Views: preact with its hooks, signals, and htm's templates bound to preact.
import htm from "htm";
import { h } from "preact";

export { h, render } from "preact";
export {
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "preact/hooks";
export { batch, computed, effect, signal } from "@preact/signals";
export const html = htm.bind(h);
