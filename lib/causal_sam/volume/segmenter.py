"""Interface of coarse segmentation in a volume, which the context network and the random walker have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causal_sam.volume.context import CoarseMask, Voxel


class CoarseSegmenter(Protocol):
    """Segments structures of one volume coarsely. Safe to use from several threads."""

    @property
    def nbytes(self) -> int:
        """Memory that is held between calls, in bytes."""

    def prepare(self, on_slice: Callable[[int], object] = lambda done: None) -> None:
        """Compute once what all answers need; later calls return at once.

        Args:
            on_slice: called before each slice with the number of slices done; what it raises ends the work.
        """

    def segment(
        self,
        foreground: Sequence[Voxel],
        background: Sequence[Voxel],
        box: Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        name: str | None = None,
    ) -> CoarseMask:
        """Segment a structure by prompts.

        Args:
            foreground: voxels (i, j, k) inside of it.
            background: voxels outside of it.
            box: (i0, i1, j0, j1, k0, k1), ends inclusive.
            mask: (I, J, K), the mask so far.
            name: name of the label, in any spelling.
        """

    def correct(
        self,
        foreground: Sequence[Voxel],
        background: Sequence[Voxel],
        box: Sequence[int] | None,
        mask: NDArray[np.bool_],
        new: Sequence[Voxel],
        name: str | None = None,
    ) -> CoarseMask:
        """Answer points of one kind that contradict a mask.

        Args:
            foreground: all voxels inside of the structure.
            background: all outside of it.
            box: see `segment`.
            mask: bool (I, J, K), the mask so far; not empty.
            new: the points that contradict it: all outside of it, and among the foreground; or all inside, and among
                the background.
            name: see `segment`.
        """

    def segment_named(self, names: Sequence[str]) -> dict[str, CoarseMask]:
        """Segment structures by names for which `knows` is True; the result has the same spelling."""

    def knows(self, name: str) -> bool:
        """Return True if the context can find a structure by this name, in any spelling."""
