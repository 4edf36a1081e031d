"""Means over seeds and differences of two methods, with intervals that know of seeds and of cases.

Values come in groups, one for each case of each seed. All seeds weigh the same, in a seed all cases, and in a case all
of its values. The bootstrap draws seeds, and in each drawn seed cases with all of their values (Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.ood.results import Run, Score

RESAMPLES = 2000
# With fewer seeds or cases there are too few different draws for an interval.
ENOUGH = 3

# (seed, case) -> values.
Groups = Mapping[tuple[int, str], Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A mean, median or difference.

    Attributes:
        value: over all groups.
        low: lower end of the 95 % interval.
        high: upper end.
        seeds: number of seeds.
        cases: number of cases of the seed that has fewest.
        values: number of values.
    """

    value: float
    low: float
    high: float
    seeds: int
    cases: int
    values: int

    @property
    def few(self) -> bool:
        """Whether the interval means little, because there are few seeds or cases."""
        return min(self.seeds, self.cases) < ENOUGH

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


def mean(groups: Groups, seed: int = 0) -> Estimate:
    """Return the mean and its interval.

    Args:
        groups: finite values; at least one group, none of them empty.
        seed: of the bootstrap.
    """
    means = np.array([np.mean(values) for values in groups.values()])
    return _estimate(groups, lambda weights: float(weights @ means), seed)


def median(groups: Groups, seed: int = 0) -> Estimate:
    """Return the median and its interval; values may be infinite.

    Args:
        groups: at least one, none of them empty.
        seed: of the bootstrap.
    """
    sizes = [len(values) for values in groups.values()]
    values = np.concatenate([np.asarray(values, float) for values in groups.values()])
    order = np.argsort(values, kind="stable")
    group = np.repeat(np.arange(len(sizes)), sizes)[order]
    share = 1 / np.repeat(sizes, sizes)[order]
    values = values[order]

    def middle(weights: NDArray[np.float64]) -> float:
        # Where the weight is halved between two values, the median is between them.
        below = np.cumsum(weights[group] * share)
        ends = values[np.searchsorted(below, below[-1] * np.array([0.5 - 1e-9, 0.5 + 1e-9]))]
        return float(ends.mean())

    return _estimate(groups, middle, seed)


def group_values(
    runs: Iterable[Run], measure: Callable[[Score], float], keep: Callable[[Score], bool]
) -> dict[tuple[int, str], list[float]]:
    """Return a measure of the scores that are kept, for each seed and case.

    Args:
        runs: of one method, one for each seed.
        measure: of a score.
        keep: whether a score counts.
    """
    groups: dict[tuple[int, str], list[float]] = {}
    for run in runs:
        for score in filter(keep, run.scores):
            groups.setdefault((run.seed, score.case), []).append(measure(score))
    return groups


def paired_differences(
    runs: Sequence[Run],
    others: Sequence[Run],
    measure: Callable[[Score], float],
    keep: Callable[[Score], bool],
) -> dict[tuple[int, str], list[float]]:
    """Return by how much one method is above another on the same structure of the same case, for each seed and case.

    Scores without a partner of the same seed, domain, case and structure are left out; several of one method for the
    same are averaged first.

    Args:
        runs: of one method, one for each seed.
        others: of the other method.
        measure: of a score, finite.
        keep: whether a score counts.
    """
    ours, theirs = (_by_structure(those, measure, keep) for those in (runs, others))
    groups: dict[tuple[int, str], list[float]] = {}
    for key, values in ours.items():
        if key in theirs:
            seed, _, case, _ = key
            groups.setdefault((seed, case), []).append(float(np.mean(values) - np.mean(theirs[key])))
    return groups


def _by_structure(
    runs: Sequence[Run], measure: Callable[[Score], float], keep: Callable[[Score], bool]
) -> dict[tuple[int, str, str, str], list[float]]:
    found: dict[tuple[int, str, str, str], list[float]] = {}
    for run in runs:
        for score in filter(keep, run.scores):
            found.setdefault((run.seed, score.domain, score.case, score.structure), []).append(measure(score))
    return found


def _estimate(groups: Groups, statistic: Callable[[NDArray[np.float64]], float], seed: int) -> Estimate:
    seeds = np.array([key[0] for key in groups])
    different, counts = np.unique(seeds, return_counts=True)
    even = np.empty(len(groups))
    weights = np.empty((RESAMPLES, len(groups)))
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(different), np.full(len(different), 1 / len(different)), size=RESAMPLES)
    for n, (number, count) in enumerate(zip(different, counts, strict=True)):
        # A seed that was drawn twice draws its cases twice.
        cases = generator.multinomial(drawn[:, n] * count, np.full(count, 1 / count))
        weights[:, seeds == number] = cases / (count * len(different))
        even[seeds == number] = 1 / (count * len(different))
    draws = np.sort([statistic(row) for row in weights])
    # The ends are draws themselves: between a finite and an infinite one there is no number.
    outside = RESAMPLES // 40
    return Estimate(
        statistic(even),
        float(draws[outside]),
        float(draws[-1 - outside]),
        len(different),
        int(counts.min()),
        sum(map(len, groups.values())),
    )
