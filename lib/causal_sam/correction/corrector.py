"""Application of interventions to masks, by exact operators or by the modulated mask decoder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.decoding import BoxSlices, RegionDecoder
from causal_sam.correction.evidence import evidence
from causal_sam.correction.guard import Effect, find_doubt, find_objection, find_total_doubt, measure_effect
from causal_sam.correction.operators import apply_exact_operator
from causal_sam.correction.protection import Protection
from causal_sam.correction.region import Region, region_gate
from causal_sam.errors import InputError
from causal_sam.imaging.shape import bounding_box
from causal_sam.notes.schema import Intervention, Plan
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.prompts import Voxel
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import FilmPart, shipped_film
from causal_sam.sam.film import Film, make_modulable
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.volume.context import CoarseMask

# Acts of the modulated decoder; all others have exact operators.
MODULATED = frozenset({"expand", "shrink", "exclude", "restyle"})


@dataclass(frozen=True, eq=False)
class Correction:
    """Result of an intervention.

    Attributes:
        intervention: requested intervention.
        mask: (I, J, K) bool, corrected mask; the previous mask if there is an objection.
        effect: change of the mask, or the change that was rejected.
        objection: sentence with the reason why the change was rejected; None if it was applied.
        doubt: sentence with the reason why the change has to be confirmed; None if it is plausible.
        spared_ml: label that is locked or kept -> volume in ml of its part that the act would else have reached.
    """

    intervention: Intervention
    mask: NDArray[np.bool_]
    effect: Effect
    objection: str | None
    doubt: str | None = None
    spared_ml: Mapping[str, float] = field(default_factory=dict)

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
            "amount": effect.amount,
            "objection": self.objection,
            "doubt": self.doubt,
            "spared_ml": {name: round(ml, 3) for name, ml in self.spared_ml.items()},
        }


@dataclass(frozen=True, eq=False)
class PlanResult:
    """Result of a plan.

    Attributes:
        corrections: one correction per intervention, in their order.
        masks: label -> (I, J, K) mask, for the labels that have changed; none if there is a question.
        question: question whether to make changes that are not plausible; None if there are none, or they were
            confirmed.
        totals: label -> its change by all acts of the plan, for labels that several acts change.
        total_doubts: reasons why such a change in all has to be confirmed.
    """

    corrections: list[Correction]
    masks: dict[str, NDArray[np.bool_]]
    question: str | None = None
    totals: Mapping[str, Effect] = field(default_factory=dict)
    total_doubts: tuple[str, ...] = ()

    @property
    def doubts(self) -> list[str]:
        """Reasons why the changes have to be confirmed."""
        return [each.doubt for each in self.corrections if each.doubt is not None] + list(self.total_doubts)


class Corrector:
    """Corrects masks of volumes; thread-safe.

    Args:
        encoder: slice encoder with a model whose decoder can be modulated.
        film: modulation that was trained for that model; None allows exact acts only.
        text: text encoder that the modulation was trained with.
    """

    def __init__(self, encoder: SliceEncoder, film: Film | None, text: TextEncoder) -> None:
        self._model_name = encoder.model.name
        self._decoder = None if film is None else RegionDecoder(encoder, film, text)

    @property
    def is_trained(self) -> bool:
        """Whether the model was trained for acts that the decoder decides; the others are always possible."""
        return self._decoder is not None

    def carry_out(
        self,
        plan: Plan,
        slices: VolumeSlices,
        masks: Mapping[str, NDArray[np.bool_]],
        on_slice: Callable[[int], object] = lambda done: None,
        *,
        locked: Collection[str] = (),
        coarse: Mapping[str, CoarseMask] = MappingProxyType({}),
        clicked: Mapping[str, Sequence[Voxel]] = MappingProxyType({}),
        confirm: bool = False,
    ) -> PlanResult:
        """Apply the interventions of a plan in their order, each to the masks after the previous ones.

        A voxel belongs to one label: gains of a label are taken from others. Labels that are locked or that the plan
        keeps do not change, whatever the other acts are. What several acts change in one label is judged act by act and
        in all.

        Args:
            plan: plan with interventions.
            slices: all slices of the volume.
            masks: label -> (I, J, K) mask, in the volume's voxel order.
            on_slice: called with the number of processed slices; its exceptions cancel the correction.
            locked: labels that no act may change.
            coarse: label -> coarse mask from the context of the volume, for labels that it knows.
            clicked: label -> voxels (i, j, k) that somebody clicked as inside of it.
            confirm: make changes also if they are not plausible.

        Raises:
            InputError: a label has no mask or one of another shape, or slices are outside the volume.
        """
        now, done = dict(masks), []
        protection = Protection(plan, locked, masks)
        for act in plan.interventions:
            if act.action == "keep" and not (act.label in now and now[act.label].any()):
                nothing = np.zeros(slices.volume.shape, bool)
                done.append(Correction(act, nothing, Effect(act.label, 0.0, 0.0), None))
                continue
            if act.label in masks and masks[act.label].any() and not now[act.label].any():
                gone = f"Nothing of {act.label} is left after the acts before, so it was not changed."
                done.append(Correction(act, now[act.label], Effect(act.label, 0.0, 0.0), gone))
                continue
            if act.label not in now or not now[act.label].any():
                raise InputError(
                    f"There is no mask of {act.label} yet, so there is nothing to correct: segment it first."
                )
            before, others = now[act.label], {name: mask for name, mask in now.items() if name != act.label}
            known = coarse.get(act.label), clicked.get(act.label, ())
            correction = self.correct(slices, before, act, others, protection, *known, on_slice)
            if correction.effect.taken_ml and correction.mask is not before:
                gained = correction.mask & ~before
                box = bounding_box(gained)
                for name in correction.effect.taken_ml:
                    now[name] = others[name].copy(order="K")
                    now[name][box] &= ~gained[box]
            now[act.label] = correction.mask
            done.append(correction)
        totals, total_doubts = _in_all(slices, masks, now, done)
        result = PlanResult(done, {}, None, totals, total_doubts)
        if result.doubts and not confirm:
            question = f"{' '.join(result.doubts)} Nothing was changed: confirm to do it, or say how much."
            return replace(result, question=question)
        changed = {name: mask for name, mask in now.items() if mask is not masks[name]}
        return replace(result, masks={n: mask for n, mask in changed.items() if not np.array_equal(mask, masks[n])})

    def correct(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        others: Mapping[str, NDArray[np.bool_]],
        protection: Protection | None = None,
        expected: CoarseMask | None = None,
        clicked: Sequence[Voxel] = (),
        on_slice: Callable[[int], object] = lambda done: None,
    ) -> Correction:
        """Apply an intervention, unless the guard objects to the result.

        Args:
            slices: all slices of the volume.
            mask: (I, J, K) mask of the label, in the volume's voxel order.
            intervention: intervention to apply.
            others: label -> mask, for the other labels.
            protection: labels that stay as they are; None for none.
            expected: coarse mask of the label from the context of the volume; None if that does not know it.
            clicked: voxels (i, j, k) that somebody clicked as inside of the label.
            on_slice: called with the number of processed slices; its exceptions cancel the correction.

        Raises:
            InputError: the mask is empty or of another shape, the slices are outside the volume, or the model was not
                trained for the act.
        """
        label, volume = intervention.label, slices.volume
        region = region_gate(intervention, volume, mask, others, slices.window)
        protected, spared = (protection or Protection()).in_region(label, region, volume, {**others, label: mask})
        if intervention.action != "keep" and protected.all():
            kept = f"{label} is to stay as it is, so it was not changed."
            return Correction(intervention, mask, Effect(label, 0.0, 0.0), kept)
        region.weight[protected] = 0
        if spared and not region.weight.any():
            stays = f"{label} was not changed: that place belongs to {', '.join(spared)}, to stay as before."
            return Correction(intervention, mask, Effect(label, 0.0, 0.0), stays, spared_ml=spared)
        # From here on all work is in the box of the region: nothing outside of it can change.
        before, beside = mask[region.box], {name: other[region.box] for name, other in others.items()}
        certainty = None
        if intervention.action in MODULATED and not region.is_exact:
            after, certainty = self._decide(slices, mask, intervention, region, others, expected, clicked, on_slice)
        else:
            after = apply_exact_operator(intervention, region, volume, before)
        # Here and nowhere else it is certain that what is protected stays, whatever an act does.
        after = np.where(protected, before, after)
        effect = measure_effect(label, volume, before, after, beside)
        reason = find_objection(intervention, region, volume, before, after, certainty)
        if reason is not None:
            return Correction(intervention, mask, effect, reason, spared_ml=spared)
        volumes_ml = {name: np.count_nonzero(others[name]) * volume.voxel_ml for name in effect.taken_ml}
        volumes_ml[label] = np.count_nonzero(before) * volume.voxel_ml
        unexpected_ml = 0.0
        if expected is not None and effect.gained_ml:
            unexpected_ml = _unexpected(slices, region.box, after & ~before, expected) * volume.voxel_ml
        corrected = mask.copy(order="K")
        corrected[region.box] = after
        lost_clicks = sum(bool(mask[voxel]) and not corrected[voxel] for voxel in clicked)
        # Of parts and slices that a note names plainly, a clicked one may go, as long as another one stays.
        if intervention.action not in MODULATED and any(corrected[voxel] for voxel in clicked):
            lost_clicks = 0
        doubt = find_doubt(intervention, effect, volumes_ml, unexpected_ml, lost_clicks)
        return Correction(intervention, corrected, effect, None, doubt, spared)

    def _decide(
        self,
        slices: VolumeSlices,
        mask: NDArray[np.bool_],
        intervention: Intervention,
        region: Region,
        others: Mapping[str, NDArray[np.bool_]],
        expected: CoarseMask | None,
        clicked: Sequence[Voxel],
        on_slice: Callable[[int], object],
    ) -> tuple[NDArray[np.bool_], float | None]:
        """Return the mask in the region's box as the decoder decides, and how sure that is."""
        if self._decoder is None:
            raise InputError(
                f"{self._model_name} was not trained to {intervention.action} masks by notes: train it with "
                "training/train_tci.py, or click."
            )
        beside = evidence(intervention, region, slices.volume, slices.window, mask, others, clicked)
        decision = self._decoder.decide(slices, mask, intervention, region, beside, expected, on_slice)
        return decision.mask, decision.certainty


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


