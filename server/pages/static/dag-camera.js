// Where one looks, and how pointer, wheel and fingers move it. A point of the world (x, y) is seen
// at (x * kx + tx, y * ky + ty), in CSS pixels.

const STEP = 1.0015;

export class Camera {
  constructor(element, { onMove, onHover, onPick }) {
    Object.assign(this, { element, onMove, onHover, onPick });
    this.kx = this.ky = 1;
    this.tx = this.ty = 0;
    /** Whether both axes should become even when one zooms in. */
    this.evens = false;
    this.min = 0.002;
    this.max = 6;
    this._pointers = new Map();
    this._moved = 0;
    const on = (name, handle, options) => element.addEventListener(name, handle.bind(this), options);
    on("wheel", this._wheel, { passive: false });
    on("pointerdown", this._down);
    on("pointermove", this._move);
    on("pointerup", this._up);
    on("pointercancel", this._up);
    on("pointerleave", () => this.onHover(null));
  }

  get width() {
    return this.element.clientWidth;
  }

  get height() {
    return this.element.clientHeight;
  }

  pan(dx, dy) {
    this.tx += dx;
    this.ty += dy;
    this.onMove();
  }

  /** Zoom by a factor, keeping the world still at (x, y). */
  zoom(factor, x = this.width / 2, y = this.height / 2, onlyX = false) {
    // Nearer, what was drawn together comes apart until both axes are even.
    const isUneven = Math.abs(this.kx / this.ky - 1) > 1e-6;
    const slow = this.evens && isUneven && factor > 1 ? factor ** 0.3 : factor;
    const even = Math.max(this.kx, this.ky) * slow;
    const wanted = (k) => Math.min(k * factor, Math.max(even, k));
    const fx = clamp(wanted(this.kx), this.min, this.max) / this.kx;
    const fy = onlyX ? 1 : clamp(wanted(this.ky), this.min, this.max) / this.ky;
    this.tx = x - (x - this.tx) * fx;
    this.ty = y - (y - this.ty) * fy;
    this.kx *= fx;
    this.ky *= fy;
    this.onMove();
  }

  /** Bring a point of the world to a place of the screen, the middle by default. */
  centre(x, y, atX = this.width / 2, atY = this.height / 2) {
    this.tx = atX - x * this.kx;
    this.ty = atY - y * this.ky;
    this.onMove();
  }

  /** Move just enough that the point is well inside. */
  reveal(x, y, right = 0) {
    const margin = 60;
    const sx = x * this.kx + this.tx;
    const sy = y * this.ky + this.ty;
    const dx = clamp(sx, margin, Math.max(this.width - right - margin, margin)) - sx;
    const dy = clamp(sy, margin, Math.max(this.height - margin, margin)) - sy;
    if (dx || dy) this.pan(dx, dy);
  }

  _wheel(event) {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? this.height : 1;
    const { x, y } = this._at(event);
    // Sideways, or with shift: pan, as trackpads mean it.
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.pan(-(event.deltaX || event.deltaY) * unit, 0);
    } else {
      const strength = event.ctrlKey ? 6 : 1;
      this.zoom(STEP ** (-event.deltaY * unit * strength), x, y, event.altKey);
    }
  }

  _down(event) {
    if (event.button > 0) return;
    this.element.setPointerCapture(event.pointerId);
    if (!this._pointers.size) this._moved = 0;
    this._pointers.set(event.pointerId, this._at(event));
  }

  _move(event) {
    const at = this._at(event);
    const before = this._pointers.get(event.pointerId);
    if (!before) return this.onHover(at);
    const others = [...this._pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
    this._pointers.set(event.pointerId, at);
    this._moved += Math.abs(at.x - before.x) + Math.abs(at.y - before.y);
    if (others.length) {
      const [other] = others;
      const factor = distance(at, other) / Math.max(distance(before, other), 1);
      this.zoom(factor, (at.x + other.x) / 2, (at.y + other.y) / 2);
      this.pan((at.x - before.x) / 2, (at.y - before.y) / 2);
    } else if (this._moved > 4) {
      this.onHover(null);
      this.pan(at.x - before.x, at.y - before.y);
    }
    return undefined;
  }

  _up(event) {
    const was = this._pointers.delete(event.pointerId);
    if (was && event.type === "pointerup" && this._moved <= 4 && !this._pointers.size) {
      this.onPick(this._at(event), event.pointerType);
    }
  }

  _at(event) {
    const box = this.element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}
