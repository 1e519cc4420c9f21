// Draws the scene on a canvas: near, with curves and marks; far, pixel by pixel, which stays quick
// for a hundred thousand commits.

import { COLUMN, LANE } from "./dag-layout.js";
import { CROSS, HOLLOW } from "./dag-paint.js";

/** Columns narrower than this are drawn as pixels. */
const FAR = 7;
/** More commits than this are a cloud on the axes, of small dots without edges. */
const CROWD = 3000;
const TAU = 2 * Math.PI;

/** Fit a canvas to its place on the page and return its context, in CSS pixels. */
export function fit(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return context;
}

export function isFar(scene) {
  const { kx, ky } = scene.camera;
  return scene.isGraph && (kx * COLUMN < FAR || ky * LANE < FAR / 2);
}

/** `scene`: store, paint, camera, x[], y[], hidden(i), chains, lineage, theme, isGraph. */
export function draw(canvas, scene, backdrop) {
  const context = fit(canvas);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  backdrop?.(context);
  if (isFar(scene)) drawFar(canvas, context, scene);
  else drawNear(context, scene);
}

export function radius(scene) {
  const nearness = Math.min(scene.camera.kx, scene.camera.ky);
  if (!scene.isGraph) return scene.store.size > CROWD ? 2.1 : 4.2;
  return Math.min(Math.max(5.2 * Math.sqrt(nearness), 1.6), 9);
}

// Near -------------------------------------------------------------------------------------------

function drawNear(context, scene) {
  const { camera, theme } = scene;
  if (scene.isGraph || scene.store.size <= CROWD) drawEdges(context, scene);
  drawChains(context, scene);
  if (scene.lineage) drawLineage(context, scene);
  drawNodes(context, scene);
  if (scene.isGraph && camera.kx > 2.1) drawLabels(context, scene, theme);
}

function drawEdges(context, scene) {
  const { store, paint, camera, x, y, theme, hidden } = scene;
  const { kx, ky, tx, ty, width, height } = camera;
  const strong = new Path2D();
  const weak = new Path2D();
  const merges = new Path2D();
  const isStraight = kx < 0.5 || !scene.isGraph;
  for (let i = 0; i < store.size; i++) {
    if (hidden(i)) continue;
    const x1 = x[i] * kx + tx;
    const y1 = y[i] * ky + ty;
    const parents = store.parents[i];
    for (let k = 0; k < parents.length; k++) {
      const p = parents[k];
      if (hidden(p) && k === 0 && scene.isChained(i)) continue;
      const x0 = x[p] * kx + tx;
      const y0 = y[p] * ky + ty;
      // Also false where a place is not a number.
      if (!(Math.max(x0, x1) >= 0 && Math.min(x0, x1) <= width)) continue;
      if (!(Math.max(y0, y1) >= 0 && Math.min(y0, y1) <= height)) continue;
      const path = k > 0 ? merges : paint.faint[i] || paint.faint[p] ? weak : strong;
      addEdge(path, x0, y0, x1, y1, camera, scene.isGraph ? COLUMN * kx : Infinity, isStraight);
    }
  }
  const isDimmed = scene.lineage || paint.isFiltered;
  context.lineWidth = Math.min(Math.max(1.4 * Math.sqrt(camera.kx), 0.7), 2);
  if (!scene.isGraph) context.lineWidth = 0.8;
  context.strokeStyle = theme.faint;
  context.globalAlpha = (isDimmed ? 0.45 : 0.9) * (scene.isGraph ? 1 : 0.35);
  context.stroke(strong);
  context.globalAlpha = (isDimmed ? 0.22 : 0.5) * (scene.isGraph ? 1 : 0.35);
  context.stroke(weak);
  context.globalAlpha = isDimmed ? 0.4 : 0.85;
  context.strokeStyle = theme.merge;
  context.setLineDash([4, 3]);
  context.stroke(merges);
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/** The part of an edge that is seen: a dash is costly, and edges may be a thousand screens long. */
function addEdge(path, x0, y0, x1, y1, { width, height }, column, isStraight) {
  const bend = Math.min(x0 + column, x1);
  const isLevel = y0 === y1;
  const from = isLevel ? x0 : bend;
  if (!isLevel && bend >= 0 && x0 <= width) {
    const middle = (x0 + bend) / 2;
    if (Math.abs(y1 - y0) > 3 * height) {
      // Tall: upright through the window.
      path.moveTo(middle, Math.min(Math.max(y0, -20), height + 20));
      path.lineTo(middle, Math.min(Math.max(y1, -20), height + 20));
    } else if (isStraight) {
      path.moveTo(x0, y0);
      path.lineTo(bend, y1);
    } else {
      path.moveTo(x0, y0);
      path.bezierCurveTo(middle, y0, middle, y1, bend, y1);
    }
  }
  if (from < x1 && from <= width && x1 >= 0 && y1 >= -20 && y1 <= height + 20) {
    path.moveTo(Math.max(from, -20), y1);
    path.lineTo(Math.min(x1, width + 20), y1);
  }
}

/** Leave the parent's lane at once and then go level, so that siblings do not cross. */
function curve(path, x0, y0, x1, y1, column) {
  const bend = Math.min(x0 + column, x1);
  const middle = (x0 + bend) / 2;
  path.bezierCurveTo(middle, y0, middle, y1, bend, y1);
  if (bend < x1) path.lineTo(x1, y1);
}

function drawChains(context, scene) {
  const { camera, x, y, theme, chains } = scene;
  const { kx, ky, tx, ty, width, height } = camera;
  context.font = "600 10px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const { from, to, inner } of chains) {
    const [x0, x1, y1] = [x[from] * kx + tx, x[to] * kx + tx, y[inner[0]] * ky + ty];
    const y0 = y[from] * ky + ty;
    if (x1 < 0 || x0 > width || Math.max(y0, y1) < -20 || Math.min(y0, y1) > height + 20) continue;
    context.strokeStyle = theme.faint;
    context.lineWidth = 2.4;
    context.setLineDash([1.5, 3.5]);
    context.beginPath();
    addEdge(context, x0, y0, x1, y1, camera, COLUMN * kx, false);
    if (y[to] !== y[inner[0]]) addEdge(context, x1 - COLUMN * kx, y1, x1, y[to] * ky + ty, camera, COLUMN * kx, false);
    context.stroke();
    context.setLineDash([]);
    const text = String(inner.length);
    const half = 6 + text.length * 3;
    if (x1 - x0 < half * 2 + 8) continue;
    const middle = Math.min(Math.max((x0 + x1) / 2, Math.min(half, x1)), Math.max(width - half, x0));
    context.fillStyle = theme.paper;
    context.strokeStyle = theme.rule;
    context.lineWidth = 1;
    context.beginPath();
    context.roundRect(middle - half, y1 - 7.5, half * 2, 15, 7.5);
    context.fill();
    context.stroke();
    context.fillStyle = theme.dim;
    context.fillText(text, middle, y1 + 0.5);
  }
}

