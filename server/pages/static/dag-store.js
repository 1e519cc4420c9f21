// The DAG in memory: columns that only grow, in the order of the commits' seqs, parents before
// children. A commit is its index. `fetchNew` asks the hub for what is new since the last answer.

export class Store {
  constructor() {
    this.seqs = [];
    this.hashes = [];
    this.parents = [];
    this.children = [];
    this.generation = [];
    this.agent = [];
    this.time = [];
    /** Per commit: its scores, one for each track, or undefined. */
    this.scores = [];
    this.running = new Set();
    this.agents = [];
    this.tracks = [];
    this.event = null;
    this._agentIndex = new Map();
    this._bySeq = new Map();
    this._byHash = new Map();
    this._since = 0;
    this._result = 0;
  }

  get size() {
    return this.seqs.length;
  }

  /** The commit with this hash, whole or of the first 12 digits; undefined when unknown. */
  find(hash) {
    return this._byHash.get(hash.slice(0, 12));
  }

  findSeq(seq) {
    return this._bySeq.get(seq);
  }

  isLeaf(i) {
    return this.children[i].length === 0;
  }

  /** Fetch and add what is new; return whether there is more to come. */
  async fetchNew() {
    const answer = await fetch(`/dag/data?since=${this._since}&result=${this._result}`);
    if (!answer.ok) throw new Error(`the hub answered ${answer.status}`);
    const dag = await answer.json();
    this._add(dag);
    this._since = dag.seq;
    this._result = dag.result;
    this.event = dag.event;
    return dag.has_more;
  }

  _add(dag) {
    const agents = dag.agents.map((name) => this._indexOfAgent(name));
    const { seq, hash, parents, generation, agent, time } = dag.commits;
    for (let k = 0; k < seq.length; k++) {
      if (this._bySeq.has(seq[k])) continue;
      const i = this.seqs.push(seq[k]) - 1;
      this._bySeq.set(seq[k], i);
      this._byHash.set(hash[k], i);
      this.hashes.push(hash[k]);
      this.generation.push(generation[k]);
      this.agent.push(agent[k] < 0 ? -1 : agents[agent[k]]);
      this.time.push(time[k]);
      this.children.push([]);
      this.scores.push(undefined);
      const known = [...new Set(parents[k])].map((p) => this._bySeq.get(p));
      this.parents.push(known.filter((p) => p !== undefined));
      for (const parent of this.parents[i]) this.children[parent].push(i);
    }
    this.tracks = dag.tracks;
    this._addScores(dag.scores);
    this.running = new Set(dag.running.map((s) => this._bySeq.get(s)).filter((i) => i !== undefined));
  }

  _addScores({ commit, track, val_bpb, state, outcome }) {
    for (let k = 0; k < commit.length; k++) {
      const i = this._bySeq.get(commit[k]);
      if (i === undefined) continue;
      const score = { track: track[k], bpb: val_bpb[k], state: state[k], outcome: outcome[k] };
      const others = (this.scores[i] || []).filter((one) => one.track !== score.track);
      this.scores[i] = [...others, score];
    }
  }

  _indexOfAgent(name) {
    let index = this._agentIndex.get(name);
    if (index === undefined) {
      index = this.agents.push(name) - 1;
      this._agentIndex.set(name, index);
    }
    return index;
  }

  /** The score in a track; without one, in the busiest track that scored the commit. */
  score(i, track) {
    const scores = this.scores[i];
    if (!scores) return undefined;
    if (track) return scores.find((score) => score.track === track);
    if (scores.length === 1) return scores[0];
    for (const { id } of this.tracks) {
      const found = scores.find((score) => score.track === id);
      if (found) return found;
    }
    return scores[0];
  }

  /** The commit and its first parents down to the root. */
  lineage(i) {
    const line = [];
    for (let at = i; at !== undefined; at = this.parents[at][0]) line.push(at);
    return line;
  }
}
