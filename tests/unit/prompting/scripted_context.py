"""A context that answers with given masks, on the grid of `VolumeContext`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.prompting.contexts import ContextCache
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.text import canonical
from causal_sam.volume.context import CoarseMask
from causal_sam.volume.grid import Grid, SliceGeometry

Mask = NDArray[np.bool_]


class ScriptedContext:
    """Answers with the masks of a script.

    Args:
        slices: whole slices of the volume.
        answer: what it is asked -> mask and certainty.
        names: name -> mask.
    """

    nbytes = 1000

    def __init__(
        self, slices: VolumeSlices, answer: Callable[[dict], tuple[Mask, float]], names: dict[str, Mask]
    ) -> None:
        self.grid = Grid.whole(SliceGeometry(slices.frame, slices.height, slices.width))
        self._answer, self._names = answer, {canonical(name): mask for name, mask in names.items()}
        self.asked: list[dict] = []
        self.prepared = 0

    def prepare(self, on_slice=lambda done: None) -> None:
        for done, _ in enumerate(self.grid.indices):
            on_slice(done)
        self.prepared += 1

    def segment(self, foreground=(), background=(), box=None, mask=None, name=None) -> CoarseMask:
        spelled = None if name is None else canonical(name)
        asked = {"foreground": foreground, "background": background, "box": box, "mask": mask, "name": spelled}
        self.asked.append(asked)
        return self._coarse(*self._answer(asked))

    def correct(self, foreground, background, box, mask, new, name=None) -> CoarseMask:
        return self.segment(foreground, background, box, mask, name)

    def segment_named(self, names) -> dict[str, CoarseMask]:
        return {name: self._coarse(self._names[canonical(name)], 0.9) for name in names}

    def knows(self, name: str) -> bool:
        return canonical(name) in self._names

    def _coarse(self, mask: Mask, certainty: float) -> CoarseMask:
        return CoarseMask(self.grid, torch.as_tensor((self.grid.from_voxels(mask) - 0.5) * 12), certainty)


def scripted_contexts(
    encoder: SliceEncoder, answer: Callable[[dict], tuple[Mask, float]], names: dict[str, Mask] | None = None
) -> ContextCache:
    """Contexts that answer with the masks of a script."""
    return ContextCache(encoder, lambda _, slices: ScriptedContext(slices, answer, names or {}))
