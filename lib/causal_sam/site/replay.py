"""Choice of earlier cases for replay, which prevents forgetting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Minimum number of replayed cases.
MIN_REPLAYED = 4


@dataclass(frozen=True)
class ReplayCase:
    """An earlier case with the facts that are known without reading its files.

    Attributes:
        image_id: identifier in the data store.
        names: labels of the case that are learned.
        style: short description of its style.
        others: labels of the case that are not learned.
    """

    image_id: str
    names: tuple[str, ...]
    style: str
    others: tuple[str, ...] = ()


def choose_replay(earlier: Sequence[ReplayCase], new: int, share: float, seed: int) -> list[ReplayCase]:
    """Draw earlier cases such that rare labels and styles are as frequent as others.

    The sample is a weighted reservoir (Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003): the weight of a
    case is the inverse of the frequency of its rarest label times the inverse of the frequency of its style, and the
    cases with the largest u^(1 / weight) are drawn, with u uniform in (0, 1).

    Args:
        earlier: cases to draw from.
        new: number of new cases.
        share: share of replayed cases among all cases, below 1; 0 for no replay.
        seed: seed of the draw.

    Returns:
        The cases: as many as the share requires, but at least `MIN_REPLAYED` if available.
    """
    if not share:
        return []
    labels = Counter(name for case in earlier for name in case.names)
    styles = Counter(case.style for case in earlier)
    uniform = 1 - np.random.default_rng(seed).random(len(earlier))
    weights = [1 / (min(labels[name] for name in case.names) * styles[case.style]) for case in earlier]
    # The logarithm of u^(1 / weight) avoids underflow.
    order = sorted(range(len(earlier)), key=lambda n: math.log(uniform[n]) / weights[n], reverse=True)
    count = max(MIN_REPLAYED, math.ceil(new * share / (1 - share)))
    return [earlier[n] for n in order[:count]]
