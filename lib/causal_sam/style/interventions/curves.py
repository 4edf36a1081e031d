"""Smooth curves from brightness to brightness that keep apart what a person tells apart."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.signal import find_peaks

# Resolution of the table that stands in for a curve.
TABLE = 256
# Brightness levels that a slice has at most, and the share of its most common brightness that makes another level.
MOST_LEVELS = 5
PROMINENCE = 0.06


@dataclass(frozen=True)
class Curve:
    """A smooth function through control points, flat outside of them; it has no extrema between them.

    Attributes:
        old: brightness before, ascending.
        new: brightness after.
    """

    old: tuple[float, ...]
    new: tuple[float, ...]

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        grid = np.linspace(self.old[0], self.old[-1], TABLE)
        table = PchipInterpolator(self.old, self.new)(grid)
        return np.interp(values, grid, table).astype(np.float32)

    def recolour(self, array: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
        """Give every tissue its new brightness, and leave noise and edges what they are.

        A voxel on an edge is a mixture of the tissues on its two sides, so it becomes the same mixture of their new
        brightness. Sent through a curve that is not monotone, it would look like a third tissue, and every organ would
        have a rim. Noise is put aside before and added after, because a steep curve would amplify it.

        Args:
            array: NxHxW, in the units of the curve.
            noise: differences up to about this are taken for noise.

        Returns:
            NxHxW.
        """
        coloured = []
        for slice_ in array:
            inside = np.clip(slice_, self.old[0], self.old[-1])
            calm = cv2.bilateralFilter(inside, 5, 2 * noise, 1.5)
            dark, bright = cv2.erode(calm, np.ones((3, 3))), cv2.dilate(calm, np.ones((3, 3)))
            share = (calm - dark) / np.maximum(bright - dark, 1e-6)
            new_dark, new_bright = self(dark), self(bright)
            coloured.append(new_dark + share * (new_bright - new_dark) + slice_ - calm)
        return np.stack(coloured)

    def contrast(self, levels: NDArray[np.float64]) -> float:
        """Return the smallest difference of two levels after, in relation to theirs before; infinite for one level."""
        first, second = np.triu_indices(len(levels), 1)
        if not first.size:
            return np.inf
        new = np.interp(levels, self.old, self.new)
        return float((np.abs(new[first] - new[second]) / (levels[second] - levels[first])).min())


def clearest(curves: list[Curve], levels: NDArray[np.float64], enough: float) -> Curve:
    """Return the first curve that leaves ``enough`` of every difference between levels, or else the one closest."""
    for curve in curves:
        if curve.contrast(levels) >= enough:
            return curve
    return max(curves, key=lambda curve: curve.contrast(levels))


def brightness_levels(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """Return the brightness levels of the main tissues, ascending: the peaks of the histogram.

    Args:
        values: of any shape.
        low: values below are left out.
        high: values above are left out.

    Returns:
        At most `MOST_LEVELS` values; none if no values lie between ``low`` and ``high``.
    """
    counts, edges = np.histogram(values, bins=64, range=(low, high))
    # Rims of the smoothed histogram count as peaks too: saturated tissue lies there.
    smooth = np.pad(cv2.GaussianBlur(counts.astype(np.float32)[None], (0, 0), 1.5)[0], 1)
    peaks, facts = find_peaks(smooth, prominence=max(PROMINENCE * float(smooth.max()), 1e-6))
    main = peaks[np.argsort(-facts["prominences"])[:MOST_LEVELS]] - 1
    return np.sort((edges[:-1] + edges[1:])[main] / 2)
