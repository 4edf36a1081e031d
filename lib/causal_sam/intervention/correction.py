"""From an intervention to a corrected mask: exact operators where there are any, else the modulated mask decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from causal_sam.imaging import Volume
from causal_sam.intervention.guard import Effect, measure_effect, objection
from causal_sam.intervention.region import Region, region_gate
from causal_sam.intervention.schema import Intervention, Strength
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.film import Film, modulated
from causal_sam.text import TextEncoder

# Acts that the decoder decides; the others are exact.
MODULATED = frozenset({"expand", "shrink", "exclude", "restyle"})
# Weight of the modulation.
STRENGTH: Mapping[Strength, float] = {"slight": 0.5, "moderate": 1.0, "strong": 1.5}
# Slices that are decoded at a time.
TOGETHER = 8
# Standard deviation of what smooths a boundary, in voxels of the coarsest spacing.
SMOOTHING = 1.0


@dataclass(frozen=True, eq=False)
class Correction:
    """What became of an intervention.

    Attributes:
        mask: (I, J, K) bool, corrected; the one before if there is an objection.
        effect: what has changed, or would have.
        objection: why it was not done, as a sentence; None if it was.
    """

    mask: NDArray[np.bool_]
    effect: Effect
    objection: str | None


class Corrector:
    """Corrects masks of volumes.

    Args:
        encoder: of the slices, with a model whose decoder can be modulated.
        film: trained for that model.
        text: encoder of the sentences that it was trained with.
    """

    def __init__(self, encoder: SliceEncoder, film: Film, text: TextEncoder) -> None:
        self._encoder, self._film, self._text = encoder, film, text

    @torch.inference_mode()
    def correct(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        others: Mapping[str, NDArray[np.bool_]],
    ) -> Correction:
        """Do what an intervention asks for, if the result is that.

        Args:
            slices: of the volume, whole.
            mask: (I, J, K) of the label, in the volume's voxel order.
            intervention: what is to be done.
            others: masks of the other labels by name.

        Raises:
            InputError: the mask is empty or of another shape, or the slices are none of the volume's.
        """
        region = region_gate(intervention, slices.volume, mask, others)
        if intervention.action in MODULATED:
            after = self._decide(slices, mask, intervention, region)
        else:
            after = exactly(intervention, region, slices.volume, mask)
        effect = measure_effect(intervention.label, slices.volume, mask, after)
        reason = objection(intervention, region, mask, after)
        return Correction(mask if reason else after, effect, reason)

    def _decide(
        self, slices: VolumeSlices, mask: NDArray[np.bool_], intervention: Intervention, region: Region
    ) -> NDArray[np.bool_]:
        weight = region.in_volume(mask.shape)
        after = mask.copy(order="K")
        sentence = self._text.encode([intervention.sentence]).to(self._encoder.model.device)
        for indices in _in_order(slices, mask, weight):
            before = [self._shown(slices, index, mask, after) for index in indices]
            regions = [np.ascontiguousarray(slices.frame.extract(weight, index)) for index in indices]
            logits = self._decode(slices, indices, before, regions, sentence, STRENGTH[intervention.strength])
            for index, region_here, low_res in zip(indices, regions, logits, strict=True):
                own = np.ascontiguousarray(slices.frame.extract(mask, index))
                proposed = slices.logits(low_res) > 0
                slices.frame.insert(compose(intervention, region_here > 0, own, proposed), after, index)
        return after

    def _shown(
        self, slices: VolumeSlices, index: int, mask: NDArray[np.bool_], after: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """The mask that the decoder sees: of the slice, or where it has none, of a neighbour that has one by now."""
        own = np.ascontiguousarray(slices.frame.extract(mask, index))
        if own.any():
            return own
        for neighbour in slices.frame.neighbours(index):
            beside = np.ascontiguousarray(slices.frame.extract(after, neighbour))
            if beside.any():
                return beside
        return own

    def _decode(
        self,
        slices: VolumeSlices,
        indices: list[int],
        masks: list[NDArray[np.bool_]],
        regions: list[NDArray[np.float32]],
        sentence: Tensor,
        strength: float,
    ) -> Tensor:
        """Logits BxLxL of the modulated decoder on B slices."""
        model = self._encoder.model
        size, device, count = model.mask_size, model.device, len(indices)
        prompts = torch.from_numpy(np.stack([slices.low_res_prompt(mask, size) for mask in masks]))[:, None].to(device)
        on_grid = np.stack([slices.low_res(2 * region - 1, size) for region in regions])
        on_grid = torch.from_numpy(on_grid).add(1).div(2).clamp(0, 1)[:, None].to(device)
        embeddings = [self._encoder.embedding(slices, index).to(device) for index in indices]
        logits = []
        # SAM's decoder takes several prompts of one slice, not several slices.
        step = count if embeddings[0].skips else 1
        for first in range(0, count, step):
            part = slice(first, first + step)
            features, skips = zip(*embeddings[part], strict=True)
            together = Embedding(torch.cat(features), tuple(torch.cat(level) for level in zip(*skips, strict=True)))
            regions_here = on_grid[part]
            amount = torch.full((len(regions_here),), strength, device=device)
            with modulated(self._film(sentence.expand(len(amount), -1), amount, regions_here)):
                logits.append(model.decode(together, mask_logits=prompts[part]).logits[:, 0])
        return torch.cat(logits)


def compose(
    intervention: Intervention, allowed: NDArray[np.bool_], before: NDArray[np.bool_], proposed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Take of a proposed mask what the act allows: nothing outside of the region, and no loss where it is to grow."""
    if intervention.action == "expand":
        return before | (proposed & allowed)
    if intervention.action == "restyle":
        return np.where(allowed, proposed, before)
    return before & ~(allowed & ~proposed)


def exactly(intervention: Intervention, region: Region, volume: Volume, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask after an act that has an exact operator: fill, smooth, remove, keep_largest or keep."""
    allowed = region.in_volume(mask.shape) > 0
    if intervention.action == "fill":
        return mask | allowed
    if intervention.action == "smooth":
        sigma = [SMOOTHING * max(volume.spacing) / spacing for spacing in volume.spacing]
        signed = ndimage.distance_transform_edt(mask, volume.spacing)
        signed -= ndimage.distance_transform_edt(~mask, volume.spacing)
        return np.where(allowed, ndimage.gaussian_filter(signed, sigma) > 0, mask)
    return mask & ~allowed


def _in_order(slices: VolumeSlices, mask: NDArray[np.bool_], weight: NDArray[np.float32]) -> Iterator[list[int]]:
    """Slices of the region: those with a mask, several at a time, then outwards one by one, each beside one before."""
    others = tuple(axis for axis in range(3) if axis != slices.axis)
    wanted = weight.any(axis=others)
    held = mask.any(axis=others)
    first = np.flatnonzero(wanted & held).tolist()
    yield from (first[n : n + TOGETHER] for n in range(0, len(first), TOGETHER))
    ends = np.flatnonzero(held)
    rest = np.flatnonzero(wanted & ~held)
    distance = np.abs(rest[:, None] - ends).min(1) if len(rest) else []
    yield from ([int(index)] for index in rest[np.argsort(distance, kind="stable")])
