"""Borders of coarse masks, drawn slice by slice by a mask decoder: the coarse mask is its prompt.

A coarse mask says where a structure is, to about four pixels of the model's input; the decoder sees where it ends.
Boxes and points beside the mask make the borders worse when the coarse mask is wrong, so it is the only prompt.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT, VolumeSlices
from causal_sam.sam.embedding import Window, joined

# Share of the decoder's logits in the result; the rest are the coarse ones.
DECODER_SHARE = 0.75
# The decoder sees the coarse mask, where its logits are above this, with so many positions of the features around it,
# and at least so many in all.
OUTSIDE_LOGIT = -3.0
MARGIN, MIN_SIDE = 4, 20
# The decoder works on as many slices as make so many whole ones; those between get interpolated corrections.
MAX_WHOLE_SLICES = 12
BATCH = 8


class BorderDecoder:
    """Draws borders of coarse masks on the slices of one volume.

    Args:
        encoder: encoder of a model that takes masks as the only prompt, and several slices at a time (compact).
        slices: whole slices, scaled for this model.
    """

    def __init__(self, encoder: SliceEncoder, slices: VolumeSlices) -> None:
        self.slices = slices
        self._encoder, self._model = encoder, encoder.model

    @property
    def mask_size(self) -> int:
        """Side L of the mask grid."""
        return self._model.mask_size

    def draw(
        self, indices: Sequence[int], coarse: NDArray[np.float32], encoded: Collection[int]
    ) -> NDArray[np.float32]:
        """Return logits with better borders.

        Args:
            indices: N voxel indices along the slice axis, ascending.
            coarse: NxLxL logits on the mask grid.
            encoded: indices of slices whose embeddings are there: the decoder works on these.

        Returns:
            NxLxL.
        """
        window = self._window(coarse)
        if window is None:
            return coarse
        size = self._features_side
        share = window.rows * window.columns / size**2
        candidates = [n for n, index in enumerate(indices) if index in encoded] or [len(indices) // 2]
        chosen = candidates[:: max(1, math.ceil(len(candidates) * share / MAX_WHOLE_SLICES))]
        corrections = np.concatenate(
            [
                self._corrections([indices[n] for n in batch], coarse[batch], window)
                for batch in (chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH))
            ]
        )
        drawn = coarse.copy()
        scale = coarse.shape[-1] // size
        places = np.interp(np.array(indices), np.array(indices)[chosen], np.arange(len(chosen)))
        for n, place in enumerate(places):
            below, above = int(place), min(int(place) + 1, len(chosen) - 1)
            weight = place - below
            part = window.of(drawn[n], scale)
            part += (1 - weight) * corrections[below] + weight * corrections[above]
        return drawn

    @property
    def _features_side(self) -> int:
        return self._model.sam.prompt_encoder.image_embedding_size[0]

    @torch.inference_mode()
    def _corrections(self, indices: Sequence[int], coarse: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
        """Return what the decoder adds to the coarse logits in the window, BxHxW."""
        model, scale = self._model, coarse.shape[-1] // self._features_side
        embedding = joined([self._encoder.embedding(self.slices, index) for index in indices]).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.encodes_in_bfloat16):
            decoded = model.decode_masks(embedding, torch.from_numpy(coarse)[:, None], window)
        logits = decoded.float().clamp(-MASK_PROMPT_LOGIT, MASK_PROMPT_LOGIT).cpu().numpy()
        return DECODER_SHARE * (logits - window.of(coarse, scale))

    def _window(self, coarse: NDArray[np.float32]) -> Window | None:
        """Return the part of the slices with the structure and its surroundings; None if there is no structure."""
        seen = (coarse > OUTSIDE_LOGIT).any(0)
        if not seen.any():
            return None
        size, scale = self._features_side, coarse.shape[-1] // self._features_side
        top, rows = _span(np.flatnonzero(seen.any(1)) // scale, size)
        left, columns = _span(np.flatnonzero(seen.any(0)) // scale, size)
        return Window(top, left, rows, columns)


def _span(places: NDArray[np.intp], size: int) -> tuple[int, int]:
    """Return the first position and the number of positions around some places, within 0 to ``size`` - 1."""
    first, end = int(places[0]) - MARGIN, int(places[-1]) + 1 + MARGIN
    lacking = max(MIN_SIDE - (end - first), 0)
    first = max(first - lacking // 2, 0)
    end = min(max(end, first + MIN_SIDE), size)
    first = max(min(first, end - MIN_SIDE), 0)
    return first, end - first
