// Keeps a server-rendered page fresh: when something happens, fetch it again and change only what
// differs, so that scroll, selection, focus and unfolded details stay. `<main data-live>` is kept
// fresh on every event, `data-live="post run"` only on events of these kinds.

import { subscribe } from "./live.js";

const REST_MS = 2000;

const main = document.querySelector("main[data-live]");
let isAsked = false;
let isBusy = false;

if (main) subscribe(notify);

function notify(events) {
  const kinds = main.dataset.live.split(" ").filter(Boolean);
  if (!kinds.length || events.some((event) => kinds.includes(event.kind))) {
    isAsked = true;
    refresh();
  }
}

async function refresh() {
  if (isBusy || !isAsked) return;
  isBusy = true;
  isAsked = false;
  try {
    const answer = await fetch(location.href, { cache: "no-cache" });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (fresh) morph(main, fresh);
      document.dispatchEvent(new CustomEvent("fresh"));
    }
  } catch {
    // The hub is away; the next event comes when it is back.
  }
  setTimeout(() => {
    isBusy = false;
    refresh();
  }, REST_MS);
}

/** Make `old` what `fresh` is, keeping every node that did not change. */
export function morph(old, fresh) {
  syncAttributes(old, fresh);
  const kept = new Map();
  for (const child of old.children) if (child.id) kept.set(child.id, child);
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? kept.get(next.id) : at && !at.id && alike(at, next) ? at : null;
    if (!same) {
      old.insertBefore(document.importNode(next, true), at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same.isEqualNode(next)) continue;
    if (same.nodeType === Node.ELEMENT_NODE) morph(same, next);
    else same.nodeValue = next.nodeValue;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
}

function syncAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // Whether details are open is the reader's.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  }
}
