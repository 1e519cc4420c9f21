"""What to train or to build on next."""

import random
from collections import Counter

import pytest

from server.policy import Candidate, Policy, rank

SIGMA = 0.001


def order(
    policy: Policy, candidates: list[Candidate], visits: int | None = None, seed: int = 1
) -> list[int]:
    """The seqs of the candidates, best first."""
    total = sum(c.visits for c in candidates) if visits is None else visits
    ranked = rank(policy, candidates, total, SIGMA, random.Random(seed))
    return [candidates[index].seq for index in ranked]


def swarm(chance: random.Random, count: int) -> list[Candidate]:
    parents = [
        (1 + chance.gauss(0, 0.01), chance.randint(1, 4), chance.randint(0, 9)) for _ in "ab"
    ]
    parents += [(1 + chance.gauss(0, 0.01), 1, 0)]
    return [
        Candidate(seq, None, 0, 0) if chance.random() < 0.2 else Candidate(seq, *parent)
        for seq in chance.sample(range(1000), count)
        for parent in [chance.choice(parents)]
    ]


@pytest.mark.parametrize("policy", Policy)
def test_each_policy_ranks_everything_once_whatever_the_order_it_is_told_in(policy: Policy) -> None:
    chance = random.Random(7)
    for count in (0, 1, 2, 30):
        candidates = swarm(chance, count)
        ranked = order(policy, candidates)
        assert sorted(ranked) == sorted(c.seq for c in candidates)
        assert order(policy, candidates) == ranked
        assert order(policy, chance.sample(candidates, count)) == ranked


@pytest.mark.parametrize("policy", [one for one in Policy if one is not Policy.NEWEST])
def test_equals_are_taken_by_age(policy: Policy) -> None:
    candidates = [Candidate(seq, 0.98, 2, 3) for seq in (5, 3, 9, 1)]
    assert order(policy, candidates) == [1, 3, 5, 9]


def test_fifo_takes_the_oldest_and_newest_the_youngest() -> None:
    candidates = [Candidate(seq, None, 0, 0) for seq in (5, 3, 9)]
    assert order(Policy.FIFO, candidates) == [3, 5, 9]
    assert order(Policy.NEWEST, candidates) == [9, 5, 3]


def test_best_first_builds_on_the_best_known_parent_and_on_unknown_ones_last() -> None:
    chance = random.Random(8)
    for _ in range(100):
        candidates = swarm(chance, 20)
        scores = {c.seq: c.parent for c in candidates}
        ranked = [scores[seq] for seq in order(Policy.BEST_FIRST, candidates)]
        known = [score for score in ranked if score is not None]
        assert ranked == sorted(known) + [None] * (len(ranked) - len(known))


def test_puct_builds_on_the_best_among_equally_tried() -> None:
    candidates = [Candidate(1, 1.01, 1, 2), Candidate(2, 0.97, 1, 2), Candidate(3, None, 0, 2)]
    assert order(Policy.PUCT, candidates) == [2, 3, 1]


def test_puct_leaves_an_exhausted_best_parent_for_a_fresh_good_one() -> None:
    best, good, worst = (0.97, 3), (0.975, 1), (1.2, 1)
    candidates = [Candidate(1, *best, 0), Candidate(2, *good, 0), Candidate(3, *worst, 0)]
    assert order(Policy.PUCT, candidates, visits=20) == [1, 2, 3]
    candidates[0] = Candidate(1, *best, 20)
    assert order(Policy.PUCT, candidates, visits=20)[-1] == 1
    # When all are tried alike, the best is again the best.
    candidates = [Candidate(1, *best, 20), Candidate(2, *good, 20), Candidate(3, *worst, 20)]
    assert order(Policy.PUCT, candidates, visits=60) == [1, 2, 3]


def test_puct_spends_most_on_the_best_and_something_on_all() -> None:
    scores, visits = [0.97, 0.98, 0.99, 1.0], [0, 0, 0, 0]
    for _ in range(200):
        candidates = [Candidate(i, scores[i], 1, visits[i]) for i in range(4)]
        visits[order(Policy.PUCT, candidates)[0]] += 1
    assert visits == sorted(visits, reverse=True)
    assert visits[0] > 2 * visits[3] > 0


def test_puct_ranks_parents_and_not_their_children() -> None:
    """Forty children of a poor parent do not lift the middling one to the height of the best."""
    poor = [Candidate(100 + i, 1.2, 1, 0) for i in range(40)]
    few = [Candidate(1, 0.97, 1, 1), Candidate(2, 1.0, 1, 0)]
    assert order(Policy.PUCT, [*few, *poor], visits=2)[:3] == order(
        Policy.PUCT, [*few, poor[0]], visits=2
    )


def firsts(candidates: list[Candidate], draws: int = 1000) -> Counter[int]:
    return Counter(order(Policy.THOMPSON, candidates, seed=seed)[0] for seed in range(draws))


def test_thompson_spreads_over_parents_that_noise_cannot_tell_apart() -> None:
    shares = firsts([Candidate(1, 0.98, 1, 0), Candidate(2, 0.98 + SIGMA / 2, 1, 0)])
    assert 500 < shares[1] < 700


def test_thompson_leaves_what_is_far_behind() -> None:
    assert firsts([Candidate(1, 0.98, 1, 0), Candidate(2, 0.98 + 20 * SIGMA, 1, 0)])[2] == 0


def test_thompson_gives_a_fresh_lineage_more_doubt_than_a_tried_one() -> None:
    best = Candidate(1, 0.98, 4, 30)
    behind = 0.98 + 2 * SIGMA
    fresh = firsts([best, Candidate(2, behind, 1, 0)])[2]
    tried = firsts([best, Candidate(2, behind, 4, 30)])[2]
    assert fresh > 2 * tried


def test_thompson_does_not_favour_whoever_has_the_most_children_waiting() -> None:
    many = [Candidate(10 + i, 0.98, 1, 0) for i in range(50)]
    shares = firsts([Candidate(1, 0.98, 2, 0), *many])
    assert 400 < shares[1] < 600


def test_thompson_takes_an_unknown_parent_for_a_median_one() -> None:
    known = [Candidate(1, 0.98, 1, 0), Candidate(2, 1.0, 1, 0), Candidate(3, 1.02, 1, 0)]
    places = [
        order(Policy.THOMPSON, [*known, Candidate(4, None, 0, 0)], seed=seed).index(4)
        for seed in range(500)
    ]
    assert 1.3 < sum(places) / len(places) < 1.7
    assert order(Policy.THOMPSON, [Candidate(1, None, 0, 0)]) == [1]
