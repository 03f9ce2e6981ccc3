// Views: preact with its hooks, signals, and htm's templates bound to preact.
import htm from "htm";
import { h } from "preact";

export { Component, Fragment, h, render } from "preact";
export {
  useCallback,
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "preact/hooks";
export { batch, computed, effect, signal, untracked, useSignal } from "@preact/signals";
export const html = htm.bind(h);
