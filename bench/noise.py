"""How often does luck become a record, and how often does a real gain?

    python -m bench.noise --swarms 10000

Simulates swarms and lets `server.noise` judge them as the hub does: sigma is estimated from the
replicates seen so far and the prior. A swarm is a baseline and 60 experiments, none of them better.
A first run that beats the record by CHALLENGE_SIGMAS gets replicates until it is decided, and the
record one with each challenge up to REPLICATES_MAX. The results are in docs/statistics.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from server.noise import (
    CHALLENGE_SIGMAS,
    REPLICATES_MAX,
    REPLICATES_MIN,
    Decision,
    Group,
    decide,
    pooled_degrees,
    pooled_sigma,
)

EXPERIMENTS = 60
#: Runs of the baseline before the first experiment: its own and two more.
BASELINE_RUNS = 3
RATIOS = (1 / 3, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 30.0)
GAINS = (1, 2, 3, 4, 5)


@dataclass
class Swarm:
    """A track whose true sigma is 1, and whose record has a true mean of 0."""

    noise: Iterator[float]
    prior: float
    record: list[float]
    #: Replicates of each challenger so far.
    challengers: list[Group] = field(default_factory=list)

    def gate(self) -> float:
        """First runs below this challenge the record."""
        record = Group.of(self.record)
        sigma = pooled_sigma([record, *self.challengers], self.prior)
        return record.mean - CHALLENGE_SIGMAS * sigma

    def confirms(self, gain: float) -> bool:
        """Let a challenger of this true gain be replicated until it is decided."""
        if len(self.record) < REPLICATES_MAX:
            self.record.append(next(self.noise))
        scores = [next(self.noise) - gain for _ in range(REPLICATES_MIN)]
        while (decision := self._decide(Group.of(scores))) is Decision.MORE:
            scores.append(next(self.noise) - gain)
        self.challengers.append(Group.of(scores))
        return decision is Decision.CONFIRM

    def _decide(self, challenger: Group) -> Decision:
        record = Group.of(self.record)
        groups = [record, *self.challengers, challenger]
        sigma, degrees = pooled_sigma(groups, self.prior), pooled_degrees(groups, self.prior)
        return decide(challenger, record, sigma, len(self.challengers) + 1, degrees)


def start(random: np.random.Generator, ratio: float, baseline_runs: int = BASELINE_RUNS) -> Swarm:
    """A swarm whose sigma is `ratio` times the prior."""
    noise = _normals(random)
    return Swarm(noise, 1 / ratio, [next(noise) for _ in range(baseline_runs)])


def has_false_record(swarm: Swarm, experiments: int = EXPERIMENTS) -> bool:
    """Whether any of so many experiments, none better than the record, is confirmed."""
    gate = swarm.gate()
    for _ in range(experiments):
        if next(swarm.noise) < gate:
            if swarm.confirms(0.0):
                return True
            gate = swarm.gate()
    return False


def false_record_rate(swarms: int, ratio: float, baseline_runs: int = BASELINE_RUNS) -> float:
    random = np.random.default_rng(1)
    found = (has_false_record(start(random, ratio, baseline_runs)) for _ in range(swarms))
    return sum(found) / swarms


def power(challenges: int, gain: float, ordinal: int, ratio: float = 1.0) -> float:
    """How often the ordinal-th challenger of a record is confirmed, its gain in true sigmas."""
    random = np.random.default_rng(2)
    confirmed = 0
    for _ in range(challenges):
        swarm = start(random, ratio)
        for _ in range(ordinal - 1):
            swarm.confirms(0.0)
        confirmed += swarm.confirms(gain)
    return confirmed / challenges


def _normals(random: np.random.Generator) -> Iterator[float]:
    while True:
        yield from random.standard_normal(128).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--swarms", type=int, default=10_000)
    swarms = parser.parse_args().swarms
    print(f"swarms with a false record, of {swarms:,}")
    print("  sigma / prior   baseline run 3 times   once")
    for ratio in RATIOS:
        rates = [false_record_rate(swarms, ratio, runs) for runs in (BASELINE_RUNS, 1)]
        print(f"  {ratio:13.2f}   {rates[0]:20.2%}   {rates[1]:.2%}", flush=True)
    print("confirmed challengers, by true gain in sigmas")
    print("  sigma / prior   challenger   " + "".join(f"{gain:6}" for gain in GAINS))
    for ratio, ordinal in ((1.0, 1), (1.0, 10), (3.0, 1), (3.0, 10)):
        shares = "".join(f"{power(swarms // 10, gain, ordinal, ratio):6.0%}" for gain in GAINS)
        print(f"  {ratio:13.2f}   {ordinal:10}   {shares}", flush=True)


if __name__ == "__main__":
    main()
