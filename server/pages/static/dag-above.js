// The sheet above the scene: what moves and what follows the pointer, so that the scene itself is
// drawn only when it changes. Running commits pulse, arrivals flash once.

import { fit, isFar, radius } from "./dag-draw.js";

const FRAME_MS = 33;
const FLASH_MS = 2400;
const TAU = 2 * Math.PI;

export class Above {
  constructor(canvas, scene) {
    this.canvas = canvas;
    this.scene = scene;
    this.hovered = undefined;
    this.selected = undefined;
    this._arrived = new Map();
    this._timer = 0;
    this._calm = matchMedia("(prefers-reduced-motion: reduce)");
  }

  hover(i) {
    if (i === this.hovered) return;
    this.hovered = i;
    this.draw();
  }

  select(i) {
    this.selected = i;
    this.draw();
  }

  /** Commits from..to have just come. */
  welcome(from, to) {
    const now = performance.now();
    // A flash of thousands says nothing.
    if (to - from <= 200) for (let i = from; i < to; i++) this._arrived.set(i, now);
  }

  draw() {
    const { scene, canvas } = this;
    const context = fit(canvas);
    const { theme } = scene;
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const size = isFar(scene) ? 2.5 : radius(scene);
    const now = performance.now();
    const isMoving = this._drawRunning(context, size, now) | this._drawArrivals(context, size, now);
    if (this.hovered !== undefined) this._ring(context, this.hovered, size + 3, theme.ink, 1.5);
    if (this.selected !== undefined) {
      this._ring(context, this.selected, size + 4, theme.accent, 3);
      const { x, y } = this._at(this.selected);
      canvas.dataset.selected = `${Math.round(x)},${Math.round(y)}`;
    } else delete canvas.dataset.selected;
    clearTimeout(this._timer);
    if (isMoving && !document.hidden) this._timer = setTimeout(() => requestAnimationFrame(() => this.draw()), FRAME_MS);
  }

  _drawRunning(context, size, now) {
    const { store, theme } = this.scene;
    const phase = this._calm.matches ? 0.35 : (now % 1600) / 1600;
    let isSeen = false;
    for (const i of store.running) {
      if (!this._isInside(i)) continue;
      isSeen = true;
      context.globalAlpha = 1 - phase;
      this._ring(context, i, size + 2 + phase * 11, theme.accent, 2);
      context.globalAlpha = 1;
      this._ring(context, i, size + 1.5, theme.accent, 2);
    }
    return isSeen && !this._calm.matches;
  }

  _drawArrivals(context, size, now) {
    const { theme } = this.scene;
    for (const [i, since] of this._arrived) {
      const share = (now - since) / FLASH_MS;
      if (share >= 1 || this._calm.matches) this._arrived.delete(i);
      else if (this._isInside(i)) {
        context.globalAlpha = (1 - share) * 0.8;
        this._ring(context, i, size + 3 + share * 20, theme.ink, 1.5);
        context.globalAlpha = 1;
      }
    }
    return this._arrived.size > 0;
  }

  _at(i) {
    const { x, y, camera } = this.scene;
    return { x: x[i] * camera.kx + camera.tx, y: y[i] * camera.ky + camera.ty };
  }

  _isInside(i) {
    const { x, y } = this._at(i);
    return x > -20 && y > -20 && x < this.scene.camera.width + 20 && y < this.scene.camera.height + 20;
  }

  _ring(context, i, r, colour, width) {
    const { x, y } = this._at(i);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, r, 0, TAU);
    context.stroke();
  }
}
