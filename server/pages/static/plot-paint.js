// Draws the experiments of a view on a canvas: axes, discards faint, keeps above them with labels.

import { placeLabels } from "./plot-labels.js";

const EDGE = { left: 62, right: 14, top: 12, bottom: 40 };
const MINUTE = 60, HOUR = 3600, DAY = 86400;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE), ...[1, 2, 3, 6, 12].map((n) => n * HOUR), ...[1, 2, 5, 10, 20, 50, 100].map((n) => n * DAY)];

/** Paint, and return how places and values map onto each other. */
export function paint(canvas, points, view, { by, baseline, at, style }) {
  const sharp = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== width * sharp || canvas.height !== height * sharp) {
    canvas.width = width * sharp;
    canvas.height = height * sharp;
  }
  const c = canvas.getContext("2d");
  c.setTransform(sharp, 0, 0, sharp, 0, 0);
  c.clearRect(0, 0, width, height);
  const area = { left: EDGE.left, right: width - EDGE.right, top: EDGE.top, bottom: height - EDGE.bottom };
  const scale = makeScale(area, view);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const font = (size, weight = "") => `${weight} ${size}px ${style.fontFamily}`;
  c.font = font(12);
  drawAxes(c, area, scale, view, by, colour);
  c.save();
  c.beginPath();
  c.rect(area.left - 1, 0, area.right - area.left + EDGE.right, area.bottom + 1);
  c.clip();
  if (baseline !== null) drawBaseline(c, area, scale(0, baseline).y, colour);
  const shown = points.filter((p) => p.x >= view.x0 && p.x <= view.x1);
  drawCrashes(c, shown, scale, area, colour);
  const seen = shown.filter((p) => p.y !== null && p.y >= view.y0 && p.y <= view.y1);
  const radius = shown.length <= 60 ? 5.5 : shown.length <= 300 ? 4.6 : 3.8;
  drawDiscards(c, seen, scale, radius, colour);
  const steps = drawSteps(c, points, scale, area, colour);
  drawDoubted(c, seen, scale, colour);
  const keeps = seen.filter((p) => p.gain).sort((a, b) => a.gain - b.gain).map((p) => ({ ...p, ...scale(p.x, p.y), text: p.label }));
  drawLabels(c, placeLabels(c, keeps, steps, area, radius, 12), font, colour);
  for (const keep of keeps) drawKeep(c, keep, radius, colour);
  if (at !== null && points[at]?.y != null) drawRing(c, scale(points[at].x, points[at].y), radius + 4, colour("ink"), 1.5);
  c.restore();
  return { x: scale.x, y: scale.y, toX: scale.toX, toY: scale.toY };
}

function makeScale(area, view) {
  const w = (area.right - area.left) / (view.x1 - view.x0), h = (area.bottom - area.top) / (view.y1 - view.y0);
  const x = (value) => area.left + (value - view.x0) * w, y = (value) => area.bottom - (value - view.y0) * h;
  const scale = (vx, vy) => ({ x: x(vx), y: y(vy) });
  return Object.assign(scale, { x, y, toX: (px) => view.x0 + (px - area.left) / w, toY: (py) => view.y0 + (area.bottom - py) / h });
}

// Axes ---------------------------------------------------------------------------------------------

function drawAxes(c, area, scale, view, by, colour) {
  c.lineWidth = 1;
  c.fillStyle = colour("dim");
  const ys = ticks(view.y0, view.y1, Math.max((area.bottom - area.top) / 62, 2));
  const digits = Math.max(2, Math.ceil(-Math.log10(ys.step) - 1e-9));
  c.textAlign = "right";
  for (const value of ys) {
    const y = Math.round(scale.y(value)) + 0.5;
    stroke(c, colour("rule"), [[area.left, y], [area.right, y]]);
    c.fillText(value.toFixed(digits), area.left - 8, y + 4);
  }
  stroke(c, colour("faint"), [[area.left, area.bottom + 0.5], [area.right, area.bottom + 0.5]]);
  c.textAlign = "center";
  const room = Math.max((area.right - area.left) / 95, 2);
  for (const [value, text] of by === "time" ? times(view, room) : numbers(view, room)) {
    const x = scale.x(value);
    stroke(c, colour("faint"), [[x, area.bottom], [x, area.bottom + 4]]);
    c.fillText(text, Math.min(x, area.right - 14), area.bottom + 18);
  }
  c.textAlign = "left";
  c.fillText("val_bpb, lower is better", area.left, area.bottom + 35);
  c.textAlign = "right";
  c.fillText(by === "time" ? "time" : "experiment", area.right, area.bottom + 35);
}

function ticks(low, high, atMost, smallest = 0) {
  const rough = Math.max((high - low) / atMost, smallest, 1e-12);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * (1 - 1e-9));
  const found = [];
  for (let n = Math.ceil(low / step); n <= Math.floor(high / step + 1e-9); n++) found.push(n * step);
  return Object.assign(found, { step });
}

