"""Decisions of the modulated mask decoder about the slices of a region.

The decoder costs most of the time of a note. So it sees only the part of the slices with the mask and the region, and,
of large structures, not every slice: on those between, its logits are interpolated, while brightness and shape still
count at every voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from causal_sam.correction.region import Region
from causal_sam.imaging import nonempty_slices
from causal_sam.notes.schema import Intervention, Strength
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT, VolumeSlices
from causal_sam.sam.embedding import Embedding, Window, joined
from causal_sam.sam.film import Film, modulated
from causal_sam.text import TextEncoder
from causal_sam.volume.context import CoarseMask

# Strength of the modulation (TCI's s).
STRENGTH: Mapping[Strength, float] = {"slight": 0.5, "moderate": 1.0, "strong": 1.5}
# Largest logit that a coarse mask adds to those of the decoder.
MAX_COARSE_LOGIT = 2.0
# Slices per batch of the decoder.
SLICES_PER_BATCH = 8
# The decoder works on as many slices as make so many whole ones, or on more, if they would lie further apart than so
# many mm.
MAX_WHOLE_SLICES, MAX_STEP_MM = 28, 6.0
# Least positions of the features around the mask and the region that the decoder sees, and in all. It sees as much as
# makes so many whole slices, since it was trained on these.
MIN_MARGIN, MIN_SIDE = 4, 20


@dataclass(frozen=True, eq=False)
class Decision:
    """Decision about a region.

    Attributes:
        mask: corrected mask, of the shape of the region's box.
        certainty: mean probability of the decisions at the voxels that the act may change, 0.5 to 1; None if there are
            no such voxels.
    """

    mask: NDArray[np.bool_]
    certainty: float | None


class RegionDecoder:
    """Decides the voxels of regions with the modulated mask decoder; thread-safe.

    Args:
        encoder: slice encoder with a model whose decoder can be modulated.
        film: modulation that was trained for that model.
        text: text encoder that the modulation was trained with.
    """

    def __init__(self, encoder: SliceEncoder, film: Film, text: TextEncoder) -> None:
        self._encoder, self._film, self._text = encoder, film, text

    @torch.inference_mode()
    def decide(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        region: Region,
        beside: NDArray[np.float32],
        expected: CoarseMask | None,
        on_slice: Callable[[int], object],
    ) -> Decision:
        """Decide a region.

        Args:
            slices: all slices of the volume.
            mask: (I, J, K) mask of the label, not empty.
            intervention: act of the decoder.
            region: its region.
            beside: logits to add to those of the decoder, of the shape of the region's box.
            expected: coarse mask of the label from the context of the volume; None if that does not know it.
            on_slice: called with the number of processed slices; its exceptions cancel the correction.
        """
        box, size = BoxSlices(slices, region.box), self._encoder.model.mask_size
        after, sums = mask[region.box].copy(order="K"), np.zeros(2)
        touched = box.nonempty(region.weight)
        if not touched:
            return Decision(after, None)
        own = nonempty_slices(mask, slices.axis)
        window = self._window(slices, box.whole(after, touched) | (box.whole(region.weight, touched) > 0), len(touched))
        sentence = self._text.encode([intervention.sentence]).to(self._encoder.model.device)
        strength = STRENGTH[intervention.strength]

        def decide_slice(index: int, low_res: NDArray[np.float32]) -> None:
            total = slices.logits(torch.from_numpy(low_res), box.area) + box.read(beside, index)
            if expected is not None:
                coarse = expected.slice_logits(index, box.area)
                total += np.clip(coarse, -MAX_COARSE_LOGIT, MAX_COARSE_LOGIT)
            allowed, before = box.read(region.weight, index) > 0, box.read(after, index).copy()
            box.write(restrict_to_region(intervention, allowed, before, total > 0), after, index)
            free = restrict_to_region(intervention, allowed, before, ~before) ^ before
            sums[:] += 1 / (1 + np.exp(-np.abs(total[free]))).sum(), np.count_nonzero(free)

        decided: dict[int, NDArray[np.float32]] = {}
        for batch in _batches(touched, own, self._step(slices, len(touched), window)):
            on_slice(len(decided))
            # A slice without a mask of its own has that of the nearest slice, which is corrected by now.
            sources = [min((abs(other - index), other) for other in {*own, *decided})[1] for index in batch]
            prompts = np.stack([slices.low_res_prompt(box.whole(after, [source]), size) for source in sources])
            weights = (box.whole(region.weight, [index]).astype(np.float32) for index in batch)
            regions = [slices.low_res(2 * weight - 1, size) for weight in weights]
            logits = self._decode(slices, batch, prompts, np.stack(regions), sentence, strength, window)
            for index, decoded in zip(batch, logits, strict=True):
                decided[index] = decoded
                decide_slice(index, decoded)
        on_slice(len(decided))
        for index in touched:
            if index not in decided:
                decide_slice(index, _between(decided, index))
        if intervention.action == "expand":
            after &= ~_islands(mask[region.box], after)
        return Decision(after, float(sums[0] / sums[1]) if sums[1] else None)

    def _step(self, slices: VolumeSlices, count: int, window: Window) -> int:
        """Return the step from one decoded slice to the next, of some slices."""
        whole = count * self._share(window) / MAX_WHOLE_SLICES
        return max(1, min(math.ceil(whole), int(MAX_STEP_MM / slices.frame.spacing)))

    def _share(self, window: Window) -> float:
        """Return the share of a window in the slices."""
        return window.rows * window.columns / self._encoder.model.sam.prompt_encoder.image_embedding_size[0] ** 2

    def _window(self, slices: VolumeSlices, seen: NDArray[np.bool_], count: int) -> Window:
        """Return the part of some slices around what the decoder has to see (rows, columns)."""
        model = self._encoder.model
        side = model.sam.prompt_encoder.image_embedding_size[0]
        if not model.spec.mask_alone:
            return Window(0, 0, side, side)
        shown = slices.low_res_prompt(seen, model.mask_size) > -MASK_PROMPT_LOGIT
        scale = model.mask_size // side
        places = [np.flatnonzero(shown.any(axis)) // scale for axis in (1, 0)]
        for margin in range(side, MIN_MARGIN - 1, -1):
            (top, rows), (left, columns) = (_span(each, side, margin) for each in places)
            window = Window(top, left, rows, columns)
            if count * self._share(window) <= MAX_WHOLE_SLICES:
                break
        return window

    def _decode(
        self,
        slices: VolumeSlices,
        indices: Sequence[int],
        prompts: NDArray[np.float32],
        regions: NDArray[np.float32],
        sentence: Tensor,
        amount: float,
        window: Window,
    ) -> NDArray[np.float32]:
        """Return logits of B slices, BxLxL; outside of the window those of the prompts.

        Args:
            slices: all slices of the volume.
            indices: B indices of slices.
            prompts: BxLxL logits of the masks.
            regions: BxLxL, twice the region minus one.
            sentence: 1xD vector of the sentence.
            amount: strength of the modulation.
            window: part of the slices to decode.
        """
        model = self._encoder.model
        embedding = joined([self._encoder.embedding(slices, index) for index in indices]).to(model.device)
        scale = model.mask_size // embedding.features.shape[-1]
        masks = torch.from_numpy(prompts)[:, None].to(model.device)
        within = torch.from_numpy(regions).add(1).div(2).clamp(0, 1)[:, None].to(model.device)
        logits = prompts.copy()
        # SAM's own decoder takes one slice at a time; only the compact decoder, which has skips, takes several.
        step = len(indices) if embedding.skips else 1
        for first in range(0, len(indices), step):
            part = slice(first, first + step)
            strength = within.new_full((len(within[part]),), amount)
            here = window.of(within[part], scale)
            modulation = self._film(sentence.expand(len(strength), -1), strength, here)
            quick = torch.autocast(model.device.type, torch.bfloat16, enabled=model.encodes_in_bfloat16)
            of_part = Embedding(embedding.features[part], tuple(level[part] for level in embedding.skips))
            with quick, modulated(modulation):
                if embedding.skips:
                    decoded = model.decode_masks(of_part, masks[part], window)
                else:
                    decoded = model.decode(of_part, mask_logits=masks[part]).logits[:, 0]
            decoded = decoded.float().clamp(-MASK_PROMPT_LOGIT, MASK_PROMPT_LOGIT)
            window.of(logits[part], scale)[...] = decoded.cpu().numpy()
        return logits


def restrict_to_region(
    intervention: Intervention, allowed: NDArray[np.bool_], before: NDArray[np.bool_], proposed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Restrict a proposed mask to the changes that the act allows, inside the region only."""
    if intervention.action == "expand":
        return before | (proposed & allowed)
    if intervention.action == "restyle":
        return np.where(allowed, proposed, before)
    return before & ~(allowed & ~proposed)


