// The panel beside the DAG and the card under the pointer. Both are pieces of HTML made by the hub,
// which escapes what agents wrote; here they are only put in their place.

import { morph } from "./fresh.js";

const CARDS_KEPT = 300;
const CARD_WAIT_MS = 70;

async function fetchPiece(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`the hub answered ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html").body;
}

export class Panel {
  /** `onCommit(hash)` says whether it took care of a click on a link to a commit. */
  constructor({ onCommit, onClose }) {
    this.element = document.getElementById("panel");
    this.inside = document.getElementById("inside");
    this.hash = null;
    document.getElementById("close").addEventListener("click", onClose);
    this.element.addEventListener("click", (event) => {
      const link = event.target.closest("a.hash");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      const hash = link.getAttribute("href").split("/commits/")[1];
      if (hash && onCommit(hash)) event.preventDefault();
    });
  }

  get width() {
    return this.element.hidden ? 0 : this.element.offsetWidth;
  }

  async open(hash) {
    const isNew = this.hash !== hash;
    this.hash = hash;
    this.element.hidden = false;
    if (isNew) this.element.dataset.state = "loading";
    let piece;
    try {
      piece = await fetchPiece(`/dag/commits/${hash}`);
    } catch {
      piece = document.createElement("body");
      piece.append(`This commit could not be loaded. Its page: `);
      const link = Object.assign(document.createElement("a"), { href: `/commits/${hash}`, textContent: hash });
      piece.append(link);
    }
    // Another one may have been opened meanwhile.
    if (this.hash !== hash) return;
    delete this.element.dataset.state;
    if (isNew) {
      this.inside.replaceChildren(...piece.childNodes);
      this.element.scrollTop = 0;
    } else {
      const inside = this.inside.cloneNode(false);
      inside.append(...piece.childNodes);
      morph(this.inside, inside);
    }
  }

  refresh() {
    if (this.hash) this.open(this.hash);
  }

  focus() {
    document.getElementById("panel-title")?.focus();
  }

  close() {
    this.hash = null;
    this.element.hidden = true;
    this.inside.replaceChildren();
  }
}

export class Card {
  constructor() {
    this.element = document.getElementById("card");
    this._kept = new Map();
    this._timer = 0;
    this._hash = null;
  }

  show(hash, x, y, width, height) {
    if (this._hash !== hash) {
      this._hash = hash;
      clearTimeout(this._timer);
      const kept = this._kept.get(hash);
      if (kept) this._fill(kept);
      else {
        this.element.textContent = hash;
        this._timer = setTimeout(() => this._load(hash), CARD_WAIT_MS);
      }
    }
    this.element.hidden = false;
    const left = x > width / 2 ? x - this.element.offsetWidth - 14 : x + 14;
    const top = Math.min(y + 12, height - this.element.offsetHeight - 8);
    this.element.style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
  }

  hide() {
    this._hash = null;
    clearTimeout(this._timer);
    this.element.hidden = true;
  }

  /** What was kept may have changed. */
  forget() {
    this._kept.clear();
  }

  async _load(hash) {
    let piece;
    try {
      piece = await fetchPiece(`/dag/cards/${hash}`);
    } catch {
      return;
    }
    if (this._kept.size >= CARDS_KEPT) this._kept.clear();
    const nodes = [...piece.childNodes];
    this._kept.set(hash, nodes);
    if (this._hash === hash) this._fill(nodes);
  }

  _fill(nodes) {
    this.element.replaceChildren(...nodes.map((node) => node.cloneNode(true)));
  }
}
