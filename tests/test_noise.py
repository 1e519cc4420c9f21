"""An improvement is real or luck; scipy and simulated swarms say whether the formulas tell."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from bench.noise import false_record_rate, power
from server import noise
from server.noise import (
    REPLICATES_MAX,
    Z_CONFIRM,
    Decision,
    Group,
    Verdict,
    decide,
    is_fixed_seed,
    pooled_degrees,
    pooled_sigma,
    prior_sigma,
    required_z,
    standard_error,
    verdict,
    z_score,
)


def groups_of(sigma: float, count: int, size: int = 3, seed: int = 1) -> list[Group]:
    """Replicate groups of different true means, around 1 bpb."""
    chance = np.random.default_rng(seed)
    means = chance.normal(1.0, 0.1, count)
    return [Group.of(chance.normal(mean, sigma, size).tolist()) for mean in means]


# The noise of a track --------------------------------------------------------------------------


def test_a_group_agrees_with_numpy_and_is_exact_about_equal_scores() -> None:
    scores = np.random.default_rng(2).normal(1, 0.01, 50)
    group = Group.of(scores.tolist())
    assert group.n == 50
    assert group.mean == pytest.approx(scores.mean())
    assert group.m2 == pytest.approx(((scores - scores.mean()) ** 2).sum())
    chance = random.Random(3)
    for n in range(1, 60):
        score = chance.random()
        assert Group.of([score] * n) == Group(n, score, 0.0)
    assert Group.of([]).n == 0


def test_the_prior_is_the_measured_spread_and_grows_as_budgets_shrink() -> None:
    assert prior_sigma("H100", 300) == prior_sigma("H100", 3600) == 0.0006
    assert prior_sigma("H100", 75) == pytest.approx(0.0012)
    assert prior_sigma("cpu-x86_64", 60) == prior_sigma("CPU", 300) == 0.02
    # Five seeds of the tiny model spread by 0.033 at 20 s.
    assert prior_sigma("cpu", 20) == pytest.approx(0.033, rel=0.1)


def test_without_replicates_sigma_is_the_prior() -> None:
    assert pooled_sigma([], 0.0006) == 0.0006
    assert pooled_sigma([Group.of([0.98]), Group.of([0.97])], 0.0006) == 0.0006
    assert pooled_degrees([Group.of([0.98])], 0.0006) == noise.PRIOR_RUNS


def test_the_pooled_variance_is_the_one_of_an_analysis_of_variance() -> None:
    chance = np.random.default_rng(4)
    samples = [chance.normal(mean, 0.01, size) for mean, size in ((0.9, 4), (1.0, 2), (1.1, 5))]
    # scipy knows the pooled variance through its F: variance between / variance within.
    total, sizes = np.concatenate(samples), [len(sample) for sample in samples]
    between = sum(n * (s.mean() - total.mean()) ** 2 for n, s in zip(sizes, samples, strict=True))
    pooled = between / (len(samples) - 1) / stats.f_oneway(*samples).statistic
    groups = [Group.of(sample.tolist()) for sample in samples]
    # A prior equal to what it is blended with leaves it as it is.
    assert pooled_sigma(groups, math.sqrt(pooled)) == pytest.approx(math.sqrt(pooled))
    # A far larger one keeps its weight of five: (5 * prior^2 + 8 * pooled) / 13.
    expected = math.sqrt((5 * 1.0 + 8 * pooled) / 13)
    assert pooled_sigma(groups, 1.0) == pytest.approx(expected)
    # A far smaller one has none.
    assert pooled_sigma(groups, 0.0001) == pytest.approx(math.sqrt(pooled))


def test_two_groups_pool_as_in_the_t_test_of_scipy() -> None:
    a, b = [0.981, 0.983, 0.979, 0.986], [0.971, 0.977]
    groups = [Group.of(a), Group.of(b)]
    sigma = pooled_sigma(groups, prior=1e-6)
    z = z_score(groups[0].mean - groups[1].mean, sigma, 4, 2)
    assert z == pytest.approx(stats.ttest_ind(a, b, equal_var=True).statistic)


@pytest.mark.parametrize("ratio", [1 / 3, 1, 3, 30])
def test_sigma_converges_to_the_truth_whatever_the_prior(ratio: float) -> None:
    groups = groups_of(sigma=0.01, count=1000)
    assert pooled_sigma(groups, 0.01 / ratio) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("degrees", [1, 2, 4, 10, 100])
@pytest.mark.parametrize("excess", [0.2, 1, 2, 4, 9])
def test_the_prior_weighs_what_chi_square_leaves_it(degrees: int, excess: float) -> None:
    group = Group(degrees + 1, 1.0, degrees * excess)
    chance = stats.chi2.sf(degrees * excess, degrees)
    weight = pooled_degrees([group], prior=1.0) - degrees
    assert weight == pytest.approx(5 * min(1, 2 * chance), abs=0.1)


def test_a_prior_thirty_times_too_small_is_dropped_after_three_runs_of_the_baseline() -> None:
    sigmas = [pooled_sigma(groups_of(0.03, 1, 3, seed), 0.001) for seed in range(1000)]
    assert np.mean(np.array(sigmas) < 0.003) < 0.02
    assert np.median(sigmas) == pytest.approx(0.03 * math.sqrt(stats.chi2.median(2) / 2), rel=0.1)


def test_groups_without_spread_do_not_make_a_track_look_quiet() -> None:
    groups = groups_of(0.01, 5)
    fixed = [Group.of([0.97] * 4)] * 10
    assert pooled_sigma([*groups, *fixed], 0.01) == pooled_sigma(groups, 0.01)


def test_fixed_seeds_are_told_by_equal_scores() -> None:
    assert is_fixed_seed([2.0613, 2.0613, 2.0613])
    assert not is_fixed_seed([2.0613, 2.0613, 2.0614])
    assert not is_fixed_seed([2.0613])
    assert not is_fixed_seed([])


# One score against another ---------------------------------------------------------------------


def test_z_is_the_gain_over_the_spread_of_such_gains() -> None:
    chance = np.random.default_rng(5)
    gains = chance.normal(0, 2, (20_000, 3)).mean(axis=1) - chance.normal(0, 2, (20_000, 2)).mean(
        axis=1
    )
    z = np.array([z_score(gain, 2.0, 2, 3) for gain in gains])
    assert stats.kstest(z, stats.norm.cdf).pvalue > 0.01
    assert standard_error(2.0, 4) == 1.0


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        (9, Verdict.STRONG),
        (3.001, Verdict.STRONG),
        (2.999, Verdict.KEEP),
        (1.501, Verdict.KEEP),
        (1.499, Verdict.MARGINAL),
        (0.501, Verdict.MARGINAL),
        (0.499, Verdict.RETEST),
        (-0.499, Verdict.RETEST),
        (-0.501, Verdict.DISCARD),
    ],
)
def test_verdicts_are_multiples_of_the_noise(z: float, expected: Verdict) -> None:
    assert verdict(z, sigma=math.sqrt(0.5)) is expected
    # With four runs on each side the same gain is worth twice as much.
    assert verdict(z / 2, math.sqrt(0.5), 4, 4) is expected


# Challenging a record --------------------------------------------------------------------------


def test_the_required_z_rises_with_each_challenger() -> None:
    assert required_z(1) == pytest.approx(Z_CONFIRM)
    for k in (1, 2, 10, 100):
        assert stats.norm.sf(required_z(k)) == pytest.approx(stats.norm.sf(2.75) / k**2)


def test_all_looks_at_all_challengers_of_a_record_err_in_less_than_one_percent() -> None:
    """With sigma known. What is left of the 1 % is for sigma being an estimate."""
    variances = [1 / n + 1 / REPLICATES_MAX for n in (2, 3, 4)]
    # The means of n and m > n replicates, against one and the same record, share 1/m + 1/4.
    correlation = [
        [variances[max(i, j)] / math.sqrt(variances[i] * variances[j]) for j in range(3)]
        for i in range(3)
    ]
    looks = stats.multivariate_normal(cov=correlation, seed=1, abseps=1e-6)
    bounds = np.sqrt([REPLICATES_MAX / n for n in (2, 3, 4)])
    chance = sum(1 - looks.cdf(required_z(k) * bounds) for k in range(1, 11))
    # Of all later ones each look by itself, at the last look's bound.
    later = 3 * stats.norm.sf(Z_CONFIRM) * (math.pi**2 / 6 - sum(1 / k**2 for k in range(1, 11)))
    assert 0.005 < chance + later < 0.0075


def test_earlier_looks_ask_for_more() -> None:
    for n, factor in ((2, 2**0.5), (3, (4 / 3) ** 0.5), (4, 1.0), (8, 1.0)):
        for z, expected in ((1.001, True), (0.999, False)):
            gain = required_z(1) * factor * z * math.sqrt(1 / n + 1 / 4)
            decision = decide(Group(n, 1 - gain, 1.0), Group(4, 1.0, 1.0), 1.0, 1, 1e9)
            assert (decision is Decision.CONFIRM) == expected


@pytest.mark.parametrize("degrees", [3, 4, 6, 10, 30, 200])
@pytest.mark.parametrize("ordinal", [1, 3, 10])
def test_few_degrees_ask_for_a_larger_z_as_student_does(degrees: float, ordinal: int) -> None:
    def is_confirmed(z: float) -> bool:
        gain = z * math.sqrt(1 / 4 + 1 / 4)
        challenger, record = Group(4, 1.0 - gain, 1.0), Group(4, 1.0, 1.0)
        return decide(challenger, record, 1.0, ordinal, degrees) is Decision.CONFIRM

    needed = next(z for z in np.arange(2.5, 40, 0.01) if is_confirmed(z))
    exact = stats.t.isf(stats.norm.sf(required_z(ordinal)), degrees)
    assert exact - 0.01 < needed < exact * (1.03 if degrees >= 6 else 1.2)


def test_a_challenge_is_decided_on_replicates_alone_and_on_two_at_least() -> None:
    record = Group.of([1.0, 1.001, 0.999])
    assert decide(Group.of([]), record, 0.001, 1) is Decision.MORE
    assert decide(Group.of([0.5]), record, 0.001, 1) is Decision.MORE
    assert decide(Group.of([0.95, 0.951]), record, 0.001, 1) is Decision.CONFIRM


def test_a_challenger_no_better_than_the_record_is_refuted_at_once() -> None:
    record = Group.of([1.0, 1.001, 0.999])
    assert decide(Group.of([1.0, 1.0001]), record, 0.001, 1, 20) is Decision.REFUTE
    assert decide(Group.of([0.9999, 1.0]), record, 0.001, 1, 20) is Decision.REFUTE


def test_a_promising_challenger_gets_more_replicates_and_an_end() -> None:
    record = Group(4, 1.0, 3e-6)
    for n, expected in ((2, Decision.MORE), (3, Decision.MORE), (4, Decision.REFUTE)):
        assert decide(Group(n, 0.9983, 1e-6), record, 0.001, 1, 30) is expected
    assert decide(Group(4, 0.9979, 3e-6), record, 0.001, 1, 30) is Decision.CONFIRM
    # The tenth has to be better than that.
    assert decide(Group(4, 0.9979, 3e-6), record, 0.001, 10, 30) is Decision.REFUTE
    # A fifth replicate, come late, is no cheaper than the fourth.
    assert decide(Group(5, 1 - 2.7 * 0.001 * math.sqrt(0.45), 0), record, 0.001, 1, 1e9) is (
        Decision.REFUTE
    )


def test_unknown_degrees_are_counted_from_the_challenge_itself() -> None:
    challenger, record = Group(4, 0.9978, 3e-6), Group(4, 1.0, 3e-6)
    for ordinal in (1, 2, 5, 20):
        for gain in np.arange(0.002, 0.008, 0.0002):
            challenger = Group(4, 1.0 - gain, 3e-6)
            implied = decide(challenger, record, 0.001, ordinal)
            assert implied is decide(challenger, record, 0.001, ordinal, 6 + ordinal - 1)


@pytest.mark.parametrize("ratio", [1 / 3, 1, 2, 3, 30])
def test_luck_makes_a_record_in_at_most_one_of_a_hundred_swarms(ratio: float) -> None:
    """10,000 swarms of 60 experiments that are all as good as the baseline; sigma is estimated."""
    assert false_record_rate(10_000, ratio) <= 0.01


def test_real_gains_are_found() -> None:
    assert power(2000, gain=5, ordinal=1) >= 0.95
    assert power(2000, gain=3, ordinal=1) >= 0.65
    assert power(2000, gain=5, ordinal=10) >= 0.85
    assert power(2000, gain=4, ordinal=1, ratio=3) >= 0.75
