// The progress of a track to zoom, hover and open: `<progress-plot data-src="…/progress.json">`.
//
// Without scripts the element shows the server's drawing, its content. With them its shadow tree
// covers that; a new `data-version` makes it fetch the experiments again. Drag zooms, double click
// resets, Ctrl and the wheel zoom at the pointer, Shift and drag move; arrow keys walk through the
// experiments, Enter opens one.

import { paint } from "./plot-paint.js";

const NEAR = 22;
const DRAGGED = 5;
const MARGIN = 0.08;
const HEIGHT_MIN = 260;
const HEIGHT_MAX = 470;
const WORDS = { k: "kept", d: "discarded", c: "crashed", q: "in quarantine, not believed" };
const SOURCES = { r: "reported", m: "measured", c: "confirmed" };

const TOOLS = `
<div class="tools" role="toolbar" aria-label="Plot">
  <span class="set"><button data-by="number" aria-pressed="true">experiment</button><button data-by="time" aria-pressed="false">time</button></span>
  <span class="set"><button data-do="all" aria-pressed="false" title="Also what is worse than the first score">all scores</button></span>
  <span class="set"><button data-do="in" aria-label="Zoom in">+</button><button data-do="out" aria-label="Zoom out">−</button><button data-do="reset">reset</button></span>
</div>
<div class="frame" tabindex="0" role="group" aria-label="Experiments: arrow keys walk, with Shift through kept ones, Enter opens, plus and minus zoom"><canvas aria-hidden="true"></canvas><div class="box" hidden></div><div class="card" hidden></div><div class="told" aria-live="polite"></div></div>`;

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
:host { display: block; position: relative; }
.tools { position: absolute; right: 0; bottom: 100%; display: flex; justify-content: flex-end; gap: 0.3rem 0.6rem; margin-bottom: 0.3rem; white-space: nowrap; }
.set { display: inline-flex; }
button { padding: 0.1rem 0.55rem; border: 1px solid var(--rule); background: none; color: var(--dim); font: inherit; font-size: 0.78rem; line-height: 1.5; cursor: pointer; }
button + button { margin-left: -1px; }
.set button:first-child { border-radius: 5px 0 0 5px; }
.set button:last-child { border-radius: 0 5px 5px 0; }
.set button:only-child { border-radius: 5px; }
button:hover { color: var(--accent); }
button[aria-pressed="true"] { background: var(--tint); color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.frame { position: relative; touch-action: pan-y; cursor: crosshair; user-select: none; }
.frame.on { cursor: pointer; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.box { position: absolute; border: 1px solid var(--accent); background: var(--tint); opacity: 0.5; pointer-events: none; }
.card { position: absolute; z-index: 3; width: max-content; max-width: min(22rem, 80%); padding: 0.45rem 0.7rem; border: 1px solid var(--rule); border-radius: 7px; background: var(--sheet); color: var(--ink); box-shadow: 0 4px 18px rgb(0 0 0 / 0.16); font-size: 0.84rem; line-height: 1.4; pointer-events: none; overflow-wrap: anywhere; }
.card b { font-size: 1.05rem; font-weight: 600; letter-spacing: -0.01em; }
.card p { margin: 0; }
.card .dim { color: var(--dim); font-size: 0.92em; }
.card .warn { color: var(--warn); }
.told { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
[hidden] { display: none; }
`);

class ProgressPlot extends HTMLElement {
  static observedAttributes = ["data-src", "data-version"];

  #data = null;
  #points = [];
  #by = "number";
  #isAll = false;
  #view = null;
  #at = null;
  #drag = null;
  #asked = "";

  connectedCallback() {
    this.#load();
    // Colours follow the system's.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  attributeChangedCallback() {
    if (this.isConnected) this.#load();
  }

  async #load() {
    const asked = `${this.dataset.src} ${this.dataset.version}`;
    if (asked === this.#asked) return;
    const isOther = !this.#asked.startsWith(`${this.dataset.src} `);
    this.#asked = asked;
    try {
      const answer = await fetch(this.dataset.src, { cache: "no-cache" });
      if (!answer.ok || asked !== this.#asked) return;
      this.#data = await answer.json();
    } catch {
      // The server's drawing stays, or the last one; the next version asks again.
      this.#asked = "";
      return;
    }
    if (isOther) this.#view = this.#at = null;
    if (!this.shadowRoot) this.#build();
    this.#place();
    this.#draw();
  }

  #build() {
    const height = this.getBoundingClientRect().height;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [SHEET];
    root.innerHTML = TOOLS;
    const frame = root.querySelector(".frame");
    frame.style.height = `${Math.min(Math.max(height, HEIGHT_MIN), HEIGHT_MAX)}px`;
    root.querySelector(".tools").addEventListener("click", (event) => this.#press(event.target));
    frame.addEventListener("pointermove", (event) => this.#move(event));
    frame.addEventListener("pointerleave", () => this.#drag || this.#choose(null));
    frame.addEventListener("pointerdown", (event) => this.#grab(event));
    frame.addEventListener("pointerup", (event) => this.#drop(event));
    frame.addEventListener("pointercancel", () => this.#letGo());
    frame.addEventListener("dblclick", () => this.#reset());
    frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    frame.addEventListener("keydown", (event) => this.#key(event));
    frame.addEventListener("blur", () => this.#choose(null));
    new ResizeObserver(() => this.#draw()).observe(frame);
  }

  /** Points as they are drawn: x by number or time, the oldest first. */
  #place() {
    const { number, time, score, status, confirmed } = this.#data;
    const rings = new Set(confirmed);
    let best = null;
    this.#points = number.map((n, at) => {
      const point = { at, x: this.#by === "time" ? time[at] : n, y: score[at], status: status[at], gain: 0, isConfirmed: rings.has(at), label: this.#data.label[at] };
      if (point.y !== null && point.status !== "q") {
        if (best === null || point.y < best) point.gain = best === null ? Infinity : best - point.y;
        best = best === null ? point.y : Math.min(best, point.y);
      }
      point.best = best;
      return point;
    });
    if (!this.#view) this.#view = this.#whole();
  }

  #whole() {
    const believed = this.#points.filter((p) => p.y !== null && p.status !== "q").map((p) => p.y);
    const low = believed.reduce((a, b) => Math.min(a, b), Infinity);
    const worst = believed.reduce((a, b) => Math.max(a, b), -Infinity);
    const first = this.#data.baseline ?? worst;
    const top = this.#isAll || first <= low ? worst : first;
    const margin = MARGIN * (top - low) || 0.001;
    const xs = [this.#points[0]?.x ?? 0, this.#points.at(-1)?.x ?? 1];
    const pad = (xs[1] - xs[0]) * 0.012 || 1;
    return { x0: xs[0] - pad, x1: xs[1] + pad, y0: low - margin, y1: top + margin, isWhole: true };
  }

  #draw() {
    const canvas = this.shadowRoot?.querySelector("canvas");
    if (!canvas || !this.#data || !this.#points.length) return;
    if (this.#view.isWhole) this.#view = this.#whole();
    this.scale = paint(canvas, this.#points, this.#view, {
      by: this.#by,
      baseline: this.#data.baseline,
      at: this.#at,
      style: getComputedStyle(this),
    });
    this.#showCard();
  }

  // Views ------------------------------------------------------------------------------------------

  #press(button) {
    const { by, do: what } = button.dataset;
    if (by && by !== this.#by) {
      this.#by = by;
      this.#view = null;
      this.#place();
      for (const one of this.shadowRoot.querySelectorAll("[data-by]")) one.setAttribute("aria-pressed", String(one.dataset.by === by));
    }
    if (what === "all") {
      this.#isAll = !this.#isAll;
      button.setAttribute("aria-pressed", String(this.#isAll));
      this.#view = this.#whole();
    }
    if (what === "in") this.#zoom(0.6);
    if (what === "out") this.#zoom(1 / 0.6);
    if (what === "reset") this.#reset();
    this.#draw();
  }

  #reset() {
    this.#view = this.#whole();
    this.#draw();
  }

  /** Around the pointer, or else towards the newest and best corner. */
  #zoom(factor, x = this.#view.x1, y = this.#view.y0) {
    const v = this.#view, whole = this.#whole();
    const next = {
      x0: x - (x - v.x0) * factor, x1: x + (v.x1 - x) * factor,
      y0: y - (y - v.y0) * factor, y1: y + (v.y1 - y) * factor,
    };
    const isOut = next.x1 - next.x0 >= whole.x1 - whole.x0 && next.y1 - next.y0 >= whole.y1 - whole.y0;
    this.#view = isOut ? whole : next;
    this.#draw();
  }

  #wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const [px, py] = this.#spot(event);
    this.#zoom(Math.exp(Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 60) * 0.004), this.scale.toX(px), this.scale.toY(py));
  }

  // Pointer and keys -------------------------------------------------------------------------------

  #spot(event) {
    const frame = this.shadowRoot.querySelector(".frame").getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  #grab(event) {
    if (event.button !== 0) return;
    const [x, y] = this.#spot(event);
    const isMove = event.shiftKey || event.pointerType === "touch";
    this.#drag = { x, y, isMove, view: { ...this.#view }, had: this.#at };
    event.currentTarget.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const [x, y] = this.#spot(event);
    const drag = this.#drag;
    if (!drag) return this.#choose(this.#nearest(x, y));
    if (Math.hypot(x - drag.x, y - drag.y) < DRAGGED && !drag.isFar) return;
    drag.isFar = true;
    if (drag.isMove) {
      const { toX, toY } = this.scale, v = drag.view;
      const dx = toX(drag.x) - toX(x), dy = event.pointerType === "touch" ? 0 : toY(drag.y) - toY(y);
      this.#view = { x0: v.x0 + dx, x1: v.x1 + dx, y0: v.y0 + dy, y1: v.y1 + dy };
      return this.#draw();
    }
    const box = this.shadowRoot.querySelector(".box");
    Object.assign(box.style, { left: `${Math.min(x, drag.x)}px`, top: `${Math.min(y, drag.y)}px`, width: `${Math.abs(x - drag.x)}px`, height: `${Math.abs(y - drag.y)}px` });
    box.hidden = false;
  }

  #drop(event) {
    const drag = this.#drag, [x, y] = this.#spot(event);
    this.#letGo();
    if (!drag) return;
    if (!drag.isFar) return this.#tap(event, x, y, drag.had);
    if (drag.isMove || Math.abs(x - drag.x) < 12 || Math.abs(y - drag.y) < 12) return;
    const { toX, toY } = this.scale;
    const [xa, xb] = [toX(x), toX(drag.x)].sort((a, b) => a - b);
    const [ya, yb] = [toY(y), toY(drag.y)].sort((a, b) => a - b);
    this.#view = { x0: xa, x1: xb, y0: ya, y1: yb };
    this.#draw();
  }

  #letGo() {
    this.#drag = null;
    this.shadowRoot.querySelector(".box").hidden = true;
  }

  /** A finger shows first and opens with the second tap. */
  #tap(event, x, y, had) {
    const at = this.#nearest(x, y);
    if (event.pointerType === "touch" && at !== had) return this.#choose(at);
    if (at !== null) this.#open(at, event.ctrlKey || event.metaKey);
  }

  #nearest(x, y) {
    let best = NEAR, found = null;
    for (const p of this.#points) {
      if (p.y === null) continue;
      const distance = Math.hypot(this.scale.x(p.x) - x, this.scale.y(p.y) - y) - (p.gain || p.status === "q" ? 5 : 0);
      if (distance < best) [best, found] = [distance, p.at];
    }
    return found;
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) this.#walk(step, event.shiftKey);
    else if (event.key === "Enter" && this.#at !== null) this.#open(this.#at, event.ctrlKey);
    else if (event.key === "Escape") this.#choose(null);
    else if (event.key === "+" || event.key === "=") this.#zoom(0.6);
    else if (event.key === "-") this.#zoom(1 / 0.6);
    else if (event.key === "0") this.#reset();
    else return;
    event.preventDefault();
  }

  #walk(step, onlyKept) {
    let at = this.#at ?? (step > 0 ? -1 : this.#points.length);
    do at += step;
    while (this.#points[at] && (this.#points[at].y === null || (onlyKept && !this.#points[at].gain)));
    if (this.#points[at]) this.#choose(at, true);
  }

  #open(at, isAside) {
    const target = this.#target(at);
    if (!target) return;
    if (isAside) window.open(target, "_blank", "noopener");
    else location.assign(target);
  }

  #target(at) {
    const { run, commit } = this.#data;
    if (run[at] !== null) return `/runs/${run[at]}`;
    return commit[at] ? `/commits/${commit[at]}` : null;
  }

  // The card ---------------------------------------------------------------------------------------

  #choose(at, isTold = false) {
    if (at === this.#at) return;
    this.#at = at;
    this.#draw();
    this.shadowRoot.querySelector(".told").textContent = isTold ? this.shadowRoot.querySelector(".card").innerText : "";
  }

  #showCard() {
    const card = this.shadowRoot.querySelector(".card"), frame = card.parentElement, at = this.#at;
    frame.classList.toggle("on", at !== null && this.#target(at) !== null);
    card.hidden = at === null || !this.#points[at];
    if (card.hidden) return;
    const p = this.#points[at];
    card.replaceChildren(...this.#describe(p));
    const x = this.scale.x(p.x), y = this.scale.y(p.y);
    const left = x + card.offsetWidth + 18 > frame.clientWidth ? x - card.offsetWidth - 14 : x + 14;
    const top = Math.min(Math.max(y - card.offsetHeight / 2, 0), frame.clientHeight - card.offsetHeight);
    Object.assign(card.style, { left: `${Math.max(left, 0)}px`, top: `${top}px` });
  }

  #describe(p) {
    const d = this.#data, at = p.at;
    const record = p.isConfirmed && d.records.findLast((one) => one.commit === d.commit[at] && one.z !== null);
    const state = p.isConfirmed ? "confirmed record" : `${SOURCES[d.source[at]] ?? ""}, ${WORDS[p.status]}`;
    const lines = [line("p", "", bold(p.y.toFixed(6)), ` ${state}`)];
    if (p.status === "q") lines[0].className = "warn";
    if (p.gain && p.gain < Infinity) lines.push(line("p", "dim", `▼ ${p.gain.toFixed(6)} under the best before it`));
    if (record) lines.push(line("p", "dim", `mean ${record.val_bpb.toFixed(6)} ± ${record.standard_error.toFixed(4)}, n=${record.n}`));
    lines.push(line("p", "", d.label[at]));
    const who = [d.agent[at], `experiment ${d.number[at]}`, new Date(d.time[at] * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })];
    lines.push(line("p", "dim", who.filter(Boolean).join(" · ")));
    const target = this.#target(at);
    lines.push(line("p", "dim", target ? `opens ${d.run[at] === null ? `commit ${d.commit[at].slice(0, 12)}` : `run ${d.run[at]}`}` : "its commit is not on this hub"));
    return lines;
  }
}

function line(tag, name, ...parts) {
  const element = document.createElement(tag);
  element.className = name;
  element.dir = "auto";
  element.append(...parts);
  return element;
}

function bold(text) {
  const element = document.createElement("b");
  element.textContent = text;
  return element;
}

customElements.define("progress-plot", ProgressPlot);
