// The hub's events as they come, shared by all modules of a page.
//
//   import { subscribe } from "./live.js";
//   subscribe((events) => { ... }, after);
//
// A listener gets lists of {id, kind, actor, subject, payload, created_at}, oldest first. Nothing
// is missed: the stream resumes after the last event seen, also after a pause, in a tab that was
// hidden (which holds no connection), and when the hub was restarted.

const GATHER_MS = 120;
const PATIENCE_MS = 1500;
const RETRY_MS = [1000, 2000, 5000, 10000];

const listeners = new Set();
const button = document.getElementById("live");
const notice = document.getElementById("notice");

let source = null;
let last = null;
let batch = [];
let failures = 0;
let retryTimer = 0;
let noticeTimer = 0;
let isPaused = sessionStorage.getItem("paused") === "1";

/** Call `listen` with events newer than `after`, or than now. */
export function subscribe(listen, after = null) {
  listeners.add(listen);
  if (after !== null) last = last === null ? after : Math.min(last, after);
  connect();
  return () => listeners.delete(listen);
}

export function setPaused(paused) {
  isPaused = paused;
  sessionStorage.setItem("paused", paused ? "1" : "0");
  if (paused) disconnect();
  else connect();
  show();
}

function connect() {
  if (source || isPaused || document.hidden || !listeners.size) return show();
  clearTimeout(retryTimer);
  source = new EventSource(last === null ? "/live" : `/live?after=${last}`);
  source.addEventListener("position", (message) => {
    failures = 0;
    if (last === null || Number(message.data) < last) last = Number(message.data);
    tell("");
    show();
  });
  source.onmessage = (message) => {
    last = Number(message.lastEventId);
    if (!batch.length) setTimeout(deliver, GATHER_MS);
    batch.push(JSON.parse(message.data));
  };
  // The browser tries again by itself, but not after an answer that is no stream, a proxy's say.
  source.onerror = () => {
    if (source && source.readyState === EventSource.CLOSED) {
      disconnect();
      retryTimer = setTimeout(connect, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
    }
    if (!noticeTimer) noticeTimer = setTimeout(tell, PATIENCE_MS, "The hub does not answer. This page stays as it is and goes on by itself.");
    show();
  };
  show();
}

function disconnect() {
  if (source) source.close();
  source = null;
}

function deliver() {
  const events = batch;
  batch = [];
  for (const listen of listeners) listen(events);
}

function tell(text) {
  clearTimeout(noticeTimer);
  noticeTimer = text ? noticeTimer : 0;
  if (!notice) return;
  notice.textContent = text;
  notice.hidden = !text;
}

function show() {
  if (!button) return;
  const isOpen = source !== null && source.readyState === EventSource.OPEN;
  button.hidden = !listeners.size;
  button.dataset.state = isPaused ? "paused" : isOpen ? "live" : "waiting";
  button.textContent = isPaused ? "paused" : isOpen ? "live" : "connecting";
  button.title = isPaused ? "Go on with what happened meanwhile" : "Pause";
  button.setAttribute("aria-pressed", String(isPaused));
}

if (button) button.addEventListener("click", () => setPaused(!isPaused));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) disconnect();
  else connect();
  show();
});
// A page in the browser's back cache must hold no connection.
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);
