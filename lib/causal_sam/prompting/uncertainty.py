"""How unsure the model is about each voxel of a mask.

The uncertainty of a voxel is twice the probability that the mask is wrong there, and at most 1. Where the mask is what
the model answered, that is 1 - |2p - 1|; where a person drew what the model would not, it is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.imaging import FILE_ORDER, nonempty_slices
from causal_sam.imaging.shape import bounding_box
from causal_sam.prompting.contexts import PreparedContext
from causal_sam.prompting.label_state import LabelState
from causal_sam.prompting.predictor import Predictor
from causal_sam.prompting.slots import OnSlice, Slot, ignore, no_queue
from causal_sam.prompting.volume_mask import VolumeMasker
from causal_sam.volume.context import CoarseMask

# Less than 2 % is not shown: far from the mask the decoder is never quite sure.
MIN_VALUE = 5


@dataclass(frozen=True, eq=False)
class UncertaintyMap:
    """Uncertainty around a mask.

    Attributes:
        corner: first voxel (i, j, k) of the part that is known.
        values: uint8 (I, J, K) of that part, 0 for sure to 255 for as likely wrong as right, or more.
        slices: number of slices with an estimate.
    """

    corner: tuple[int, int, int]
    values: NDArray[np.uint8]
    slices: int


def mask_uncertainty(
    predictor: Predictor, name: str, state: LabelState, slot: Slot = no_queue, on_slice: OnSlice = ignore
) -> UncertaintyMap:
    """Return the uncertainty on all slices that a mask reaches, and the one before and behind.

    The decoder is asked again, with the coarse mask of the volume's context as its prompt, or the mask itself where the
    context does not know the structure. Without contexts only slices that were decided from prompts have an estimate,
    the decoder's own logits.

    Args:
        predictor: predictor for the volume.
        name: name of the label.
        state: the label.
        slot: entered around each use of the model.
        on_slice: called during long work; what it raises ends it.

    Raises:
        InputError: no volume is set.
    """
    slices, axis, mask = predictor.slices, predictor.slices.axis, state.mask.unpack()
    reached = nonempty_slices(mask, axis)
    values, known = np.zeros(mask.shape, np.uint8, order=FILE_ORDER), 0
    if reached:
        wanted = list(range(max(0, min(reached) - 1), min(slices.frame.count, max(reached) + 2)))
        for index, logits in _logits(predictor, name, state, mask, wanted, slot, on_slice):
            inside = slices.frame.extract(mask, index)
            wrong = 1 / (1 + np.exp(np.where(inside, logits, -logits).clip(-20, 20)))
            slices.frame.insert((510 * wrong).clip(0, 255).astype(np.uint8), values, index)
            known += 1
    values[values < MIN_VALUE] = 0
    if not values.any():
        return UncertaintyMap((0, 0, 0), np.zeros((0, 0, 0), np.uint8), known)
    box = bounding_box(values > 0)
    i, j, k = (side.start for side in box)
    return UncertaintyMap((i, j, k), values[box], known)


def _logits(
    predictor: Predictor,
    name: str,
    state: LabelState,
    mask: NDArray[np.bool_],
    wanted: list[int],
    slot: Slot,
    on_slice: OnSlice,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield slice index and logits (rows, columns) of the wanted slices that have an estimate."""
    slices, context = predictor.slices, predictor.context
    if context is None:
        for index, record in state.records(slices.axis).items():
            if index in wanted and record.logits is not None:
                yield index, slices.logits(torch.from_numpy(record.logits.astype(np.float32)))
        return
    masker = context.masker(slot, on_slice)
    with slot(on_slice):
        coarse = _coarse(context, masker, name, state, mask)
        yield from zip(wanted, masker.logits(coarse, mask, wanted), strict=True)


def _coarse(
    context: PreparedContext, masker: VolumeMasker, name: str, state: LabelState, mask: NDArray[np.bool_]
) -> CoarseMask | None:
    """Return the answer of the context for a label; None where it does not know the structure."""
    axis = masker.slices.axis
    prompts = state.prompts_on(tuple(state.records(axis)), axis)
    if not prompts and state.is_automatic:
        return masker.context.segment_named([name])[name] if context.knows(name) else None
    coarse = masker.context.segment(prompts.foreground, prompts.background, prompts.box, mask, name)
    return coarse if masker.knows(coarse, prompts.foreground) else None
