"""Pictures of the worst and the best masks."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.interactive.targets import Target
from causal_sam.imaging import SliceFrame, Volume, intensity_window, other_axes, slice_axis

GREEN, RED, YELLOW = (0, 200, 0), (255, 60, 60), (255, 230, 0)
Picture = NDArray[np.uint8]


def draw_example(volume: Volume, target: Target, first: NDArray[np.bool_], last: NDArray[np.bool_]) -> Picture:
    """Draw the outlines of the truth (green), the first mask (red) and the last one (yellow).

    Args:
        volume: image.
        target: structure in it; of a whole one, the slice with the largest error of the last mask is shown.
        first: mask after the first prompt, of the shape of the truth.
        last: mask after the last prompt.

    Returns:
        HxWx3.
    """
    frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume))
    masks, index = [target.truth, first, last], target.index
    if index is None:
        others = other_axes(frame.axis)
        errors = (last ^ target.truth).sum(axis=others)
        index = int((errors if errors.any() else target.truth.sum(axis=others)).argmax())
        masks = [frame.extract(mask, index) for mask in masks]
    grey = intensity_window(volume).apply(np.ascontiguousarray(frame.extract(volume.array, index)))
    scale = max(1, round(512 / max(grey.shape)))
    size = (grey.shape[1] * scale, grey.shape[0] * scale)
    image = cv2.cvtColor(
        cv2.resize((grey * 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB
    )
    for mask, colour in zip(masks, (GREEN, RED, YELLOW), strict=True):
        large = cv2.resize(np.ascontiguousarray(mask, np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, colour, 1)
    return image.astype(np.uint8, copy=False)


class Gallery:
    """Keeps the pictures of the worst and of the best trials.

    Args:
        count: number of each.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._entries: list[tuple[float, str, Picture]] = []

    def add(
        self, score: float, volume: Volume, target: Target, first: NDArray[np.bool_], last: NDArray[np.bool_]
    ) -> None:
        """Add a trial by its score; it is drawn only if it is among the worst or best so far."""
        place = bisect.bisect(self._entries, score, key=lambda entry: entry[0])
        if self._count <= place <= len(self._entries) - self._count:
            return
        slices = () if target.index is None else (str(target.index),)
        name = " ".join((target.case, target.structure, *slices)).replace(" ", "-").replace("/", "-")
        self._entries.insert(place, (score, name, draw_example(volume, target, first, last)))
        del self._entries[self._count : -self._count]

    def __iter__(self) -> Iterator[tuple[str, Picture]]:
        """Yield the name and the picture of the worst trials, the worst first, and of the best, the best first."""
        half = (len(self._entries) + 1) // 2
        for kind, entries in (("worst", self._entries[:half]), ("best", self._entries[half:][::-1])):
            for n, (_, name, picture) in enumerate(entries, 1):
                yield f"{kind}-{n}-{name}", picture