class BoxSlices:
    """Canonical slices of arrays that cover a box of a volume.

    Args:
        slices: all slices of the volume.
        box: the box.

    Attributes:
        area: rows and columns of the box.
    """

    def __init__(self, slices: VolumeSlices, box: tuple[slice, ...]) -> None:
        self._frame, self._start = slices.frame, box[slices.axis].start
        ends = tuple(end for side in box for end in (side.start, side.stop - 1))
        top, left, bottom, right = slices.extent(ends)
        self.area = (slice(top, bottom + 1), slice(left, right + 1))

    def nonempty(self, array: NDArray) -> list[int]:
        """Return the indices in the volume of the slices with values."""
        return sorted(self._start + index for index in nonempty_slices(array, self._frame.axis))

    def read(self, array: NDArray, index: int) -> NDArray:
        """Return a slice of an array by its index in the volume, as a view."""
        return self._frame.extract(array, index - self._start)

    def write(self, values: NDArray, array: NDArray, index: int) -> None:
        """Write a slice of an array, in place."""
        self._frame.insert(values, array, index - self._start)

    def whole(self, array: NDArray, indices: Sequence[int]) -> NDArray:
        """Return the largest values of some slices in whole slices, 0 outside of the box."""
        result = np.zeros(self._frame.shape_rc, array.dtype)
        for index in indices:
            np.maximum(result[self.area], self.read(array, index), out=result[self.area])
        return result


