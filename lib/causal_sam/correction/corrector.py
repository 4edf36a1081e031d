"""Application of interventions to masks, by exact operators or by the modulated mask decoder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from causal_sam.correction.evidence import evidence
from causal_sam.correction.guard import Effect, find_doubt, find_objection, measure_effect
from causal_sam.correction.operators import apply_exact_operator
from causal_sam.correction.protection import protected_voxels
from causal_sam.correction.region import Region, region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import nonempty_slices
from causal_sam.notes.schema import Intervention, Plan, Strength
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import FilmPart, shipped_film
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.film import Film, make_modulable, modulated
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.volume.context import CoarseMask

# Acts of the modulated decoder; all others have exact operators.
MODULATED = frozenset({"expand", "shrink", "exclude", "restyle"})
# Strength of the modulation (TCI's s).
STRENGTH: Mapping[Strength, float] = {"slight": 0.5, "moderate": 1.0, "strong": 1.5}
# Largest logit that a coarse mask adds to those of the decoder.
MAX_COARSE_LOGIT = 2.0
# Slices per batch of the decoder.
SLICES_PER_BATCH = 8


@dataclass(frozen=True, eq=False)
class Correction:
    """Result of an intervention.

    Attributes:
        intervention: requested intervention.
        mask: (I, J, K) bool, corrected mask; the previous mask if there is an objection.
        effect: change of the mask, or the change that was rejected.
        objection: sentence with the reason why the change was rejected; None if it was applied.
        doubt: sentence with the reason why the change has to be confirmed; None if it is plausible.
    """

    intervention: Intervention
    mask: NDArray[np.bool_]
    effect: Effect
    objection: str | None
    doubt: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON: everything but the mask, volumes in ml."""
        effect = self.effect
        return {
            "sentence": self.intervention.sentence,
            "label": effect.label,
            "gained_ml": round(effect.gained_ml, 3),
            "lost_ml": round(effect.lost_ml, 3),
            "gained_towards_ml": {direction: round(ml, 3) for direction, ml in effect.gained_towards_ml.items()},
            "lost_towards_ml": {direction: round(ml, 3) for direction, ml in effect.lost_towards_ml.items()},
            "objection": self.objection,
            "doubt": self.doubt,
        }


@dataclass(frozen=True, eq=False)
class PlanResult:
    """Result of a plan.

    Attributes:
        corrections: one correction per intervention, in their order.
        masks: label -> (I, J, K) mask, for the labels that have changed; none if there is a question.
        question: question whether to make changes that are not plausible; None if there are none, or they were
            confirmed.
    """

    corrections: list[Correction]
    masks: dict[str, NDArray[np.bool_]]
    question: str | None = None


