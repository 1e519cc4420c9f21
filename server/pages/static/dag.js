// The DAG explorer: ties the store, the layout, the camera, the filters and the panel together.

import { Camera } from "./dag-camera.js";
import { draw } from "./dag-draw.js";
import { COLUMN, LANE, Layout } from "./dag-layout.js";
import { Above } from "./dag-above.js";
import { Minimap } from "./dag-minimap.js";
import { Paint } from "./dag-paint.js";
import { Card, Panel } from "./dag-panel.js";
import { Plot } from "./dag-plot.js";
import { Store } from "./dag-store.js";
import { Tools, readState, showLegend, writeState } from "./dag-tools.js";
import { subscribe } from "./live.js";
import { listenToKeys } from "./dag-keys.js";

/** More commits than this begin folded. */
const FOLD_FROM = 4000;
/** How much more one axis may be drawn together than the other. */
const STRETCH = 3;
const KINDS = new Set(["commit", "run", "result", "record", "import"]);
const byId = (id) => document.getElementById(id);

const store = new Store();
const layout = new Layout(store);
const paint = new Paint(store);
const state = readState();
const darkness = matchMedia("(prefers-color-scheme: dark)");
const views = {};

let found = null;
let selected;
let isFolded = false;
let isDrawn = false;
let plot = null;

const scene = {
  store, paint, x: [], y: [], chains: [], lineage: null, theme: readTheme(), isGraph: true, track: 0,
  hidden: (i) => scene.isGraph && Boolean(layout.folded[i]),
  isChained: (i) => ends.has(i),
};
let ends = new Set();

const camera = new Camera(byId("above"), { onMove: redraw, onHover: hover, onPick: pick });
scene.camera = camera;
const above = new Above(byId("above"), scene);
const minimap = new Minimap(byId("minimap"), scene, bounds);
const card = new Card();
const panel = new Panel({ onCommit: goTo, onClose: () => select(undefined) });
const tools = new Tools(state, change);

// Data ------------------------------------------------------------------------------------------

let isLoading = false;
let isStale = false;
/** Whether all that there was at the start is here. */
let isWhole = false;

/** Fetch what is new until there is no more; calls while it runs make it go round once more. */
async function load() {
  isStale = true;
  if (isLoading) return;
  isLoading = true;
  try {
    while (isStale) {
      isStale = false;
      const before = store.size;
      const hasMore = await store.fetchNew();
      isStale ||= hasMore;
      if (found && store.size > before) await search();
      grow(before, hasMore);
    }
  } catch (error) {
    if (!store.size) byId("counts").textContent = `The DAG could not be loaded: ${error.message}. Reload to try again.`;
  }
  isLoading = false;
}

function grow(before, hasMore) {
  layout.grow();
  if (isWhole) above.welcome(before, store.size);
  else {
    // What there was at the start, in one piece or several; from now on nothing moves any more.
    refold(state.fold === "1" || (state.fold === "" && store.size > FOLD_FROM));
    place();
    home();
    isWhole = !hasMore;
    if (isWhole) performance.mark("dag-whole");
  }
  repaint();
  card.forget();
}

function refold(wanted) {
  isFolded = wanted;
  if (wanted) layout.fold();
  else layout.unfold();
  scene.chains = layout.chains;
  ends = new Set(layout.chains.map(({ to }) => to));
}

/** Where every commit is in this view. */
function place() {
  scene.isGraph = state.view !== "score";
  scene.track = Number(state.track) || 0;
  if (!scene.isGraph) scene.track ||= store.tracks[0]?.id ?? 0;
  scene.chains = scene.isGraph ? layout.chains : [];
  const where = scene.isGraph ? layout : plot?.track === scene.track && !plot.isEmpty ? plot : (plot = new Plot(store, scene.track));
  for (let i = 0; i < store.size; i++) {
    scene.x[i] = where.x(i);
    scene.y[i] = where.y(i);
  }
}

/** Look anew at places, colours and counts. */
function repaint() {
  place();
  paint.update(state, found, darkness.matches, scene.track);
  scene.lineage = selected === undefined ? null : store.lineage(selected);
  tools.show(store, isFolded);
  showLegend(paint.legend, scene.theme.dim);
  count();
  minimap.update();
  redraw();
}

