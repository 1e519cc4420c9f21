// Keeps `[data-fragment]` fresh: fetches the fragment after events, and now and then for what no
// event tells, such as the progress of a run. Only nodes that differ change, so scroll, focus,
// selection and what is unfolded stay. Nothing happens while paused or in a hidden tab.

import { subscribe } from "./live.js";
import { morph } from "./fresh.js";

const GATHER_MS = 400;
const REST_MS = 1500;
const TICK_MS = 10000;

const target = document.querySelector("[data-fragment]");
let isAsked = false;
let isBusy = false;
let timer = 0;

if (target) {
  subscribe(() => ask(GATHER_MS));
  setInterval(() => {
    if (!document.hidden && sessionStorage.getItem("paused") !== "1") ask(0);
  }, TICK_MS);
}

function ask(delay) {
  isAsked = true;
  if (!timer) timer = setTimeout(refresh, delay);
}

async function refresh() {
  timer = 0;
  if (isBusy || !isAsked) return;
  isBusy = true;
  isAsked = false;
  try {
    const answer = await fetch(target.dataset.fragment, { cache: "no-cache" });
    if (answer.ok) show(await answer.text());
  } catch {
    // The hub is away; live.js tells so, and the next event or tick comes when it is back.
  }
  setTimeout(() => {
    isBusy = false;
    if (isAsked) ask(0);
  }, REST_MS);
}

function show(html) {
  const { select } = target.dataset;
  // With the white space around it that the page has, or every node would be moved by one.
  const page = new DOMParser().parseFromString(select ? html : `<main>\n${html}\n</main>`, "text/html");
  const found = page.querySelector(select ?? "main");
  if (!found) return;
  if (!select) for (const { name, value } of target.attributes) found.setAttribute(name, value);
  morph(target, found);
  document.dispatchEvent(new CustomEvent("fresh"));
}
