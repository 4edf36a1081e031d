"""Means and medians over seeds and cases, with bootstrap intervals.

Measurements are rows of a DataFrame with the column ``case`` and, if there are several, ``seed``. All seeds have the
same weight, as do all cases within a seed and all rows within a case. The bootstrap draws seeds, and within each drawn
seed it draws whole cases (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000
# Fewer seeds or cases allow too few different draws for a meaningful interval.
MIN_GROUPS = 3


@dataclass(frozen=True)
class Estimate:
    """A mean, median or difference with its 95 % interval.

    Attributes:
        value: point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        seeds: number of seeds; None if nothing was repeated.
        cases: number of cases in the seed with the fewest cases.
        values: number of rows.
    """

    value: float
    low: float
    high: float
    seeds: int | None
    cases: int
    values: int

    @property
    def few(self) -> bool:
        """True if there are too few seeds or cases for a meaningful interval."""
        return min(self.cases, self.seeds or self.cases) < MIN_GROUPS

    @property
    def excludes_zero(self) -> bool:
        """True if the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Return attributes and properties by name."""
        return asdict(self) | {"few": self.few, "excludes_zero": self.excludes_zero}


def mean(rows: pd.DataFrame, column: str, seed: int = 0) -> Estimate | None:
    """Return the mean of a column, or None if there are no rows.

    Args:
        rows: measurements; all values finite.
        column: name of the measure.
        seed: seed of the bootstrap.
    """
    means = rows.groupby(_group(rows), sort=False)[column].mean().to_numpy(float)
    return _estimate(rows, lambda weights: weights @ means, seed)


def median(rows: pd.DataFrame, column: str, seed: int = 0) -> Estimate | None:
    """Return the median of a column, or None if there are no rows. Values may be infinite; see `mean`."""
    group = rows.groupby(_group(rows), sort=False).ngroup().to_numpy()
    values = rows[column].to_numpy(float)
    order = np.argsort(values, kind="stable")
    share = (1 / np.bincount(group)[group])[order] if len(rows) else values
    group, values = group[order], values[order]

    def weighted_median(weights: NDArray[np.float64]) -> np.float64:
        # If a boundary between two values halves the weight, the median is their mean.
        below = np.cumsum(weights[group] * share)
        ends = values[np.searchsorted(below, below[-1] * np.array([0.5 - 1e-9, 0.5 + 1e-9]))]
        return ends.mean()

    return _estimate(rows, lambda weights: np.apply_along_axis(weighted_median, 1, weights), seed)


def mean_of_values(values: Sequence[float]) -> Estimate:
    """Return the mean of at least one independent value, with its percentile bootstrap interval."""
    low = high = mean = float(np.mean(values))
    if len(values) > 1:  # scipy needs two
        drawn = stats.bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=0)
        low, high = map(float, drawn.confidence_interval)
    return Estimate(mean, low, high, None, len(values), len(values))


def mean_table(rows: pd.DataFrame, by: list[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return the `mean` of columns for each group of rows, in order of appearance, with the columns ``by`` first."""
    return pd.DataFrame(
        [
            dict(zip(by, key, strict=True)) | {column: mean(group, column) for column in columns}
            for key, group in rows.groupby(by, sort=False)
        ],
        columns=[*by, *columns],
    )


def paired_differences(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Subtract one method's scores from another's on the same structure of the same case with the same seed.

    Repeated scores of one structure are averaged first; scores without a partner are left out.

    Args:
        ours: scores with the columns ``seed``, ``domain``, ``case``, ``structure`` and ``column``.
        theirs: scores of the other method.
        column: name of the measure; all values finite.

    Returns:
        A row for each pair with ``seed``, ``case`` and the difference ours - theirs in ``column``.
    """
    key = ["seed", "domain", "case", "structure"]
    first, second = (rows.groupby(key, sort=False)[column].mean().reset_index() for rows in (ours, theirs))
    pairs = first.merge(second, on=key, suffixes=("", "_theirs"))
    return pairs[["seed", "case"]].assign(**{column: pairs[column] - pairs[f"{column}_theirs"]})


def _group(rows: pd.DataFrame) -> list[str]:
    return [name for name in ("seed", "case") if name in rows]


def _estimate(rows: pd.DataFrame, statistic: Callable[[NDArray], NDArray], seed: int) -> Estimate | None:
    """Bootstrap a statistic.

    Args:
        rows: measurements.
        statistic: maps the weights of G (seed, case) groups in order of appearance, NxG, to N values.
        seed: seed of the bootstrap.
    """
    groups = rows.drop_duplicates(_group(rows))
    seeds = groups["seed"].to_numpy() if "seed" in rows else np.zeros(len(groups))
    if not len(seeds):
        return None
    different, counts = np.unique(seeds, return_counts=True)
    even = np.empty(len(seeds))
    weights = np.empty((RESAMPLES, len(seeds)))
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(different), np.full(len(different), 1 / len(different)), size=RESAMPLES)
    for n, (number, count) in enumerate(zip(different, counts, strict=True)):
        # A seed that was drawn twice draws twice as many cases.
        cases = generator.multinomial(drawn[:, n] * count, np.full(count, 1 / count))
        weights[:, seeds == number] = cases / (count * len(different))
        even[seeds == number] = 1 / (count * len(different))
    draws = np.sort(statistic(weights))
    # The ends are draws themselves, since nothing can be interpolated between a finite and an infinite draw.
    outside = RESAMPLES // 40
    repetitions = len(different) if "seed" in rows else None
    low, high = float(draws[outside]), float(draws[-1 - outside])
    return Estimate(float(statistic(even[None])[0]), low, high, repetitions, int(counts.min()), len(rows))