def _in_all(
    slices: VolumeSlices,
    before: Mapping[str, NDArray[np.bool_]],
    after: Mapping[str, NDArray[np.bool_]],
    done: Sequence[Correction],
) -> tuple[dict[str, Effect], tuple[str, ...]]:
    """Return the change of each label that several acts change, and doubts about it that no single act gives."""
    totals, doubts = {}, []
    changes = [each for each in done if each.objection is None and each.effect.gained_ml + each.effect.lost_ml]
    for label in dict.fromkeys(each.effect.label for each in changes):
        own = [each for each in changes if each.effect.label == label]
        if len(own) < 2:
            continue
        box = bounding_box(before[label] | after[label])
        others = {name: mask[box] for name, mask in before.items() if name != label}
        totals[label] = measure_effect(label, slices.volume, before[label][box], after[label][box], others)
        volumes_ml = {name: np.count_nonzero(mask) * slices.volume.voxel_ml for name, mask in before.items()}
        doubt = find_total_doubt([each.intervention for each in own], totals[label], volumes_ml)
        if doubt is not None and all(each.doubt is None for each in own):
            doubts.append(doubt)
    return totals, tuple(doubts)


def _unexpected(slices: VolumeSlices, box: tuple[slice, ...], gained: NDArray[np.bool_], expected: CoarseMask) -> int:
    """Count the voxels gained in a box where a coarse mask is not."""
    part = BoxSlices(slices, box)
    return sum(
        np.count_nonzero(part.read(gained, index) & (expected.slice_logits(index, part.area) <= 0))
        for index in part.nonempty(gained)
    )
