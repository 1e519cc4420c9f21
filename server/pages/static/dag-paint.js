// What each commit looks like: its colour, its mark, whether the filters leave it faint. Colours
// are told apart by the colour-blind: one ramp of lightness for scores, Okabe and Ito's for kinds.

export const DOT = 0;
export const HOLLOW = 1;
export const CROSS = 2;

const RAMP_STEPS = 20;
const LIGHT = {
  ramp: ["#c9cdb9", "#93c5a4", "#4fa9a0", "#2a7b94", "#2b4c86", "#3a1c6e"],
  kinds: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a6a00", "#56b4e9", "#6a3d9a", "#8c8c00"],
  none: "#a7a299",
};
const DARK = {
  ramp: ["#45506b", "#3f6c8f", "#2f94a0", "#45bd8c", "#a5dc55", "#fde94b"],
  kinds: ["#56b4e9", "#f0904a", "#2fc79a", "#e29ac4", "#e6b13a", "#8fd3ff", "#b79ae0", "#dcd95b"],
  none: "#66686d",
};
const STATES = ["confirmed", "measured", "reported", "crash"];
const STATE_KINDS = { confirmed: 2, measured: 0, reported: 3, crash: 1 };
const SPANS = { "1h": 3600, "12h": 43200, "24h": 86400, "7d": 604800 };

export class Paint {
  constructor(store) {
    this.store = store;
    this.colours = [];
    /** Per commit: index into `colours`, one of the marks, and whether it is filtered out. */
    this.colour = [];
    this.mark = [];
    this.faint = [];
    /** Scores that were the best of their track when they came. */
    this.isRecord = [];
    this.matching = 0;
    this.isFiltered = false;
    this.legend = [];
  }

  /** Look at everything anew. `found` holds what the search found, or is null; `track` is the one
      whose scores are shown, 0 for every one. */
  update(state, found, isDark, track) {
    const { store } = this;
    const theme = isDark ? DARK : LIGHT;
    const fits = this._filter(state, found, track);
    const pick = this._colouring(state.colour, theme, track);
    this.matching = 0;
    for (let i = 0; i < store.size; i++) {
      const score = store.score(i, track);
      this.colour[i] = pick(i, score);
      this.mark[i] = !score ? HOLLOW : score.bpb === null ? CROSS : DOT;
      this.isRecord[i] = score !== undefined && score.outcome === "keep";
      const isMatch = fits(i, score);
      this.faint[i] = !isMatch;
      if (isMatch) this.matching++;
    }
  }

  _filter(state, found, track) {
    const { store } = this;
    const agent = state.agent ? store.agents.indexOf(state.agent) : null;
    const newest = store.size ? Math.max(...store.time.slice(-200)) : 0;
    const since = SPANS[state.time] ? newest - SPANS[state.time] : 0;
    this.isFiltered = Boolean(state.agent || state.outcome || since || found || state.track);
    const outcomes = {
      running: (i) => store.running.has(i),
      none: (i, score) => !score,
      leaf: (i) => store.isLeaf(i),
    };
    const outcome =
      outcomes[state.outcome] || ((i, score) => score !== undefined && score.outcome === state.outcome);
    return (i, score) =>
      (agent === null || store.agent[i] === agent) &&
      (!state.outcome || outcome(i, score)) &&
      (!track || score !== undefined || state.outcome === "none") &&
      store.time[i] >= since &&
      (!found || found.has(i));
  }

  _colouring(kind, theme, track) {
    if (kind === "agent") return this._byAgent(theme);
    if (kind === "state") return this._byState(theme);
    return this._byScore(theme, track);
  }

  _byScore(theme, track) {
    const { store } = this;
    this.colours = [theme.none, ...ramp(theme.ramp, RAMP_STEPS)];
    const ranges = new Map();
    for (let i = 0; i < store.size; i++) {
      for (const { track: id, bpb } of store.scores[i] || []) {
        if (bpb === null || (track && id !== track)) continue;
        if (!ranges.has(id)) ranges.set(id, []);
        ranges.get(id).push(bpb);
      }
    }
    for (const values of ranges.values()) values.sort((a, b) => a - b);
    const shown = track ? ranges.get(track) : ranges.size === 1 ? [...ranges.values()][0] : undefined;
    this.legend = [
      { ramp: theme.ramp, from: shown ? shown.at(-1).toFixed(3) : "worse", to: shown ? shown[0].toFixed(3) : "best of its track" },
      { mark: HOLLOW, text: "no score yet" },
      { mark: CROSS, text: "crash" },
    ];
    return (i, score) => {
      if (!score || score.bpb === null) return 0;
      return 1 + Math.round(share(ranges.get(score.track), score.bpb) * (RAMP_STEPS - 1));
    };
  }

  _byState(theme) {
    this.colours = [theme.none, ...STATES.map((state) => theme.kinds[STATE_KINDS[state]])];
    this.legend = [
      ...STATES.map((state, k) => ({ colour: this.colours[k + 1], mark: state === "crash" ? CROSS : DOT, text: state })),
      { mark: HOLLOW, text: "no score yet" },
    ];
    return (i, score) => (score ? 1 + STATES.indexOf(score.bpb === null ? "crash" : score.state) : 0);
  }

  _byAgent(theme) {
    const { store } = this;
    const counts = store.agents.map(() => 0);
    for (const agent of store.agent) if (agent >= 0) counts[agent]++;
    const ranked = counts.map((_, agent) => agent).sort((a, b) => counts[b] - counts[a]);
    const named = ranked.slice(0, theme.kinds.length);
    const place = new Map(named.map((agent, k) => [agent, k + 1]));
    this.colours = [theme.none, ...theme.kinds];
    this.legend = named.map((agent, k) => ({ colour: theme.kinds[k], mark: DOT, text: store.agents[agent] }));
    if (ranked.length > named.length) this.legend.push({ colour: theme.none, mark: DOT, text: "others" });
    return (i) => place.get(store.agent[i]) || 0;
  }
}

/** 1 for the best of these scores, 0 for the worst: by rank, since late scores differ by little. */
function share(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return sorted.length > 1 ? 1 - low / (sorted.length - 1) : 1;
}

function ramp(stops, steps) {
  const parts = stops.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: steps }, (_, k) => {
    const at = (k / (steps - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const mixed = parts[low].map((part, c) => Math.round(part + (parts[low + 1][c] - part) * (at - low)));
    return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
  });
}
