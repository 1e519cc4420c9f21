// The second view: the same commits on axes, time × val_bpb in one track. A place once given stays,
// for the units are those of the first look.

const WIDTH = 1000;
const HEIGHT = 560;
const HOUR = 3600;
const TIME_STEPS = [60, 300, 900, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 48 * HOUR, 168 * HOUR, 720 * HOUR];
const two = (number) => String(number).padStart(2, "0");

export class Plot {
  constructor(store, track) {
    this.store = store;
    this.track = track;
    const scored = [];
    for (let i = 0; i < store.size; i++) if (this.value(i) !== null) scored.push(i);
    const values = scored.map((i) => this.value(i)).sort((a, b) => a - b);
    const times = scored.map((i) => store.time[i]);
    this.isEmpty = !scored.length;
    this.start = this.isEmpty ? 0 : times.reduce((a, b) => Math.min(a, b));
    const end = this.isEmpty ? 1 : times.reduce((a, b) => Math.max(a, b));
    this.best = values[0] ?? 0;
    // Enough of the bad ones to see that they are many; the rest is a pan away.
    const worst = values[Math.floor((values.length - 1) * 0.92)] ?? 1;
    this.unitX = Math.max(end - this.start, 60) / WIDTH;
    this.unitY = Math.max(worst - this.best, 1e-4) / HEIGHT;
    this.bounds = { left: -40, right: WIDTH + 40, top: -40, bottom: HEIGHT + 30 };
  }

  value(i) {
    const score = this.store.score(i, this.track);
    return score ? score.bpb : null;
  }

  x(i) {
    return (this.store.time[i] - this.start) / this.unitX;
  }

  /** Better is lower, as scores are; NaN without a score in this track. */
  y(i) {
    const value = this.value(i);
    return value === null ? NaN : HEIGHT - (value - this.best) / this.unitY;
  }

  /** Axes, grid and the line of the best so far, behind the commits. */
  draw(context, camera, theme, places) {
    const { kx, ky, tx, ty, width, height } = camera;
    context.font = "11px system-ui, sans-serif";
    context.lineWidth = 1;
    context.strokeStyle = theme.rule;
    context.fillStyle = theme.dim;
    context.textBaseline = "bottom";
    context.textAlign = "center";
    for (const [at, text] of this._times(kx, tx, width)) {
      stroke(context, at, 0, at, height);
      context.fillText(text, Math.min(Math.max(at, 30), width - 30), height - 6);
    }
    context.textAlign = "left";
    for (const [at, text] of this._values(ky, ty, height)) {
      stroke(context, 0, at, width, at);
      if (at > 24 && at < height - 24) context.fillText(text, 8, at - 2);
    }
    if (this.isEmpty) {
      context.textAlign = "center";
      context.fillText("No score in this track yet.", width / 2, height / 2);
      return;
    }
    this._drawBest(context, camera, theme, places);
  }

  _drawBest(context, { kx, ky, tx, ty, width }, theme, { x, y }) {
    const { store } = this;
    const scored = [];
    for (let i = 0; i < store.size; i++) if (!Number.isNaN(y[i])) scored.push(i);
    scored.sort((a, b) => store.time[a] - store.time[b] || a - b);
    context.beginPath();
    let best = -Infinity;
    for (const i of scored) {
      // Lower scores are further down.
      if (y[i] <= best) continue;
      const [sx, sy] = [x[i] * kx + tx, y[i] * ky + ty];
      if (best === -Infinity) context.moveTo(sx, sy);
      else {
        context.lineTo(sx, best * ky + ty);
        context.lineTo(sx, sy);
      }
      best = y[i];
    }
    context.lineTo(Math.max(width, 0), best * ky + ty);
    context.strokeStyle = theme.accent;
    context.lineWidth = 1.8;
    context.globalAlpha = 0.8;
    context.stroke();
    context.globalAlpha = 1;
  }

  *_times(kx, tx, width) {
    const perPixel = this.unitX / kx;
    const step = TIME_STEPS.find((one) => one / perPixel >= 90) ?? TIME_STEPS.at(-1);
    const from = this.start + (0 - tx) * perPixel;
    for (let time = Math.ceil(from / step) * step; time < from + width * perPixel; time += step) {
      const date = new Date(time * 1000);
      const day = `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
      const clock = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
      yield [(time - from) / perPixel, step >= 24 * HOUR || clock === "00:00" ? day : clock];
    }
  }

  *_values(ky, ty, height) {
    const perPixel = this.unitY / ky;
    const rough = perPixel * 70;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((one) => one >= rough * 0.999);
    const digits = Math.max(2, Math.ceil(-Math.log10(step) - 1e-9));
    // Value at the bottom edge of the canvas.
    const low = this.best + (HEIGHT - (height - ty) / ky) * this.unitY;
    for (let value = Math.ceil(low / step) * step; value < low + height * perPixel; value += step) {
      yield [height - (value - low) / perPixel, value.toFixed(digits)];
    }
  }
}

function stroke(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
  context.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
  context.stroke();
}
