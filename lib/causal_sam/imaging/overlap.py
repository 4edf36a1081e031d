"""Agreement of two masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice(mask: NDArray, truth: NDArray) -> float:
    """Return the Dice coefficient of two masks of the same shape, non-zero inside; 1 when both are empty.

    >>> dice(np.array([1, 1, 0]), np.array([0, 1, 0]))
    0.6666666666666666
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    total = np.count_nonzero(mask) + np.count_nonzero(truth)
    return 2.0 * np.count_nonzero(mask & truth) / total if total else 1.0