function numbers(view, atMost) {
  return ticks(view.x0, view.x1, atMost, 1).filter((n) => n >= 1).map((n) => [n, n.toLocaleString("en")]);
}

/** The reader's own time of day, and the date where one begins or nothing finer is shown. */
function times(view, atMost) {
  const rough = (view.x1 - view.x0) / atMost;
  const step = TIME_STEPS.find((n) => n >= rough) ?? Math.ceil(rough / DAY) * DAY;
  const offset = new Date(view.x0 * 1000).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let n = Math.ceil((view.x0 - offset) / step); n * step + offset <= view.x1; n++) {
    const at = n * step + offset, moment = new Date(at * 1000);
    const isDay = step >= DAY || (moment.getHours() === 0 && moment.getMinutes() === 0 && moment.getSeconds() === 0);
    found.push([at, isDay ? moment.toLocaleDateString([], { month: "short", day: "numeric" }) : moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(step < MINUTE && { second: "2-digit" }) })]);
  }
  return found;
}

// Marks --------------------------------------------------------------------------------------------

function stroke(c, style, places, width = 1) {
  c.strokeStyle = style;
  c.lineWidth = width;
  c.beginPath();
  places.forEach(([x, y], n) => (n ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.stroke();
}

function drawBaseline(c, area, y, colour) {
  c.setLineDash([3, 4]);
  stroke(c, colour("faint"), [[area.left, y], [area.right, y]]);
  c.setLineDash([]);
  c.fillStyle = colour("dim");
  c.textAlign = "right";
  c.fillText("first score", area.right, y - 5);
}

function drawCrashes(c, points, scale, area, colour) {
  c.strokeStyle = colour("warn");
  c.globalAlpha = points.length > 1500 ? 0.25 : 0.55;
  c.lineWidth = 1.2;
  c.beginPath();
  for (const p of points) {
    if (p.status !== "c" || p.y !== null) continue;
    const x = scale.x(p.x);
    c.moveTo(x, area.bottom - 1);
    c.lineTo(x, area.bottom - 6);
  }
  c.stroke();
  c.globalAlpha = 1;
}

function drawDiscards(c, points, scale, radius, colour) {
  c.fillStyle = colour("faint");
  const isDense = points.length > 1500;
  c.globalAlpha = isDense ? 0.5 : 0.75;
  const r = radius * (isDense ? 0.48 : 0.62), turn = 2 * Math.PI;
  for (const p of points) {
    if (p.gain || p.status === "q") continue;
    c.beginPath();
    c.arc(scale.x(p.x), scale.y(p.y), r, 0, turn);
    c.fill();
  }
  c.globalAlpha = 1;
}

function drawDoubted(c, points, scale, colour) {
  const r = 4.5;
  for (const p of points) {
    if (p.status !== "q") continue;
    const { x, y } = scale(p.x, p.y);
    stroke(c, colour("warn"), [[x - r, y - r], [x + r, y + r]], 1.8);
    stroke(c, colour("warn"), [[x - r, y + r], [x + r, y - r]], 1.8);
  }
}

/** The best so far as steps down to the right edge; returns its corners. */
function drawSteps(c, points, scale, area, colour) {
  const corners = [];
  for (const p of points) {
    if (!p.gain) continue;
    const { x, y } = scale(p.x, p.y);
    if (corners.length) corners.push([x, corners.at(-1)[1]]);
    corners.push([x, y]);
  }
  if (!corners.length) return corners;
  corners.push([Math.max(area.right, corners.at(-1)[0]), corners.at(-1)[1]]);
  stroke(c, colour("accent"), corners, 1.8);
  return corners;
}

function drawKeep(c, { x, y, isConfirmed }, radius, colour) {
  if (isConfirmed) {
    c.fillStyle = colour("paper");
    c.beginPath();
    c.arc(x, y, radius + 3.4, 0, 2 * Math.PI);
    c.fill();
    drawRing(c, { x, y }, radius + 3.4, colour("accent"), 2);
  }
  c.fillStyle = colour("accent");
  c.strokeStyle = colour("paper");
  c.lineWidth = 1.3;
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.fill();
  c.stroke();
}

function drawRing(c, { x, y }, radius, style, width) {
  c.strokeStyle = style;
  c.lineWidth = width;
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.stroke();
}

function drawLabels(c, labels, font, colour) {
  c.font = font(12);
  c.lineJoin = "round";
  for (const label of labels) {
    c.save();
    c.translate(label.x, label.y);
    c.rotate(label.angle);
    c.textAlign = label.isEnd ? "right" : "left";
    c.strokeStyle = colour("paper");
    c.lineWidth = 3.5;
    c.globalAlpha = 0.85;
    c.strokeText(label.text, 0, 0);
    c.globalAlpha = 1;
    c.fillStyle = colour("ink");
    c.fillText(label.text, 0, 0);
    c.restore();
  }
}
