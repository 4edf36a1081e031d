"""Smooth curves of brightness that keep distinguishable tissues distinguishable."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.signal import find_peaks

# Resolution of the lookup table of a curve.
TABLE = 512
# Bins of the brightness histogram, and minimum distance of two levels in bins.
BINS = 64
MIN_LEVEL_DISTANCE = 5
# Maximum number of levels, and minimum prominence of a level as a share of the highest peak.
MAX_LEVELS = 5
PROMINENCE = 0.04


@dataclass(frozen=True)
class Curve:
    """A smooth function through control points, constant outside them and without extrema between them.

    Attributes:
        old: brightness before, ascending.
        new: brightness after.
    """

    old: tuple[float, ...]
    new: tuple[float, ...]

    def recolour(self, array: NDArray[np.float32], noise: float, gain: float = 1.0) -> NDArray[np.float32]:
        """Apply the curve to tissues while preserving noise and edges.

        A voxel on an edge is a mixture of two tissues and becomes the same mixture of their new brightness; a curve
        that is not monotone would otherwise show a third tissue as a rim around organs. Noise is separated first and
        added again, because a steep curve would amplify it.

        Args:
            array: NxHxW, in the units of ``old``.
            noise: differences up to about this value count as noise.
            gain: factor of the noise, from the units of ``old`` to those of ``new``.

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

    def with_even_slopes(self, levels: NDArray[np.float64], width: float, slope: float) -> Curve:
        """Return the curve with a segment of equal slope at every level, which preserves variations within tissues.

        Args:
            levels: ascending brightness before, more than twice the width apart.
            width: extent of a segment to either side of its level.
            slope: absolute slope of the segments.
        """
        old, new = np.array(self.old), np.array(self.new)
        at = np.interp(levels, old, new)
        ahead = np.interp(levels + width, old, new) - np.interp(levels - width, old, new)
        rise = slope * width * np.where(ahead < 0, -1, 1)
        free = np.abs(old[:, None] - levels).min(axis=1, initial=np.inf) > 2 * width
        # Values darker than all tissue are air, and keep their brightness.
        free |= old < levels.min(initial=np.inf) - width
        old = np.concatenate((old[free], levels - width, levels + width))
        new = np.concatenate((new[free], at - rise, at + rise))
        order = np.argsort(old)
        return Curve(tuple(old[order].tolist()), tuple(new[order].tolist()))

    def clarity(self, levels: NDArray[np.float64], min_difference: float, max_steepness: float) -> float:
        """Score how well the curve preserves the differences between levels; 1 or more is good.

        Args:
            levels: ascending brightness before.
            min_difference: minimum share of the difference of any two levels that the curve keeps.
            max_steepness: maximum factor by which the difference of neighbouring levels grows. Steeper curves show
                variations within a tissue as if they were anatomy.
        """
        first, second = np.triu_indices(len(levels), 1)
        if not first.size:
            return 1.0
        new = np.interp(levels, self.old, self.new)
        slopes = np.abs(new[first] - new[second]) / (levels[second] - levels[first])
        return float(min(slopes.min() / min_difference, max_steepness / max(slopes[second == first + 1].max(), 1e-6)))


def clearest_curve(
    curves: list[Curve], levels: NDArray[np.float64], min_difference: float, max_steepness: float
) -> Curve:
    """Return the first curve with a good `Curve.clarity`, or the best one."""
    clarities = []
    for curve in curves:
        clarities.append(curve.clarity(levels, min_difference, max_steepness))
        if clarities[-1] >= 1:
            return curve
    return curves[int(np.argmax(clarities))]


def brightness_levels(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """Return the brightness levels of the main tissues, ascending: the peaks of the histogram.

    Args:
        values: brightness, of any shape.
        low: lower limit of the histogram.
        high: upper limit of the histogram.

    Returns:
        At most `MAX_LEVELS` values; none if no values lie between ``low`` and ``high``.
    """
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    # Padding allows a peak at the rim, where saturated tissue lies.
    smooth = np.pad(cv2.GaussianBlur(counts.astype(np.float32)[None], (0, 0), 1.5)[0], 1)
    prominence = max(PROMINENCE * float(smooth.max()), 1e-6)
    peaks, properties = find_peaks(smooth, prominence=prominence, distance=MIN_LEVEL_DISTANCE)
    main = peaks[np.argsort(-properties["prominences"])[:MAX_LEVELS]] - 1
    return np.sort((edges[:-1] + edges[1:])[main] / 2)


def noise_level(array: NDArray[np.float32], tissue: NDArray[np.bool_]) -> float:
    """Return a robust standard deviation of the noise in tissue, from the differences of neighbouring columns.

    Args:
        array: HxW.
        tissue: HxW mask of the tissue.
    """
    steps = np.abs(np.diff(array))[tissue[:, 1:] & tissue[:, :-1]]
    # The median absolute difference of two normal variables is 0.954 standard deviations.
    return float(np.median(steps)) / 0.954 if steps.size else 0.0