function drawLineage(context, scene) {
  const { camera, x, y, theme, lineage } = scene;
  const { kx, ky, tx, ty } = camera;
  context.strokeStyle = theme.accent;
  context.lineWidth = 2.6;
  context.lineJoin = "round";
  context.beginPath();
  for (let k = 0; k + 1 < lineage.length; k++) {
    const [i, p] = [lineage[k], lineage[k + 1]];
    const [x1, y1, x0, y0] = [x[i] * kx + tx, y[i] * ky + ty, x[p] * kx + tx, y[p] * ky + ty];
    if (!(x1 >= 0 && x0 <= camera.width)) continue;
    context.moveTo(x0, y0);
    if (y0 === y1 || !scene.isGraph) context.lineTo(x1, y1);
    else curve(context, x0, y0, x1, y1, COLUMN * kx);
  }
  context.stroke();
}

function drawNodes(context, scene) {
  const { store, paint, camera, x, y, theme, hidden } = scene;
  const { kx, ky, tx, ty, width, height } = camera;
  const size = radius(scene);
  const onLine = scene.lineage ? new Set(scene.lineage) : null;
  const buckets = new Map();
  const leaves = new Path2D();
  for (let i = 0; i < store.size; i++) {
    const sx = x[i] * kx + tx;
    const sy = y[i] * ky + ty;
    if (!(sx > -20 && sx < width + 20 && sy > -20 && sy < height + 20) || hidden(i)) continue;
    const isWeak = onLine ? !onLine.has(i) : paint.faint[i];
    const key = paint.colour[i] * 8 + paint.mark[i] * 2 + (isWeak ? 1 : 0);
    let path = buckets.get(key);
    if (!path) buckets.set(key, (path = new Path2D()));
    const r = paint.isRecord[i] ? size * 1.25 : paint.mark[i] === HOLLOW ? size * 0.8 : size;
    addMark(path, paint.mark[i], sx, sy, r);
    if (scene.isGraph && size > 2.4 && !isWeak && store.isLeaf(i)) {
      leaves.moveTo(sx + r + 2.2, sy);
      leaves.arc(sx, sy, r + 2.2, 0, TAU);
    }
  }
  for (const [key, path] of buckets) {
    const mark = (key >> 1) & 3;
    context.globalAlpha = key & 1 ? 0.16 : 1;
    const colour = paint.colours[key >> 3];
    context.strokeStyle = colour;
    context.fillStyle = mark === HOLLOW ? theme.paper : colour;
    context.lineWidth = mark === CROSS ? Math.max(size * 0.42, 1.2) : Math.max(size * 0.3, 1);
    if (mark !== CROSS) context.fill(path);
    if (mark !== 0) context.stroke(path);
  }
  context.globalAlpha = 1;
  context.strokeStyle = theme.ink;
  context.lineWidth = 1;
  context.globalAlpha = 0.4;
  context.stroke(leaves);
  context.globalAlpha = 1;
}

