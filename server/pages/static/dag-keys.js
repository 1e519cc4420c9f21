// Keys: walk the DAG along its edges, zoom, open, search.

export function listenToKeys(element, to) {
  const walks = {
    ArrowLeft: (i) => to.scene.store.parents[i][0],
    ArrowRight: (i) => visible(to.scene.store.children[i][0], to),
    ArrowUp: (i) => sibling(i, -1, to),
    ArrowDown: (i) => sibling(i, 1, to),
  };
  const acts = {
    "+": () => to.camera.zoom(1.3),
    "=": () => to.camera.zoom(1.3),
    "-": () => to.camera.zoom(1 / 1.3),
    0: to.fitAll,
    f: to.showFrontier,
    n: to.goToMatch,
    Enter: to.open,
    Escape: to.close,
  };
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const walk = walks[event.key];
    if (walk && event.shiftKey) pan(event.key, to.camera);
    else if (walk) step(walk, to);
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input, textarea, select");
    if (event.key === "/" && !isTyping) {
      event.preventDefault();
      to.search();
    } else if (event.key === "Escape" && event.target !== element && to.hasSelected()) to.close();
  });
}

function step(walk, to) {
  const from = to.selected();
  if (from === undefined) return;
  // The first key only picks a place to begin.
  const next = to.hasSelected() ? walk(from) : from;
  if (next !== undefined) to.select(next);
}

/** The child itself, or the end of the chain that it is folded into. */
function visible(i, { scene, layout }) {
  if (i === undefined || !scene.hidden(i)) return i;
  return layout.chains[layout.folded[i] - 1].to;
}

/** The next commit above or below of about the same column. */
function sibling(i, way, { scene }) {
  const { store, x, y, hidden } = scene;
  let best;
  for (let k = 0; k < store.size; k++) {
    const dy = (y[k] - y[i]) * way;
    if (!(dy > 0) || hidden(k) || Math.abs(x[k] - x[i]) > (scene.isGraph ? 1 : 60)) continue;
    if (best === undefined || dy < (y[best] - y[i]) * way) best = k;
  }
  return best;
}

function pan(key, camera) {
  const by = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };
  camera.pan(...by[key]);
}
