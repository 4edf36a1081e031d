"""Smooth curves from brightness to brightness that keep apart what a person tells apart."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.signal import find_peaks

# Resolution of the table that stands in for a curve.
TABLE = 512
# Bins of the histogram of brightness, and how many of them lie between two levels at least.
BINS = 64
LEVELS_APART = 5
# Brightness levels that a slice has at most, and the share of its most common brightness that makes another level.
MAX_LEVELS = 5
PROMINENCE = 0.04


@dataclass(frozen=True)
class Curve:
    """A smooth function through control points, flat outside of them; it has no extrema between them.

    Attributes:
        old: brightness before, ascending.
        new: brightness after.
    """

    old: tuple[float, ...]
    new: tuple[float, ...]

    def recolour(self, array: NDArray[np.float32], noise: float, gain: float = 1.0) -> NDArray[np.float32]:
        """Give every tissue its new brightness, and leave noise and edges what they are.

        A voxel on an edge is a mixture of the tissues on its two sides, so it becomes the same mixture of their new
        brightness. Sent through a curve that is not monotone, it would look like a third tissue, and every organ would
        have a rim. Noise is put aside before and added after, because a steep curve would amplify it.

        Args:
            array: NxHxW, in the units of ``old``.
            noise: differences up to about this are taken for noise.
            gain: of the noise, which brings it from the units of ``old`` to those of ``new``.

        Returns:
            NxHxW, in the units of ``new``.
        """
        grid = np.linspace(self.old[0], self.old[-1], TABLE)
        table = PchipInterpolator(self.old, self.new)(grid)
        window = np.ones((3, 3), np.uint8)
        coloured = []
        for slice_ in array:
            inside = np.clip(slice_, self.old[0], self.old[-1])
            calm = cv2.bilateralFilter(inside, 5, 2.5 * noise, 1.5)
            dark, bright = cv2.erode(calm, window), cv2.dilate(calm, window)
            share = (calm - dark) / np.maximum(bright - dark, 1e-6)
            new_dark, new_bright = np.interp(dark, grid, table), np.interp(bright, grid, table)
            coloured.append(new_dark + share * (new_bright - new_dark) + gain * (slice_ - calm))
        return np.stack(coloured).astype(np.float32)

    def even_at(self, levels: NDArray[np.float64], width: float, slope: float) -> Curve:
        """Return the curve with a piece of the same slope at every level, so that unrest in a tissue stays what it is.

        Args:
            levels: ascending brightness before, more than twice the width apart.
            width: how far a piece reaches to either side of its level.
            slope: of the pieces, without its sign.
        """
        old, new = np.array(self.old), np.array(self.new)
        at = np.interp(levels, old, new)
        ahead = np.interp(levels + width, old, new) - np.interp(levels - width, old, new)
        rise = slope * width * np.where(ahead < 0, -1, 1)
        free = np.abs(old[:, None] - levels).min(axis=1, initial=np.inf) > 2 * width
        # What is darker than all tissue is air, and stays so however close it is.
        free |= old < levels.min(initial=np.inf) - width
        old = np.concatenate((old[free], levels - width, levels + width))
        new = np.concatenate((new[free], at - rise, at + rise))
        order = np.argsort(old)
        return Curve(tuple(old[order].tolist()), tuple(new[order].tolist()))

    def clarity(self, levels: NDArray[np.float64], least: float, most: float) -> float:
        """Return how well the curve treats the differences between levels; 1 or more is good.

        Args:
            levels: ascending brightness before.
            least: share of the difference of any two levels that must be left.
            most: how many times the difference of neighbouring levels may grow. Steeper curves show the unrest within
                a tissue as if it were anatomy.
        """
        first, second = np.triu_indices(len(levels), 1)
        if not first.size:
            return 1.0
        new = np.interp(levels, self.old, self.new)
        slopes = np.abs(new[first] - new[second]) / (levels[second] - levels[first])
        return float(min(slopes.min() / least, most / max(slopes[second == first + 1].max(), 1e-6)))


def clearest(curves: list[Curve], levels: NDArray[np.float64], least: float, most: float) -> Curve:
    """Return the first curve whose `Curve.clarity` is good, or else the best."""
    clarities = []
    for curve in curves:
        clarities.append(curve.clarity(levels, least, most))
        if clarities[-1] >= 1:
            return curve
    return curves[int(np.argmax(clarities))]


def brightness_levels(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """Return the brightness levels of the main tissues, ascending: the peaks of the histogram.

    Args:
        values: of any shape.
        low: values below are left out.
        high: values above are left out.

    Returns:
        At most `MAX_LEVELS` values; none if no values lie between ``low`` and ``high``.
    """
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    # Padded, because a peak at the rim is one too: saturated tissue lies there.
    smooth = np.pad(cv2.GaussianBlur(counts.astype(np.float32)[None], (0, 0), 1.5)[0], 1)
    least = max(PROMINENCE * float(smooth.max()), 1e-6)
    peaks, facts = find_peaks(smooth, prominence=least, distance=LEVELS_APART)
    main = peaks[np.argsort(-facts["prominences"])[:MAX_LEVELS]] - 1
    return np.sort((edges[:-1] + edges[1:])[main] / 2)


def noise_level(array: NDArray[np.float32], tissue: NDArray[np.bool_]) -> float:
    """Return a robust standard deviation of the noise in tissue, from the differences of neighbouring columns.

    Args:
        array: HxW.
        tissue: HxW, where to look.
    """
    steps = np.abs(np.diff(array))[tissue[:, 1:] & tissue[:, :-1]]
    # Half of the differences of two normal numbers are smaller than 0.954 standard deviations.
    return float(np.median(steps)) / 0.954 if steps.size else 0.0
