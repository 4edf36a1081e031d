"""Which of the earlier cases are shown again, so that what was learnt from them is not forgotten."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# However few are new, so many of the earlier ones are shown again.
MIN_REPLAYED = 4


@dataclass(frozen=True)
class ReplayCase:
    """A case that can be replayed, as far as it is known without reading its files.

    Attributes:
        image_id: of the data store.
        names: of the labels that were drawn in it.
        style: how it was made, in a few words.
        others: names of labels that were drawn in it too and not learnt.
    """

    image_id: str
    names: tuple[str, ...]
    style: str
    others: tuple[str, ...] = ()


def choose_replay(earlier: Sequence[ReplayCase], new: int, share: float, seed: int) -> list[ReplayCase]:
    """Draw a sample of earlier cases in which rare labels and rare styles are as frequent as others.

    A weighted reservoir (Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003): each case has a weight, the
    inverse of how many have its rarest label, times the inverse of how many have its style, and those with the highest
    u^(1 / weight) are drawn, u being uniform in (0, 1).

    Args:
        earlier: the cases to draw from.
        new: number of new cases.
        share: that the replayed ones have of all cases, below 1; 0 for no replay.
        seed: of the draw.

    Returns:
        As many as the share says, but at least `MIN_REPLAYED`, if there are so many.
    """
    if not share:
        return []
    labels = Counter(name for case in earlier for name in case.names)
    styles = Counter(case.style for case in earlier)
    uniform = 1 - np.random.default_rng(seed).random(len(earlier))
    weights = [1 / (min(labels[name] for name in case.names) * styles[case.style]) for case in earlier]
    # Of the logarithm of u^(1 / weight) in place of the power, which underflows.
    order = sorted(range(len(earlier)), key=lambda n: math.log(uniform[n]) / weights[n], reverse=True)
    count = max(MIN_REPLAYED, math.ceil(new * share / (1 - share)))
    return [earlier[n] for n in order[:count]]
