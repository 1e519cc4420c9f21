"""A swarm's research as it might have gone: who tried what on which commit, how it scored.

The same for each seed. Some agents climb (what does not improve is left behind as a leaf), some
follow their own line whatever it scores, now and then one jumps to the best commit or merges it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

IDEAS = (
    "raise the matrix LR to {x:.3f}",
    "lower weight decay to {x:.3f}",
    "warm down over the last {n} %",
    "RoPE base {n}00",
    "GQA with {n} groups",
    "softcap the logits at {n}",
    "squared ReLU in the MLP",
    "value embeddings in every other layer",
    "batch of {n} sequences per step",
    "Muon momentum {x:.3f}",
    "window of {n} blocks",
    "tie the embeddings",
)
AGENTS = (
    *("ada", "bo", "chen", "dara", "emil", "fern", "gus", "hana", "ivo", "june", "kofi", "lin"),
    *("mira", "noor"),
)
BASELINE = 0.9979
_FLOOR = 0.905
#: Attempts on one commit before the swarm looks elsewhere.
_PATIENCE = 14


@dataclass(frozen=True, slots=True)
class Attempt:
    """One commit of the swarm; parents are numbers of earlier attempts, the first is 0."""

    parents: tuple[int, ...]
    agent: str
    message: str
    #: None for a crash.
    score: float | None


def research(count: int, seed: int = 1) -> Iterator[Attempt]:
    chance = random.Random(seed)
    scores: list[float | None] = [BASELINE]
    children = [0] * count
    tips = dict.fromkeys(AGENTS, 0)
    best = 0
    yield Attempt((), AGENTS[0], "Baseline", BASELINE)
    for number in range(1, count):
        agent = AGENTS[min(int(chance.expovariate(0.22)), len(AGENTS) - 1)]
        if children[tips[agent]] >= _PATIENCE:
            tips[agent] = _find_fresh(chance, scores, children)
        parents = _choose(chance, tips[agent], best if children[best] < _PATIENCE else None)
        score = _try(chance, min(s for p in parents if (s := scores[p]) is not None))
        scores.append(score)
        for parent in parents:
            children[parent] += 1
        known = scores[parents[0]]
        is_better = score is not None and known is not None and score < known
        if is_better or (AGENTS.index(agent) % 3 == 0 and score is not None):
            tips[agent] = number
        if score is not None and score < (scores[best] or BASELINE):
            best = number
        yield Attempt(parents, agent, _tell(chance, parents), score)


def _find_fresh(chance: random.Random, scores: list[float | None], children: list[int]) -> int:
    """A recent commit that worked and that few have tried to improve."""
    while True:
        found = chance.randrange(max(0, len(scores) - 300), len(scores))
        if scores[found] is not None and children[found] < _PATIENCE:
            return found


def _choose(chance: random.Random, tip: int, best: int | None) -> tuple[int, ...]:
    luck = chance.random()
    if best is None or best == tip or luck > 0.24:
        return (tip,)
    return (tip, best) if luck < 0.025 else (best,)


def _try(chance: random.Random, parent: float) -> float | None:
    if chance.random() < 0.06:
        return None
    if chance.random() < 0.11:
        # The better it is already, the less there is to win.
        return round(parent - abs(chance.gauss(0.02, 0.012)) * (parent - _FLOOR), 6)
    return round(parent + abs(chance.gauss(0.0008, 0.0022)), 6)


def _tell(chance: random.Random, parents: tuple[int, ...]) -> str:
    if len(parents) > 1:
        return "Merge the best so far"
    return chance.choice(IDEAS).format(x=chance.uniform(0.01, 0.99), n=chance.randint(2, 64))
