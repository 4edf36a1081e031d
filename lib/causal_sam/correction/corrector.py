"""From an intervention to a corrected mask: exact operators where there are any, else the modulated mask decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from causal_sam.correction.guard import Effect, keeps_shape, measure_effect, objection
from causal_sam.correction.region import Region, region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, nonempty_slices
from causal_sam.imaging.distances import signed_distance
from causal_sam.notes.schema import Intervention, Plan, Strength
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.film import Film, OtherDecoderError, load_film, make_modulable, modulated
from causal_sam.text import TextEncoder, load_text_encoder

# Acts that the decoder decides; the others are exact.
MODULATED = frozenset({"expand", "shrink", "exclude", "restyle"})
# Weight of the modulation.
STRENGTH: Mapping[Strength, float] = {"slight": 0.5, "moderate": 1.0, "strong": 1.5}
# Logit from which the decoder is sure.
SURE = 1.0
# Slices that are decoded at a time.
TOGETHER = 8
# Standard deviations of what smooths a boundary, in sides of a cube of a voxel's volume: the first one that leaves the
# structure its shape.
SMOOTHING = (1.0, 0.7, 0.5)


@dataclass(frozen=True, eq=False)
class Correction:
    """What became of an intervention.

    Attributes:
        intervention: what was asked for.
        mask: (I, J, K) bool, corrected; the one before if there is an objection.
        effect: what has changed, or would have.
        objection: why it was not done, as a sentence; None if it was.
    """

    intervention: Intervention
    mask: NDArray[np.bool_]
    effect: Effect
    objection: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: all but the mask, in millilitres to three digits."""
        effect = self.effect
        return {
            "sentence": self.intervention.sentence,
            "label": effect.label,
            "gained_ml": round(effect.gained_ml, 3),
            "lost_ml": round(effect.lost_ml, 3),
            "gained_towards_ml": {direction: round(ml, 3) for direction, ml in effect.gained_towards_ml.items()},
            "lost_towards_ml": {direction: round(ml, 3) for direction, ml in effect.lost_towards_ml.items()},
            "objection": self.objection,
        }


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a plan.

    Attributes:
        corrections: of its interventions, in their order.
        masks: (I, J, K) of the labels that are not as they were, by name.
    """

    corrections: list[Correction]
    masks: dict[str, NDArray[np.bool_]]


class Corrector:
    """Corrects masks of volumes. Any number of threads may share one.

    Args:
        encoder: of the slices, with a model whose decoder can be modulated.
        film: trained for that model; None if it was not trained for notes, so that only exact acts can be done.
        text: encoder of the sentences that it was trained with.
    """

    def __init__(self, encoder: SliceEncoder, film: Film | None, text: TextEncoder) -> None:
        self._encoder, self._film, self._text = encoder, film, text

    def carry_out(
        self,
        plan: Plan,
        slices: VolumeSlices,
        masks: Mapping[str, NDArray[np.bool_]],
        check: Callable[[int], object] = lambda done: None,
        *,
        locked: Collection[str] = (),
    ) -> Outcome:
        """Do the interventions of a plan one after the other; each sees the masks that those before it left.

        A voxel belongs to one label: what one gains others lose, but for locked ones and those that the plan keeps.

        Args:
            plan: with interventions.
            slices: of the volume, whole.
            masks: (I, J, K) of all labels by name, in the volume's voxel order.
            check: called with the number of slices done; what it raises ends the work.
            locked: names of labels that no other label may grow into.

        Raises:
            InputError: there is no mask of a label, or it is of another shape, or slices are none of the volume's.
        """
        kept = [*locked, *(act.label for act in plan.interventions if act.action == "keep")]
        now, done = dict(masks), []
        for act in plan.interventions:
            if act.action == "keep" and not (act.label in now and now[act.label].any()):
                nothing = np.zeros(slices.volume.shape, bool)
                done.append(Correction(act, nothing, Effect(act.label, 0.0, 0.0), None))
                continue
            if act.label not in now or not now[act.label].any():
                raise InputError(
                    f"There is no mask of {act.label} yet, so there is nothing to correct: segment it first."
                )
            others = {name: mask for name, mask in now.items() if name != act.label}
            protected = [others[name] for name in kept if name in others]
            correction = self.correct(slices, now[act.label], act, others, protected, check)
            gained = correction.mask & ~now[act.label]
            now |= {name: mask & ~gained for name, mask in others.items() if (mask & gained).any()}
            now[act.label] = correction.mask
            done.append(correction)
        changed = {name: mask for name, mask in now.items() if mask is not masks[name]}
        return Outcome(done, {name: mask for name, mask in changed.items() if (mask ^ masks[name]).any()})

    @torch.inference_mode()
    def correct(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        others: Mapping[str, NDArray[np.bool_]],
        protected: Sequence[NDArray[np.bool_]] = (),
        check: Callable[[int], object] = lambda done: None,
    ) -> Correction:
        """Do what an intervention asks for, if the result is that.

        Args:
            slices: of the volume, whole.
            mask: (I, J, K) of the label, in the volume's voxel order.
            intervention: what is to be done.
            others: masks of the other labels by name.
            protected: masks of labels that the result must not grow into.
            check: called with the number of slices done; what it raises ends the work.

        Raises:
            InputError: the mask is empty or of another shape, the slices are none of the volume's, or the model was not
                trained for what is to be done.
        """
        region = region_gate(intervention, slices.volume, mask, others)
        for other in protected:
            region.weight[other[region.box] & ~mask[region.box]] = 0
        if intervention.action in MODULATED:
            after = self._decide(slices, mask, intervention, region, check)
        else:
            after = exactly(intervention, region, slices.volume, mask)
        effect = measure_effect(intervention.label, slices.volume, mask, after, others)
        reason = objection(intervention, region, mask, after)
        return Correction(intervention, mask if reason else after, effect, reason)

    def _decide(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        region: Region,
        check: Callable[[int], object],
    ) -> NDArray[np.bool_]:
        if self._film is None:
            raise InputError(
                f"{self._encoder.model.name} was not trained to {intervention.action} masks by notes: train it with "
                "training/train_tci.py, or click."
            )
        weight = region.in_volume(mask.shape)
        after = mask.copy(order="K")
        sentence = self._text.encode([intervention.sentence]).to(self._encoder.model.device)
        done = 0
        for indices in _in_order(slices, mask, weight):
            check(done)
            owns = [np.ascontiguousarray(slices.frame.extract(mask, index)) for index in indices]
            before = [self._shown(slices, index, own, after) for index, own in zip(indices, owns, strict=True)]
            regions = [np.ascontiguousarray(slices.frame.extract(weight, index)) for index in indices]
            logits = self._decode(slices, indices, before, regions, sentence, STRENGTH[intervention.strength])
            for index, own, region_here, low_res in zip(indices, owns, regions, logits, strict=True):
                proposed = _proposed(intervention, own, slices.logits(low_res))
                slices.frame.insert(compose(intervention, region_here > 0, own, proposed), after, index)
            done += len(indices)
        return after

    def _shown(
        self, slices: VolumeSlices, index: int, own: NDArray[np.bool_], after: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """The mask that the decoder sees: of the slice, or where it has none, of a neighbour that has one by now."""
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
        amount: float,
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
            strength = regions_here.new_full((len(regions_here),), amount)
            modulation = self._film(sentence.expand(len(strength), -1), strength, regions_here)
            quick = torch.autocast(device.type, torch.bfloat16, enabled=model.encodes_in_bfloat16)
            with quick, modulated(modulation):
                logits.append(model.decode(together, mask_logits=prompts[part]).logits[:, 0].float())
        return torch.cat(logits)


def load_corrector(encoder: SliceEncoder, film: Path | None = None) -> Corrector:
    """Make what corrects masks with a model.

    Args:
        encoder: of the slices; the decoder of its model becomes one that can be modulated.
        film: weights of the modulation, of `training/train_tci.py`; by default those that come with the model, if any,
            and if the model has the decoder that it came with.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it belongs to another decoder or text encoder.
    """
    model, text = encoder.model, load_text_encoder()
    make_modulable(model)
    path = film or model.spec.film
    try:
        weights = None if path is None else load_film(path, model, text.fingerprint)
    except OtherDecoderError:
        if film is not None:
            raise
        weights = None
    return Corrector(encoder, weights, text)


def _proposed(intervention: Intervention, before: NDArray[np.bool_], logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask that logits stand for; where the act is about a part of a good mask, they must be sure to change it."""
    if intervention.action not in ("exclude", "restyle"):
        return logits > 0
    return np.where(before, logits > -SURE, logits > SURE)


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
        side = math.prod(volume.spacing) ** (1 / 3)
        signed = signed_distance(mask, volume.spacing)
        for width in SMOOTHING:
            sigma = [width * side / spacing for spacing in volume.spacing]
            smoothed = np.where(allowed, ndimage.gaussian_filter(signed, sigma) > 0, mask)
            if keeps_shape(mask, smoothed):
                break
        return smoothed
    return mask & ~allowed


def _in_order(slices: VolumeSlices, mask: NDArray[np.bool_], weight: NDArray[np.float32]) -> Iterator[list[int]]:
    """Slices of the region, some at a time: those with a mask, then outwards, each beside one that came before."""
    indices = np.array(nonempty_slices(weight, slices.axis))
    distance = np.abs(indices[:, None] - nonempty_slices(mask, slices.axis)).min(1)
    for steps in np.unique(distance):
        beside = indices[distance == steps].tolist()
        yield from (beside[n : n + TOGETHER] for n in range(0, len(beside), TOGETHER))
