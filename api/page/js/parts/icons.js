// Icons as paths on a 20 × 20 grid, drawn with the text's colour.
import { html } from "../../vendor/ui.js";

const PATHS = {
  chat: "M4 4.5h12a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1H9l-4 3v-3H4a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1Z",
  compare: "M3.5 4h5.5v12H3.5zM11 4h5.5v12H11z",
  models: "M10 2.8 16.5 6v8L10 17.2 3.5 14V6ZM3.7 6.1 10 9.4l6.3-3.3M10 9.5v7.5",
  queue: "M3 5h14M3 10h10M3 15h6",
  metrics: "M3 16.5h14M5 13.5 8.5 9l3 2.5L16 5",
  connect: "M7.5 12.5 5 10l2.5-2.5M12.5 7.5 15 10l-2.5 2.5M11 5.5l-2 9",
  settings: "M3 6h7M14 6h3M3 14h3M10 14h7M12 4v4M8 12v4",
  plus: "M10 4v12M4 10h12",
  send: "M10 16V4.5M5 9.2l5-5 5 5",
  stop: "M6 6h8v8H6z",
  close: "m5.5 5.5 9 9M14.5 5.5l-9 9",
  check: "m4.5 10.5 3.7 3.7 7.3-8",
  copy: "M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3",
  edit: "M4 16l.8-3.4L13.2 4.2l2.6 2.6-8.4 8.4ZM11.5 6l2.6 2.6",
  again: "M15.8 9A6 6 0 1 0 15.5 12M16 4.5V9h-4.5",
  more: "M4.6 10a.6.6 0 1 1-.01 0M10.1 10a.6.6 0 1 1-.01 0M15.6 10a.6.6 0 1 1-.01 0",
  left: "M12 5l-5 5 5 5",
  right: "m8 5 5 5-5 5",
  down: "m5 8 5 5 5-5",
  search: "M9 3.8a5.2 5.2 0 1 0 0 10.4A5.2 5.2 0 0 0 9 3.8ZM13 13l3.5 3.5",
  menu: "M3 5.5h14M3 10h14M3 14.5h14",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.7 10h7.6l.7-10M8.3 9v4.5M11.7 9v4.5",
  download: "M10 3.5v9M6 9l4 4 4-4M4 16.5h12",
  upload: "M10 13V4M6 7.5l4-4 4 4M4 16.5h12",
  branch: "M6 4v12M6 12c0-3 8-1.5 8-5.5V4M3.8 14.2 6 16.5l2.2-2.3",
  play: "M6.5 4.5v11l9-5.5Z",
  tune: "M4 5.5h6M14 5.5h2M4 10h2M10 10h6M4 14.5h7M15 14.5h1M12 3.7v3.6M8 8.2v3.6M13 12.7v3.6",
  alert: "M10 3.5 17.5 16.5h-15ZM10 8.3v3.6M10 14.2h.01",
  swap: "M4 7h11.5M12.5 4l3 3-3 3M16 13H4.5M7.5 10l-3 3 3 3",
  tool: "M12.5 3.6a4 4 0 0 0-4 5.2L3.7 13.6l2.7 2.7 4.8-4.8a4 4 0 0 0 5.2-5l-2.5 2.4-2.4-.6-.6-2.4Z",
  link: "M8.5 6H6a4 4 0 0 0 0 8h2.5M11.5 6H14a4 4 0 0 1 0 8h-2.5M7 10h6",
  table: "M3.5 4.5h13v11h-13zM3.5 8.2h13M3.5 11.8h13M8 4.5v11",
  pin: "M7 3.5h6l-.6 5 2.6 3H5l2.6-3ZM10 11.5v5",
  up: "M5 12l5-5 5 5",
};

/** An icon; `label` only where no text stands beside it. */
export function Icon({ name, size = 20 }) {
  return html`<svg class="icon" viewBox="0 0 20 20" width=${size} height=${size} aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} />
  </svg>`;
}
