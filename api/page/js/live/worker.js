// A shared worker: one live connection for all tabs with the same key, while one is visible.
import { LiveConnection } from "./connection.js";
import { EMPTY, reduce, withPoint } from "./state.js";

const GONE_MS = 15_000; // visible tabs say so every 5 s

/** Port -> time at which its tab last said that it is visible. */
const ports = new Map();
let connection = null;
let state = EMPTY;
let hasState = false;
let status = null;

globalThis.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => heard(port, data);
  port.start();
};

function heard(port, { key, isVisible }) {
  if (!isVisible) {
    ports.delete(port);
    if (ports.size === 0) close();
    return;
  }
  const isNew = !ports.has(port);
  ports.set(port, Date.now());
  if (connection === null) open(key);
  else if (isNew && hasState) port.postMessage({ event: "snapshot", data: state });
  else if (isNew && status) port.postMessage(status);
}

function open(key) {
  connection = new LiveConnection(key, (frame) => {
    note(frame);
    for (const port of ports.keys()) port.postMessage(frame);
  });
  connection.open();
}

function close() {
  connection?.close();
  connection = null;
  hasState = false;
  status = null;
}

function note(frame) {
  if (frame.event === "status" || frame.event === "lost") {
    hasState = false;
    status = frame;
    return;
  }
  state = reduce(state, frame);
  hasState = true;
  status = null;
}

setInterval(() => {
  if (hasState) state = withPoint(state, Date.now() / 1000);
  for (const [port, at] of ports) {
    if (Date.now() - at > GONE_MS) ports.delete(port);
  }
  if (ports.size === 0 && connection !== null) close();
}, 1000);