function count() {
  let leaves = 0;
  for (let i = 0; i < store.size; i++) if (store.isLeaf(i)) leaves++;
  const parts = [`${store.size.toLocaleString("en")} commits`, `${leaves.toLocaleString("en")} in the frontier`];
  if (store.running.size) parts.push(`${store.running.size} running`);
  if (paint.isFiltered) parts.unshift(`${paint.matching.toLocaleString("en")} match`);
  byId("counts").textContent = store.size ? parts.join(" · ") : "No commits yet. They appear here as soon as an agent pushes one.";
  Object.assign(byId("stage").dataset, { commits: store.size, view: state.view });
  if (isWhole) byId("stage").dataset.whole = "1";
}

// Drawing ---------------------------------------------------------------------------------------

function redraw() {
  if (isDrawn) return;
  isDrawn = true;
  requestAnimationFrame(() => {
    isDrawn = false;
    draw(byId("scene"), scene, scene.isGraph ? null : (context) => plot.draw(context, camera, scene.theme, scene));
    above.draw();
    minimap.draw();
    if (store.event !== null && !byId("stage").dataset.ready) {
      byId("stage").dataset.ready = "1";
      performance.mark("dag-ready");
    }
  });
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const names = { paper: "--paper", ink: "--ink", dim: "--dim", rule: "--rule", faint: "--faint", accent: "--accent", merge: "--merge" };
  return Object.fromEntries(Object.entries(names).map(([name, key]) => [name, style.getPropertyValue(key).trim()]));
}

function bounds() {
  if (!scene.isGraph) return plot.bounds;
  const box = { left: 0, right: 1, top: 0, bottom: 1 };
  for (let i = 0; i < store.size; i++) {
    const [x, y] = [scene.x[i], scene.y[i]];
    if (x < box.left) box.left = x;
    if (x > box.right) box.right = x;
    if (y < box.top) box.top = y;
    if (y > box.bottom) box.bottom = y;
  }
  return { left: box.left - COLUMN, right: box.right + COLUMN, top: box.top - 2 * LANE, bottom: box.bottom + 2 * LANE };
}

// Where to look ----------------------------------------------------------------------------------

function fitAll() {
  const box = bounds();
  const kx = (camera.width - panel.width) / (box.right - box.left);
  const ky = (camera.height - 90) / (box.bottom - box.top);
  // A long or a tall DAG is drawn together, but stays recognizable.
  camera.kx = scene.isGraph ? Math.min(kx, STRETCH * ky, 1.5) : kx;
  camera.ky = scene.isGraph ? Math.min(ky, STRETCH * kx, 1.5) : ky;
  camera.centre((box.left + box.right) / 2, (box.top + box.bottom) / 2, (camera.width - panel.width) / 2, (camera.height - 10) / 2);
}

function frame() {
  camera.max = scene.isGraph ? 6 : 400;
  camera.evens = scene.isGraph;
}

/** Everything if that can be read, else the frontier. */
function home() {
  frame();
  fitAll();
  const start = state.c ? store.find(state.c) : undefined;
  if (start !== undefined) select(start, { isOpening: true });
  if (scene.isGraph && Math.min(camera.kx, camera.ky) < 0.35) showFrontier();
  if (start !== undefined) camera.reveal(scene.x[start], scene.y[start], panel.width);
}

function showFrontier() {
  if (!scene.isGraph) return fitAll();
  camera.kx = camera.ky = Math.max(Math.min(camera.kx, camera.ky), 0.62);
  let tip = 0;
  for (let i = 1; i < store.size; i++) if (scene.x[i] > scene.x[tip]) tip = i;
  return camera.centre(scene.x[tip], scene.y[tip], (camera.width - panel.width) * 0.88, camera.height / 2);
}

// What the reader does ---------------------------------------------------------------------------

async function change(name) {
  if (name === "go") return goToMatch();
  if (name === "view") {
    views[scene.isGraph ? "graph" : "score"] = { kx: camera.kx, ky: camera.ky, tx: camera.tx, ty: camera.ty };
    place();
    frame();
    const before = views[state.view];
    if (before) Object.assign(camera, before);
    else home();
  }
  if (name === "fold") {
    const anchor = selected ?? nearest({ x: camera.width / 2, y: camera.height / 2 }, Infinity);
    const at = anchor === undefined ? null : { x: scene.x[anchor] * camera.kx + camera.tx, y: scene.y[anchor] * camera.ky + camera.ty };
    refold(state.fold === "1");
    place();
    if (at) camera.centre(scene.x[anchor], scene.y[anchor], at.x, at.y);
  }
  if (name === "q") await search();
  if (name === "track" && !scene.isGraph) {
    place();
    fitAll();
  }
  writeState(state);
  return repaint();
}

