"""Noise: is an improvement real, or luck? Formulas and sources: docs/statistics.md.

Scores are val_bpb, lower is better; a gain is positive when the first score is better. Sigma is
always the standard deviation of one run: the same code trained again with another seed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist

#: Sigma expected of a track nobody has measured yet, in bpb, and the budget it holds for.
#: 300 s: seed pairs and triples on one H100 differ by 0.0004-0.0010 bpb. 60 s on a CPU: five
#: seeds of a tiny model at 20 s spread by 0.033, and 0.033 * sqrt(20/60) = 0.019.
_PRIOR_ACCELERATOR = (0.0006, 300)
_PRIOR_CPU = (0.02, 60)
#: How many degrees of freedom the prior is worth while the replicates do not speak against it.
PRIOR_RUNS = 5

#: A first run better than the record by more than this is a challenge: replicates are queued.
CHALLENGE_SIGMAS = 1.0
#: Replicates of a challenger: decided at two, three and four, the run of the discovery apart.
REPLICATES_MIN, REPLICATES_MAX = 2, 4
#: The z that confirms the first challenger of a record at its last look; never is less enough.
Z_CONFIRM = 2.75
#: A challenger is given up when its missing replicates would have to be better than those it
#: has by more than this many standard deviations of that difference: a chance of 2.3 %.
_FUTILE_SIGMAS = 2.0

_NORMAL = NormalDist()


class Verdict(StrEnum):
    """A gain in multiples of its own noise."""

    STRONG = "strong"
    KEEP = "keep"
    MARGINAL = "marginal"
    RETEST = "retest"
    DISCARD = "discard"


class Decision(StrEnum):
    """What becomes of a challenger; `more`: queue another replicate."""

    CONFIRM = "confirm"
    REFUTE = "refute"
    MORE = "more"


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of the same code in one track with different seeds."""

    n: int
    mean: float
    #: Sum of squared deviations from the mean.
    m2: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Group":
        """Of finite scores; equal ones have an m2 of exactly 0. The mean of none is NaN."""
        scores = sorted(values)
        if not scores:
            return cls(0, math.nan, 0.0)
        # A rounded mean can lie just outside of what it is the mean of.
        mean = min(max(math.fsum(scores) / len(scores), scores[0]), scores[-1])
        return cls(len(scores), mean, math.fsum((score - mean) ** 2 for score in scores))


# The noise of a track --------------------------------------------------------------------------


def prior_sigma(platform: str, budget_seconds: int) -> float:
    """Sigma in bpb to expect before there are replicates.

    Shorter budgets are noisier: sqrt(reference / budget). Longer ones are not taken to be quieter
    than the reference, since a sigma too small is what makes records of luck.
    """
    is_cpu = platform.lower().startswith("cpu")
    sigma, reference = _PRIOR_CPU if is_cpu else _PRIOR_ACCELERATOR
    return sigma * math.sqrt(max(1.0, reference / budget_seconds))


def pooled_sigma(groups: Iterable[Group], prior: float) -> float:
    """Sigma of a track: the pooled variance of its replicate groups, blended with the prior.

    The prior weighs as much as PRIOR_RUNS degrees of freedom, less when the replicates are
    noisier than it can explain (`_prior_weight`). Groups of one run tell nothing. Nor do groups
    without any spread: their code ignores the seed.
    """
    squares, degrees = _pool(groups)
    weight = _prior_weight(squares, degrees, prior)
    return math.sqrt((weight * prior**2 + squares) / (weight + degrees))


def pooled_degrees(groups: Iterable[Group], prior: float) -> float:
    """Degrees of freedom behind `pooled_sigma` of the same arguments, the prior's included."""
    squares, degrees = _pool(groups)
    return degrees + _prior_weight(squares, degrees, prior)


def _pool(groups: Iterable[Group]) -> tuple[float, int]:
    squares, degrees = 0.0, 0
    for group in groups:
        if group.n >= 2 and group.m2 > 0:
            squares += group.m2
            degrees += group.n - 1
    return squares, degrees


def _prior_weight(squares: float, degrees: int, prior: float) -> float:
    """PRIOR_RUNS times the chance that a track of the prior's sigma spreads this much or more.

    The chance is the upper tail of chi-square (Wilson-Hilferty), doubled and at most 1: replicates
    as quiet as the prior's median leave it whole, and a prior far too small vanishes by itself.
    """
    if not degrees:
        return PRIOR_RUNS
    narrow = 2 / (9 * degrees)
    z = ((squares / degrees / prior**2) ** (1 / 3) - (1 - narrow)) / math.sqrt(narrow)
    return PRIOR_RUNS * min(1.0, 2 * _NORMAL.cdf(-z))


