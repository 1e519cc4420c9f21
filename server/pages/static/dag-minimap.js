// The whole DAG in a corner, with a frame around what is seen; press or drag to go there.

import { drawFar, fit } from "./dag-draw.js";

const MARGIN = 4;

export class Minimap {
  constructor(canvas, scene, bounds) {
    Object.assign(this, { canvas, scene, bounds });
    this._picture = document.createElement("canvas");
    this._view = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this._go(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this._go(event);
    });
  }

  /** Draw the picture anew: commits came or look different. */
  update() {
    const { canvas, scene } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !scene.store.size) return;
    const box = this.bounds();
    const kx = (width - 2 * MARGIN) / (box.right - box.left);
    const ky = (height - 2 * MARGIN) / (box.bottom - box.top);
    // A small DAG is not blown up.
    const most = scene.isGraph ? 0.4 : Infinity;
    this._view = { kx: Math.min(kx, most), ky: Math.min(ky, most), width, height };
    this._view.tx = width / 2 - ((box.left + box.right) / 2) * this._view.kx;
    this._view.ty = height / 2 - ((box.top + box.bottom) / 2) * this._view.ky;
    const scale = window.devicePixelRatio || 1;
    this._picture.width = Math.round(width * scale);
    this._picture.height = Math.round(height * scale);
    drawFar(this._picture, this._picture.getContext("2d"), { ...scene, camera: this._view, lineage: null });
  }

  draw() {
    const { canvas, scene, _view: view } = this;
    if (!view || !canvas.clientWidth) return;
    const context = fit(canvas);
    const { camera, theme } = scene;
    context.clearRect(0, 0, view.width, view.height);
    context.drawImage(this._picture, 0, 0, view.width, view.height);
    const left = (-camera.tx / camera.kx) * view.kx + view.tx;
    const top = (-camera.ty / camera.ky) * view.ky + view.ty;
    const right = left + (camera.width / camera.kx) * view.kx;
    const bottom = top + (camera.height / camera.ky) * view.ky;
    context.strokeStyle = theme.accent;
    context.lineWidth = 1.5;
    const [x0, y0] = [Math.max(left, 1), Math.max(top, 1)];
    context.strokeRect(x0, y0, Math.min(right, view.width - 1) - x0, Math.min(bottom, view.height - 1) - y0);
  }

  _go(event) {
    const view = this._view;
    if (!view) return;
    const box = this.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left - view.tx) / view.kx;
    const y = (event.clientY - box.top - view.ty) / view.ky;
    this.scene.camera.centre(x, y);
  }
}
