"""A lower bound on the Dice of automatic masks that holds with a chosen probability, from the site's accepted labels.

Split conformal prediction (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005; Angelopoulos and
Bates, *A Gentle Introduction to Conformal Prediction*, 2021, arXiv 2107.07511, section 1). The score of a case is the
largest amount by which the model's certainty exceeds the Dice of one of its masks. With n cases, the next case has a
score of at most the ⌈(n + 1)·level⌉-th smallest of theirs with a probability of at least ``level``, whatever the model
and the distribution. Then the Dice of all its masks is at least their certainty minus that score.

The guarantee needs cases that are exchangeable: the next one is drawn as those before were. It fails where the scanner
or the patients change, and it is about the model that made the masks: another version begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEVEL = 0.9
# Less than any step of (n + 1)·level, and more than the rounding of the product.
_ROUNDING = 1e-9


def case_score(certainty: Mapping[str, float], dice: Mapping[str, float]) -> float | None:
    """Return the largest excess of the certainty over the Dice; None without labels in ``dice``.

    Args:
        certainty: label -> the model's own estimate of the overlap, 0 to 1.
        dice: label -> Dice of the mask against the accepted one, 0 to 1; labels that are left out were not judged.
    """
    return max((certainty[name] - value for name, value in dice.items()), default=None)


@dataclass(frozen=True)
class DiceBound:
    """Lower bounds on the Dice of automatic masks.

    Attributes:
        level: probability with which the bounds of all masks of one case hold.
        count: number of accepted labels behind it.
        excess: amount that is taken from the certainty; None if there are too few accepted labels for a guarantee.
    """

    level: float
    count: int
    excess: float | None

    @classmethod
    def of(cls, scores: Iterable[float], level: float = LEVEL) -> DiceBound:
        """Return the bound that the scores of accepted labels give.

        Args:
            scores: `case_score` of each case.
            level: probability of the guarantee, above 0 and below 1.
        """
        ordered = sorted(scores)
        position = math.ceil((len(ordered) + 1) * level - _ROUNDING)
        excess = ordered[position - 1] if position <= len(ordered) else None
        return cls(level, len(ordered), excess)

    @property
    def needed(self) -> int:
        """Smallest number of accepted labels that gives a guarantee: 9 for a level of 0.9."""
        return math.ceil(self.level / (1 - self.level) - _ROUNDING)

    def lower(self, certainty: float) -> float | None:
        """Return the bound for a mask, 0 to 1; None without a guarantee."""
        return None if self.excess is None else min(1.0, max(0.0, certainty - self.excess))

    def __str__(self) -> str:
        share = f"{100 * self.level:.0f} %"
        if self.excess is None:
            return (
                f"Not enough accepted labels for a guarantee: {self.count} of {self.needed}. "
                "The cases are in the order of the model's own certainty."
            )
        return f"In {share} of cases like the {self.count} accepted ones, the Dice of every mask is at least its bound."