function addMark(path, mark, x, y, r) {
  if (mark === CROSS) {
    const a = r * 0.72;
    path.moveTo(x - a, y - a);
    path.lineTo(x + a, y + a);
    path.moveTo(x + a, y - a);
    path.lineTo(x - a, y + a);
  } else if (r < 2.2) {
    path.rect(x - r, y - r, 2 * r, 2 * r);
  } else {
    path.moveTo(x + r, y);
    path.arc(x, y, r, 0, TAU);
  }
}

function drawLabels(context, scene, theme) {
  const { store, paint, camera, x, y, hidden, track } = scene;
  const { kx, ky, tx, ty, width, height } = camera;
  context.font = "10.5px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "top";
  for (let i = 0; i < store.size; i++) {
    const sx = x[i] * kx + tx;
    const sy = y[i] * ky + ty;
    if (!(sx > 0 && sx < width && sy > 0 && sy < height) || hidden(i)) continue;
    const score = store.score(i, track);
    context.globalAlpha = paint.faint[i] ? 0.3 : 1;
    context.fillStyle = paint.isRecord[i] ? theme.ink : theme.dim;
    context.fillText(score && score.bpb !== null ? score.bpb.toFixed(4) : store.hashes[i].slice(0, 7), sx, sy + 12);
  }
  context.globalAlpha = 1;
}

// Far --------------------------------------------------------------------------------------------

/** Two sheets of pixels, made when the size changes and reused for every frame. */
const sheets = new WeakMap();

function sheet(canvas) {
  let found = sheets.get(canvas);
  if (!found || found.width !== canvas.width || found.height !== canvas.height) {
    found = new ImageData(Math.max(canvas.width, 1), Math.max(canvas.height, 1));
    sheets.set(canvas, found);
  }
  return found;
}

export function drawFar(canvas, context, scene) {
  const image = sheet(canvas);
  const pixels = new Uint32Array(image.data.buffer);
  pixels.fill(0);
  const { width, height } = image;
  const { store, paint, camera, x, y, hidden } = scene;
  const scale = width / camera.width;
  const [kx, ky, tx, ty] = [camera.kx, camera.ky, camera.tx, camera.ty].map((v) => v * scale);
  const line = abgr(scene.theme.faint, scene.lineage || paint.isFiltered ? 0.28 : 0.5);
  const onLine = scene.lineage ? new Set(scene.lineage) : null;
  const accent = abgr(scene.theme.accent, 1);
  const strong = paint.colours.map((colour) => abgr(colour, 1));
  const weak = paint.colours.map((colour) => abgr(colour, 0.22));
  const size = Math.max(Math.round(Math.min(kx * COLUMN * 0.55, ky * LANE * 0.8)), 1);
  if (kx * COLUMN > 1.2) drawFarEdges(pixels, width, height, scene, { kx, ky, tx, ty }, line, accent, onLine);
  for (let i = 0; i < store.size; i++) {
    const left = Math.round(x[i] * kx + tx - size / 2);
    const top = Math.round(y[i] * ky + ty - size / 2);
    if (!(left > -size && left < width && top > -size && top < height) || hidden(i)) continue;
    const isWeak = onLine ? !onLine.has(i) : paint.faint[i];
    const colour = onLine?.has(i) ? accent : (isWeak ? weak : strong)[paint.colour[i]];
    for (let row = Math.max(top, 0); row < Math.min(top + size, height); row++) {
      const start = row * width;
      pixels.fill(colour, start + Math.max(left, 0), start + Math.min(left + size, width));
    }
  }
  context.putImageData(image, 0, 0);
}

function drawFarEdges(pixels, width, height, scene, { kx, ky, tx, ty }, line, accent, onLine) {
  const { store, x, y, hidden } = scene;
  for (let i = 0; i < store.size; i++) {
    const p = store.parents[i][0];
    if (p === undefined) continue;
    let x0 = Math.round(x[p] * kx + tx);
    let x1 = Math.round(x[i] * kx + tx);
    if (x1 < 0 || x0 >= width) continue;
    const y0 = Math.round(y[p] * ky + ty);
    const y1 = Math.round(y[i] * ky + ty);
    const colour = onLine?.has(i) ? accent : line;
    if (x0 >= 0 && y0 !== y1 && !hidden(i)) {
      const [top, bottom] = y0 < y1 ? [y0, y1] : [y1, y0];
      for (let row = Math.max(top, 0); row <= Math.min(bottom, height - 1); row++) pixels[row * width + x0] ||= colour;
    }
    if (y1 < 0 || y1 >= height) continue;
    x0 = Math.max(x0, 0);
    x1 = Math.min(x1, width - 1);
    pixels.fill(colour, y1 * width + x0, y1 * width + x1 + 1);
  }
}

/** A colour as the pixels of an ImageData hold it, on a machine whose low byte comes first. */
function abgr(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return ((Math.round(alpha * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