class Corrector:
    """Corrects masks of volumes; thread-safe.

    Args:
        encoder: slice encoder with a model whose decoder can be modulated.
        film: modulation that was trained for that model; None allows exact acts only.
        text: text encoder that the modulation was trained with.
    """

    def __init__(self, encoder: SliceEncoder, film: Film | None, text: TextEncoder) -> None:
        self._encoder, self._film, self._text = encoder, film, text

    def carry_out(
        self,
        plan: Plan,
        slices: VolumeSlices,
        masks: Mapping[str, NDArray[np.bool_]],
        on_slice: Callable[[int], object] = lambda done: None,
        *,
        locked: Collection[str] = (),
        coarse: Mapping[str, CoarseMask] = MappingProxyType({}),
        confirm: bool = False,
    ) -> PlanResult:
        """Apply the interventions of a plan in their order, each to the masks after the previous ones.

        A voxel belongs to one label: gains of a label are taken from others. Labels that are locked or that the plan
        keeps do not change, whatever the other acts are.

        Args:
            plan: plan with interventions.
            slices: all slices of the volume.
            masks: label -> (I, J, K) mask, in the volume's voxel order.
            on_slice: called with the number of processed slices; its exceptions cancel the correction.
            locked: labels that no act may change.
            coarse: label -> coarse mask from the context of the volume, for labels that it knows.
            confirm: make changes also if they are not plausible.

        Raises:
            InputError: a label has no mask or one of another shape, or slices are outside the volume.
        """
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
            protected = protected_voxels(act.label, plan, locked, slices.volume, now, masks[act.label])
            expected = coarse.get(act.label)
            correction = self.correct(slices, now[act.label], act, others, protected, expected, on_slice)
            gained = correction.mask & ~now[act.label]
            now |= {name: mask & ~gained for name, mask in others.items() if (mask & gained).any()}
            now[act.label] = correction.mask
            done.append(correction)
        doubts = [correction.doubt for correction in done if correction.doubt is not None]
        if doubts and not confirm:
            return PlanResult(done, {}, f"{' '.join(doubts)} Nothing was changed: confirm to do it, or say how much.")
        changed = {name: mask for name, mask in now.items() if mask is not masks[name]}
        return PlanResult(done, {name: mask for name, mask in changed.items() if (mask ^ masks[name]).any()})

    @torch.inference_mode()
    def correct(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        others: Mapping[str, NDArray[np.bool_]],
        protected: NDArray[np.bool_] | None = None,
        expected: CoarseMask | None = None,
        on_slice: Callable[[int], object] = lambda done: None,
    ) -> Correction:
        """Apply an intervention, unless the guard objects to the result.

        Args:
            slices: all slices of the volume.
            mask: (I, J, K) mask of the label, in the volume's voxel order.
            intervention: intervention to apply.
            others: label -> mask, for the other labels.
            protected: (I, J, K), where the mask must stay as it is; None for nowhere.
            expected: coarse mask of the label from the context of the volume; None if that does not know it.
            on_slice: called with the number of processed slices; its exceptions cancel the correction.

        Raises:
            InputError: the mask is empty or of another shape, the slices are outside the volume, or the model was not
                trained for the act.
        """
        region = region_gate(intervention, slices.volume, mask, others)
        if protected is None:
            protected = np.zeros_like(mask)
        if intervention.action != "keep" and protected.all():
            kept = f"{intervention.label} is to stay as it is, so it was not changed."
            return Correction(intervention, mask, Effect(intervention.label, 0.0, 0.0), kept)
        region.weight[protected[region.box]] = 0
        if intervention.action in MODULATED and not region.is_exact:
            beside = evidence(intervention, region, slices.volume, slices.window, mask, others)
            after = self._apply_decoder(slices, mask, intervention, region, beside, expected, on_slice)
        else:
            after = apply_exact_operator(intervention, region, slices.volume, mask)
        # Here and nowhere else it is certain that what is protected stays, whatever an act does.
        after = np.where(protected, mask, after)
        effect = measure_effect(intervention.label, slices.volume, mask, after, others)
        reason = find_objection(intervention, region, mask, after)
        if reason is not None:
            return Correction(intervention, mask, effect, reason)
        every = {**others, intervention.label: mask}
        volumes_ml = {name: float(own.sum()) * slices.volume.voxel_ml for name, own in every.items()}
        unexpected_ml = 0.0
        if expected is not None and effect.gained_ml:
            unexpected_ml = float((after & ~mask & ~expected.mask()).sum()) * slices.volume.voxel_ml
        doubt = find_doubt(intervention, effect, volumes_ml, unexpected_ml)
        return Correction(intervention, after, effect, None, doubt)

    def _apply_decoder(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        region: Region,
        beside: NDArray[np.float32],
        expected: CoarseMask | None,
        on_slice: Callable[[int], object],
    ) -> NDArray[np.bool_]:
        film = self._film
        if film is None:
            raise InputError(
                f"{self._encoder.model.name} was not trained to {intervention.action} masks by notes: train it with "
                "training/train_tci.py, or click."
            )
        weight, added = region.in_volume(mask.shape), np.zeros(mask.shape, np.float32)
        added[region.box] = beside
        after = mask.copy(order="K")
        sentence = self._text.encode([intervention.sentence]).to(self._encoder.model.device)
        done = 0
        for indices in _slice_batches(slices, mask, weight):
            on_slice(done)
            owns = [np.ascontiguousarray(slices.frame.extract(mask, index)) for index in indices]
            before = [self._decoder_prompt(slices, index, own, after) for index, own in zip(indices, owns, strict=True)]
            regions = [np.ascontiguousarray(slices.frame.extract(weight, index)) for index in indices]
            logits = self._decode(film, slices, indices, before, regions, sentence, STRENGTH[intervention.strength])
            for index, own, region_here, low_res in zip(indices, owns, regions, logits, strict=True):
                total = slices.logits(low_res) + slices.frame.extract(added, index)
                if expected is not None:
                    total += np.clip(expected.slice_logits(index), -MAX_COARSE_LOGIT, MAX_COARSE_LOGIT)
                slices.frame.insert(restrict_to_region(intervention, region_here > 0, own, total > 0), after, index)
            done += len(indices)
        return _without_islands(mask, after, region) if intervention.action == "expand" else after

    def _decoder_prompt(
        self, slices: VolumeSlices, index: int, own: NDArray[np.bool_], after: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Return the mask prompt of a slice: its own mask, or the corrected mask of a neighbour if that is empty."""
        if own.any():
            return own
        for neighbour in slices.frame.neighbours(index):
            beside = np.ascontiguousarray(slices.frame.extract(after, neighbour))
            if beside.any():
                return beside
        return own

    def _decode(
        self,
        film: Film,
        slices: VolumeSlices,
        indices: list[int],
        masks: list[NDArray[np.bool_]],
        regions: list[NDArray[np.float32]],
        sentence: Tensor,
        amount: float,
    ) -> Tensor:
        """Return the logits of the modulated decoder on B slices, BxLxL."""
        model = self._encoder.model
        size, device, count = model.mask_size, model.device, len(indices)
        prompts = torch.from_numpy(np.stack([slices.low_res_prompt(mask, size) for mask in masks]))[:, None].to(device)
        low_res = np.stack([slices.low_res(2 * region - 1, size) for region in regions])
        on_grid = torch.from_numpy(low_res).add(1).div(2).clamp(0, 1)[:, None].to(device)
        embeddings = [self._encoder.embedding(slices, index).to(device) for index in indices]
        logits = []
        # SAM's own decoder takes one slice at a time; only the compact decoder, which has skips, takes several.
        step = count if embeddings[0].skips else 1
        for first in range(0, count, step):
            part = slice(first, first + step)
            features, skips = zip(*embeddings[part], strict=True)
            together = Embedding(torch.cat(features), tuple(torch.cat(level) for level in zip(*skips, strict=True)))
            regions_here = on_grid[part]
            strength = regions_here.new_full((len(regions_here),), amount)
            modulation = film(sentence.expand(len(strength), -1), strength, regions_here)
            quick = torch.autocast(device.type, torch.bfloat16, enabled=model.encodes_in_bfloat16)
            with quick, modulated(modulation):
                logits.append(model.decode(together, mask_logits=prompts[part]).logits[:, 0].float())
        return torch.cat(logits)


def load_corrector(encoder: SliceEncoder, film: FilmPart | None = None) -> Corrector:
    """Load a corrector for the model of an encoder.

    Args:
        encoder: slice encoder; the decoder of its model is changed in place so that it can be modulated.
        film: part of an adapter bundle; by default the one shipped with the model, if its decoder is unchanged.

    Raises:
        CheckpointError: the film is damaged, or belongs to another decoder or text encoder.
    """
    model, text = encoder.model, load_text_encoder()
    make_modulable(model)
    film = film or shipped_film(model)
    return Corrector(encoder, None if film is None else film.load(model, text.fingerprint), text)


def restrict_to_region(
    intervention: Intervention, allowed: NDArray[np.bool_], before: NDArray[np.bool_], proposed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Restrict a proposed mask to the changes that the act allows, inside the region only."""
    if intervention.action == "expand":
        return before | (proposed & allowed)
    if intervention.action == "restyle":
        return np.where(allowed, proposed, before)
    return before & ~(allowed & ~proposed)


def _without_islands(before: NDArray[np.bool_], after: NDArray[np.bool_], region: Region) -> NDArray[np.bool_]:
    """Give up what a mask has gained without connection to what it was."""
    inside = after[region.box]
    parts, _ = ndimage.label(inside)
    inside &= np.isin(parts, np.unique(parts[before[region.box]]))
    return after


def _slice_batches(slices: VolumeSlices, mask: NDArray[np.bool_], weight: NDArray[np.float32]) -> Iterator[list[int]]:
    """Yield batches of slices of the region: first slices with a mask, then their neighbours outwards."""
    indices = np.array(sorted(nonempty_slices(weight, slices.axis)))
    distance = np.abs(indices[:, None] - sorted(nonempty_slices(mask, slices.axis))).min(1)
    for steps in np.unique(distance):
        beside = indices[distance == steps].tolist()
        yield from (beside[n : n + SLICES_PER_BATCH] for n in range(0, len(beside), SLICES_PER_BATCH))