# One score against another ---------------------------------------------------------------------


def standard_error(sigma: float, n: int) -> float:
    """Of the mean of n runs."""
    return sigma / math.sqrt(n)


def z_score(gain: float, sigma: float, n_a: int, n_b: int) -> float:
    """A gain between the means of n_a and n_b runs, in multiples of its standard error."""
    return gain / (sigma * math.sqrt(1 / n_a + 1 / n_b))


def verdict(gain: float, sigma: float, n_a: int = 1, n_b: int = 1) -> Verdict:
    """What `grade` says of such a gain."""
    return grade(z_score(gain, sigma, n_a, n_b))


def grade(z: float) -> Verdict:
    """Strong from 3 multiples of the noise on, keep from 1.5, marginal 0.5, retest -0.5."""
    if z >= 3:
        return Verdict.STRONG
    if z >= 1.5:
        return Verdict.KEEP
    if z >= 0.5:
        return Verdict.MARGINAL
    return Verdict.RETEST if z >= -0.5 else Verdict.DISCARD


def is_fixed_seed(values: Sequence[float]) -> bool:
    """Whether runs with different seeds all scored exactly alike: such code cannot be confirmed.

    With six decimals and the smallest prior, honest pairs do so once in 2,000; a third tells.
    """
    return len(values) >= 2 and all(value == values[0] for value in values)


# Challenging a record --------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def required_z(challenger: int) -> float:
    """What the k-th challenger of one record must reach, k from 1 on: Z_CONFIRM for the first.

    The last look at the k-th may err with p_1 / k^2, where p_1 = 1 - Phi(Z_CONFIRM) = 0.3 %. Over
    all k these sum up to 1.64 p_1, and with the earlier looks of `decide` to 0.5 %: the rest of
    the 1 % is for sigma being an estimate.
    """
    return -_NORMAL.inv_cdf(_NORMAL.cdf(-Z_CONFIRM) / challenger**2)


def decide(
    challenger: Group,
    record: Group,
    sigma: float,
    ordinal: int,
    degrees: float | None = None,
) -> Decision:
    """Whether the ordinal-th challenger of a record beats it: at REPLICATES_MAX by `required_z`,
    at n replicates before by sqrt(REPLICATES_MAX / n) times as much (O'Brien-Fleming).

    The challenger's group holds its replicates alone: the run that made it a challenger was
    selected for its luck. The record holds all its runs that were not selected so, at least one.
    `degrees` is `pooled_degrees` of what sigma came from: the fewer, the larger the z that is as
    rare (Student). Without it, what this record's challengers must have brought is counted on.
    """
    n = challenger.n
    if n < REPLICATES_MIN:
        return Decision.MORE
    if degrees is None:
        degrees = max(1, n + record.n - 2 + ordinal - 1)
    gain = record.mean - challenger.mean
    last = required_z(ordinal)
    now = last * math.sqrt(max(1.0, REPLICATES_MAX / n))
    if z_score(gain, sigma, n, record.n) >= _student(now, degrees):
        return Decision.CONFIRM
    if n >= REPLICATES_MAX or gain <= 0:
        return Decision.REFUTE
    required = _student(last, degrees + REPLICATES_MAX - n)
    return Decision.REFUTE if _is_futile(gain, sigma, n, record.n, required) else Decision.MORE


def _is_futile(gain: float, sigma: float, n: int, record_n: int, required: float) -> bool:
    """Whether the missing replicates would need luck for the last look to reach `required`."""
    missing = REPLICATES_MAX - n
    share = 1 / REPLICATES_MAX + 1 / max(record_n, REPLICATES_MAX)
    lift = (required * sigma * math.sqrt(share) - gain) * REPLICATES_MAX / missing
    return z_score(lift, sigma, missing, n) > _FUTILE_SIGMAS


def _student(z: float, degrees: float) -> float:
    """The t of these degrees of freedom that is as rare as z (Wallace 1959)."""
    z *= (8 * degrees + 3) / (8 * degrees + 1)
    return math.sqrt(degrees * math.expm1(z * z / degrees))