def _batches(touched: Sequence[int], own: frozenset[int], step: int) -> Iterator[list[int]]:
    """Yield batches of slices to decode: first slices with a mask, then their neighbours outwards.

    Args:
        touched: indices of the slices that the region touches, ascending.
        own: indices of the slices with a mask.
        step: step from one decoded slice to the next; ends are decoded too.
    """
    inside = [index for index in touched if index in own]
    ends = [n for n in inside if n - 1 not in inside or n + 1 not in inside]
    chosen = sorted({*inside[::step], *ends})
    yield from (chosen[n : n + SLICES_PER_BATCH] for n in range(0, len(chosen), SLICES_PER_BATCH))
    away = {index: min(abs(index - n) for n in own) for index in touched if index not in own}
    for steps in sorted(set(away.values())):
        beside = [n for n in away if away[n] == steps]
        if (steps - 1) % step:
            beside = [n for n in beside if max(away.get(n - 1, 0), away.get(n + 1, 0)) <= steps]  # the last ones
        yield from (beside[n : n + SLICES_PER_BATCH] for n in range(0, len(beside), SLICES_PER_BATCH))


def _between(decided: Mapping[int, NDArray[np.float32]], index: int) -> NDArray[np.float32]:
    """Interpolate the logits of a slice, LxL, between those of the nearest slices that were decoded."""
    below = max((n for n in decided if n < index), default=min(decided))
    above = min((n for n in decided if n > index), default=max(decided))
    share = np.float32((index - below) / max(above - below, 1))
    return decided[below] + share * (decided[above] - decided[below])


def _islands(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what a mask has gained without connection to what it was."""
    gained = after & ~before
    parts, count = ndimage.label(gained)
    touches = np.zeros(count + 1, bool)
    for axis in range(3):
        own, gain = np.moveaxis(before, axis, 0), np.moveaxis(parts, axis, 0)
        touches[gain[1:][own[:-1]]] = True
        touches[gain[:-1][own[1:]]] = True
    touches[0] = True
    return ~touches[parts]


def _span(places: NDArray[np.intp], size: int, margin: int) -> tuple[int, int]:
    """Return the first position and the number of positions around some places, within 0 to ``size`` - 1."""
    first, end = int(places[0]) - margin, int(places[-1]) + 1 + margin
    lacking = max(min(MIN_SIDE, size) - (end - first), 0)
    first = max(first - lacking // 2, 0)
    end = min(max(end, first + MIN_SIDE), size)
    first = max(min(first, end - MIN_SIDE), 0)
    return first, end - first
