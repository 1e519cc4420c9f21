// Where each commit sits: a column per generation, a lane per lineage. A commit once placed never
// moves: the first child goes on in its parent's lane, which is kept free for it; every other one
// takes the free lane nearest to its parent.

export const COLUMN = 28;
export const LANE = 18;
/** Straight chains with at least so many inner commits can be folded. */
const FOLD_MIN = 5;
/** Width of what is folded away, in columns. */
const FOLDED = 1.6;

class Column {
  constructor() {
    this.above = new Map();
    this.below = new Map();
  }

  take(lane) {
    this.above.set(lane, lane + 1);
    this.below.set(lane, lane - 1);
  }

  /** The free lane nearest to `lane`; of two equally near ones the upper if `prefersUp`. */
  nearest(lane, prefersUp) {
    const down = next(this.above, lane);
    const up = next(this.below, lane);
    if (down - lane === lane - up) return prefersUp ? up : down;
    return down - lane < lane - up ? down : up;
  }
}

/** Follow the map of taken lanes to the first free one, shortening the way for the next time. */
function next(taken, lane) {
  const way = [];
  let at = lane;
  for (let to = taken.get(at); to !== undefined; to = taken.get(at)) {
    way.push(at);
    at = to;
  }
  for (const passed of way) taken.set(passed, at);
  return at;
}

export class Layout {
  constructor(store) {
    this.store = store;
    this.lane = [];
    this._hasHeir = [];
    this._columns = [];
    /** Per commit: the chain it is an inner part of, if that is folded. */
    this.folded = [];
    this.chains = [];
    this._offsets = null;
  }

  /** Place the commits that came since the last time. */
  grow() {
    const { store, lane } = this;
    for (let i = lane.length; i < store.size; i++) {
      const generation = store.generation[i];
      const parent = store.parents[i][0];
      const column = this._column(generation);
      let mine;
      if (parent !== undefined && !this._hasHeir[parent] && store.generation[parent] === generation - 1) {
        this._hasHeir[parent] = true;
        mine = lane[parent];
      } else {
        mine = column.nearest(parent === undefined ? 0 : lane[parent], i % 2 === 0);
        column.take(mine);
      }
      // Free for the first child.
      this._column(generation + 1).take(mine);
      lane.push(mine);
    }
  }

  _column(generation) {
    return (this._columns[generation] ??= new Column());
  }

  x(i) {
    const generation = this.store.generation[i];
    const offset = this._offsets ? this._offsets[Math.min(generation, this._offsets.length - 1)] : 0;
    return (generation - offset) * COLUMN;
  }

  y(i) {
    return this.lane[i] * LANE;
  }

  unfold() {
    this.folded = [];
    this.chains = [];
    this._offsets = null;
  }

  /** Fold every long straight chain as it is now; what grows later is not folded. */
  fold() {
    this.unfold();
    const { store } = this;
    const isInner = (i) =>
      store.parents[i].length === 1 && store.children[i].length === 1 && !store.running.has(i);
    for (let i = 0; i < store.size; i++) {
      if (!isInner(i) || isInner(store.parents[i][0])) continue;
      const inner = [];
      for (let at = i; isInner(at); at = store.children[at][0]) inner.push(at);
      if (inner.length >= FOLD_MIN) this._foldChain(inner);
    }
    this._closeColumns();
  }

  _foldChain(inner) {
    const { store } = this;
    const from = store.parents[inner[0]][0];
    const to = store.children[inner.at(-1)][0];
    const chain = this.chains.push({ from, to, inner }) - 1;
    for (const i of inner) this.folded[i] = chain + 1;
  }

  /** Columns in which everything is folded take no room, but for a gap where each stretch was. */
  _closeColumns() {
    const { store } = this;
    const isOpen = [];
    for (let i = 0; i < store.size; i++) if (!this.folded[i]) isOpen[store.generation[i]] = true;
    const offsets = [0];
    let closed = 0;
    for (let g = 1; g < isOpen.length; g++) {
      if (!isOpen[g]) closed += isOpen[g - 1] || g === 1 ? 1 - FOLDED : 1;
      offsets[g] = closed;
    }
    this._offsets = offsets;
  }
}