async function search() {
  const words = state.q.trim();
  if (!words) {
    found = null;
    return;
  }
  const answer = await fetch(`/dag/find?q=${encodeURIComponent(words)}`);
  if (!answer.ok || words !== state.q.trim()) return;
  const seqs = await answer.json();
  found = new Set(seqs.map((seq) => store.findSeq(seq)).filter((i) => i !== undefined));
}

/** The next commit that matches, newest first, and round again. */
function goToMatch() {
  const all = store.size;
  for (let k = 1; k <= all; k++) {
    const i = ((selected ?? all) - k + 2 * all) % all;
    if (!paint.faint[i] && !Number.isNaN(scene.y[i])) return select(i, { isShown: true });
  }
  return undefined;
}

function nearest({ x, y }, reach = 14) {
  let best;
  let least = reach * reach;
  for (let i = 0; i < store.size; i++) {
    const dx = scene.x[i] * camera.kx + camera.tx - x;
    const dy = scene.y[i] * camera.ky + camera.ty - y;
    const distance = dx * dx + dy * dy;
    if (distance < least && !scene.hidden(i)) [best, least] = [i, distance];
  }
  return best;
}

function hover(at) {
  const i = at ? nearest(at) : undefined;
  above.hover(i);
  byId("above").classList.toggle("over", i !== undefined);
  if (i === undefined) card.hide();
  else card.show(store.hashes[i], at.x, at.y, camera.width, camera.height);
}

function pick(at, pointerType) {
  card.hide();
  select(nearest(at, pointerType === "mouse" ? 14 : 24), { isOpening: true });
}

function goTo(hash) {
  const i = store.find(hash);
  if (i !== undefined) select(i, { isShown: true, isOpening: true });
  return i !== undefined;
}

/** Mark a commit and its lineage; `isShown` moves there, `isOpening` opens the panel. */
function select(i, { isShown = false, isOpening = false } = {}) {
  selected = i;
  above.select(i);
  scene.lineage = i === undefined ? null : store.lineage(i);
  state.c = i === undefined ? "" : store.hashes[i];
  writeState(state);
  if (i === undefined) panel.close();
  else if (isOpening || panel.hash) panel.open(store.hashes[i]);
  if (i !== undefined && isShown) camera.reveal(scene.x[i], scene.y[i], panel.width);
  if (i !== undefined) speak(i);
  redraw();
}

function speak(i) {
  const score = store.score(i, scene.track);
  const told = score ? (score.bpb === null ? "crash" : `${score.bpb}, ${score.outcome}`) : "no score";
  const who = store.agent[i] < 0 ? "unknown" : store.agents[store.agent[i]];
  byId("spoken").textContent = `${store.hashes[i]} by ${who}, ${told}, ${store.children[i].length} children`;
}

listenToKeys(byId("above"), {
  scene, camera, layout, fitAll, showFrontier, goToMatch,
  select: (i) => select(i, { isShown: true }),
  selected: () => selected ?? nearest({ x: camera.width * 0.6, y: camera.height / 2 }, Infinity),
  hasSelected: () => selected !== undefined,
  open: async () => {
    if (selected === undefined) return;
    await panel.open(store.hashes[selected]);
    panel.focus();
  },
  close: () => {
    select(undefined);
    byId("above").focus();
  },
  search: () => tools.focusSearch(),
});

byId("zoom-in").addEventListener("click", () => camera.zoom(1.5));
byId("zoom-out").addEventListener("click", () => camera.zoom(1 / 1.5));
byId("fit").addEventListener("click", fitAll);
byId("frontier").addEventListener("click", showFrontier);
darkness.addEventListener("change", () => {
  scene.theme = readTheme();
  repaint();
});
new ResizeObserver(redraw).observe(byId("stage"));

// Begin ------------------------------------------------------------------------------------------

function hear(events) {
  if (events.some(({ kind }) => KINDS.has(kind))) load();
  const mine = panel.hash;
  const isAbout = ({ kind, payload }) => kind === "post" || String(payload.commit ?? "").startsWith(mine) || kind === "commit";
  if (mine && events.some(isAbout)) panel.refresh();
}

await load();
if (state.q) {
  await search();
  repaint();
}
subscribe(hear, store.event);
