// Finds room for the labels of kept experiments: none overlaps another, a mark or the line; what
// finds no room is left out, the smallest gains first.

const SLOPE = Math.PI / 6;
const LABELS_MAX = 40;
const TRIED_MAX = 90;
const LONG = 44, SHORT = 24;

/** `keeps` have x, y, gain, y values' text; `steps` are the corners of the line. */
export function placeLabels(c, keeps, steps, area, radius, size) {
  const r = radius + 1.5;
  const fixed = keeps.map(({ x, y }) => box(x - r, y - r, x + r, y + r));
  for (let n = 1; n < steps.length; n++) {
    const [[x1, y1], [x2, y2]] = [steps[n - 1], steps[n]];
    fixed.push(box(Math.min(x1, x2) - 1, Math.min(y1, y2) - 1, Math.max(x1, x2) + 1, Math.max(y1, y2) + 1));
  }
  const placed = [];
  for (const keep of byGain(keeps).slice(0, TRIED_MAX)) {
    if (placed.length === LABELS_MAX) break;
    const label = candidates(c, keep, radius, size).find(
      ({ room }) => room.left >= area.left && room.right <= area.right + 8 && room.top >= 0 && room.bottom <= area.bottom - 2 &&
        !fixed.some((other) => overlap(room, other)) && !placed.some((other) => overlap(room, other.room)),
    );
    if (label) placed.push(label);
  }
  return placed;
}

function byGain(keeps) {
  const sorted = [...keeps].sort((a, b) => b.gain - a.gain);
  const best = keeps.reduce((a, b) => (a && a.y > b.y ? a : b), null);
  return best ? [best, ...sorted.filter((keep) => keep !== best)] : sorted;
}

/** Under the line nothing is drawn, there it hangs to the left; else it rises, or lies level. */
function candidates(c, keep, radius, size) {
  const side = 0.4 * radius, gap = radius + 0.35 * size, rise = radius + 0.7 * size, drop = gap + 0.78 * size;
  const texts = [...new Set([cut(keep.text, LONG), cut(keep.text, SHORT)])].filter(Boolean);
  return texts.flatMap((text) =>
    [
      [-side, drop, -SLOPE, true],
      [side, -rise, -SLOPE, false],
      [gap, -0.55 * size, 0, false],
      [-gap - 0.25 * size, 0.3 * size, 0, true],
      [-side, -rise, 0, false],
      [side, drop, 0, true],
    ].map(([x, y, angle, isEnd]) => make(c, text, keep.x + x, keep.y + y, angle, isEnd, size)),
  );
}

function cut(text, length) {
  if (text.length <= length) return text;
  const head = text.slice(0, length - 1), word = head.slice(0, head.lastIndexOf(" "));
  return `${(word.length > (length * 2) / 3 ? word : head).replace(/[ ,;:(-]+$/, "")}…`;
}

function make(c, text, x, y, angle, isEnd, size) {
  const width = c.measureText(text).width, pad = 0.18 * size;
  const [left, right] = isEnd ? [-width - pad, pad] : [-pad, width + pad];
  const [top, bottom] = [-0.78 * size - pad, 0.24 * size + pad];
  const sin = Math.sin(angle), cos = Math.cos(angle);
  const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(([a, b]) => [x + a * cos - b * sin, y + a * sin + b * cos]);
  return { text, x, y, angle, isEnd, room: bounds(corners) };
}

// Rectangles, turned by any angle ------------------------------------------------------------------

function box(left, top, right, bottom) {
  return { corners: [[left, top], [right, top], [right, bottom], [left, bottom]], left, top, right, bottom };
}

function bounds(corners) {
  const xs = corners.map(([x]) => x), ys = corners.map(([, y]) => y);
  return { corners, left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
}

/** Separating axis theorem: they overlap unless a side of one has the other all beyond it. */
export function overlap(a, b) {
  if (a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom) return false;
  return [a, b].every(({ corners }) =>
    [0, 1].every((n) => {
      const [[x1, y1], [x2, y2]] = [corners[n], corners[n + 1]];
      const along = ([x, y]) => x * (y2 - y1) + y * (x1 - x2);
      const here = a.corners.map(along), there = b.corners.map(along);
      return Math.max(...here) > Math.min(...there) && Math.max(...there) > Math.min(...here);
    }),
  );
}
