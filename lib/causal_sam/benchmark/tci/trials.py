"""Trials: a simulated error, a note about it, and the corrected mask, also with other texts as controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.benchmark.cases import LabelledVolume
from causal_sam.correction.corrector import MODULATED, Correction, Corrector
from causal_sam.correction.region import region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import DIRECTIONS, Volume
from causal_sam.imaging.overlap import dice
from causal_sam.notes import Intervention, NoteRequest
from causal_sam.notes.request import Interpretation
from causal_sam.notes.schema import Action, Strength
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.sam.film import Film
from causal_sam.simulation.annotator import next_click_in_volume
from causal_sam.simulation.errors import KINDS, STRENGTHS, SimulatedError, simulate_error
from causal_sam.simulation.notes import write_note
from causal_sam.text import TextEncoder
from causal_sam.training.found_errors import find_error

# Share of the errors where neighbours have masks of their own.
NEIGHBOURS_KNOWN = 0.5

Masks = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Trial:
    """A note about a simulated error, and its effect.

    Attributes:
        group: group of the case, such as its data set.
        case: name of the case in the group.
        structure: structure with the wrong mask.
        kind: kind of the error.
        neighbours_known: True if other structures had masks.
        note: text of the note.
        wanted: intervention that corrects the error, in controlled English.
        read: interpreted plan in controlled English, or the question.
        modulated: True if the decoder carries out the wanted intervention, False if an exact operator does.
        acts: number of interventions tried.
        refused: number of interventions that the guard refused or that were impossible.
        objection: reason of the last refusal; empty if there is none.
        doubt: reason why the last act had to be confirmed, which it was; empty if there is none.
        before: Dice of the wrong mask.
        after: Dice of the corrected mask.
        after_other_text: Dice if the decoder sees the sentence of another act; None without a modulated act.
        after_no_text: Dice if the decoder is not modulated; None without a modulated act.
        right: share of the changed voxels of the structure that are right now; None if none changed.
        outside: number of voxels changed outside the regions.
        seconds: time from the note to the mask, with cached embeddings.
        click_seconds: time of a click that is propagated through the volume, with cached embeddings.
    """

    group: str
    case: str
    structure: str
    kind: str
    neighbours_known: bool
    note: str
    wanted: str
    read: str
    modulated: bool
    acts: int
    refused: int
    objection: str
    doubt: str
    before: float
    after: float
    after_other_text: float | None
    after_no_text: float | None
    right: float | None
    outside: int
    seconds: float
    click_seconds: float


class TrialRunner:
    """Runs trials with their controls.

    Args:
        predictor: predictor of a model whose decoder can be modulated, without prefetch.
        film: modulation that was trained for the model.
        text: text encoder.
        interpret: interprets notes, such as the `invoke` of an interpreter.
    """

    def __init__(
        self, predictor: Predictor, film: Film, text: TextEncoder, interpret: Callable[[NoteRequest], Interpretation]
    ) -> None:
        self._predictor, self._film, self._text, self._interpret = predictor, film, text, interpret
        self._corrector = Corrector(predictor.encoder, film, text)
        # An untrained modulation is the identity.
        self._without_text = Corrector(predictor.encoder, Film(film.text_dim, film.channels), text)

    def trials(
        self,
        case: LabelledVolume,
        errors: int,
        min_voxels: int,
        first: int,
        seed: int,
        masks: Masks = MappingProxyType({}),
    ) -> Iterator[Trial | None]:
        """Yield a trial for each error of each structure; None if the kind of error does not suit the structure.

        Args:
            case: volume with its structures.
            errors: number of errors of each structure; kinds take turns.
            min_voxels: structures with fewer voxels are left out.
            first: number of the first error.
            seed: seed of all random numbers.
            masks: structure -> mask that was really made, about whose largest error there is one more note.
        """
        predictor = self._predictor.for_volume(case.volume)
        for index in range(predictor.slices.frame.count):
            predictor.encoder.embedding(predictor.slices, index)
        kinds = list(KINDS)
        number = first
        for structure in case.tested:
            truth = case.structures[structure]
            if truth.sum() < max(1, min_voxels):
                continue
            # A label map has one label per voxel, so unions that contain the structure are no neighbours.
            others = {name: mask for name, mask in case.structures.items() if not (mask & truth).any()}
            click = click_seconds(self._predictor, case.volume, truth)
            for _ in range(errors):
                rng = np.random.default_rng([seed, number])
                kind = kinds[number % len(kinds)]
                number += 1
                error = None
                if is_applicable(kind, truth):
                    error = simulate_error(structure, truth, case.volume, others, rng, kind)
                yield error and self._trial(predictor, case, structure, others, kind, error, click, rng)
            if structure in masks:
                found = find_error(structure, masks[structure], truth, case.volume, others)
                number += 1
                if found is None:
                    yield None
                    continue
                error = SimulatedError(masks[structure], found.intervention)
                rng = np.random.default_rng([seed, number])
                yield self._trial(predictor, case, structure, others, f"real: {found.kind}", error, click, rng)

    def _trial(
        self,
        predictor: Predictor,
        case: LabelledVolume,
        structure: str,
        others: Masks,
        kind: str,
        error: SimulatedError,
        click: float,
        rng: np.random.Generator,
    ) -> Trial:
        wanted = error.intervention
        known = bool(rng.random() < NEIGHBOURS_KNOWN)
        # As in a label map, masks do not overlap.
        left = {name: mask & ~error.mask for name, mask in others.items()} if known else {}
        session = InteractiveSession(predictor)
        for name, mask in {**left, structure: error.mask}.items():
            session.set_mask(name, mask)
        masks, start = session.masks(), session.history
        note = write_note(wanted, rng)
        truth = case.structures[structure]
        other = another_act(wanted, sorted(others), rng)

        begin = time.perf_counter()
        plan = self._interpret(NoteRequest(note, tuple(sorted(masks)))).plan
        try:
            corrections, objections = session.apply_note(note, plan, self._corrector, confirm=True).corrections, []
        except InputError as refusal:  # such as slices that do not exist
            corrections, objections = [], [str(refusal)] * len(plan.interventions)
        seconds = time.perf_counter() - begin
        corrected = session.mask(structure)
        changed = corrected ^ masks[structure]

        controls: list[float | None] = [None, None]
        acts = [correction.intervention for correction in corrections if correction.intervention.action in MODULATED]
        if acts:
            text = with_other_texts(self._text, {act.sentence: other.sentence for act in acts})
            for n, corrector in enumerate((Corrector(predictor.encoder, self._film, text), self._without_text)):
                session.history = start
                session.apply_note(note, plan, corrector, confirm=True)
                controls[n] = dice(session.mask(structure), truth)
        objections += [correction.objection for correction in corrections if correction.objection]
        return Trial(
            group=case.group,
            case=case.case,
            structure=structure,
            kind=kind,
            neighbours_known=known,
            note=note,
            wanted=wanted.sentence,
            read=plan.sentence,
            modulated=wanted.action in MODULATED,
            acts=len(plan.interventions),
            refused=len(objections),
            objection=objections[-1] if objections else "",
            doubt=next((each.doubt for each in reversed(corrections) if each.doubt), ""),
            before=dice(masks[structure], truth),
            after=dice(corrected, truth),
            after_other_text=controls[0],
            after_no_text=controls[1],
            right=float((corrected == truth)[changed].mean()) if changed.any() else None,
            outside=changed_outside(corrections, case.volume, masks),
            seconds=seconds,
            click_seconds=click,
        )


def is_applicable(kind: str, truth: NDArray[np.bool_]) -> bool:
    """Return False if the truth looks like the error: an island beside a second part, or a hole beside a real one.

    Args:
        kind: kind of the error.
        truth: true mask (I, J, K), not empty.
    """
    if kind == "island":
        return ndimage.label(truth, np.ones((3, 3, 3)))[1] == 1
    return kind != "hole" or not (ndimage.binary_fill_holes(truth) & ~truth).any()


def with_other_texts(encoder: TextEncoder, replacements: Mapping[str, str]) -> TextEncoder:
    """Return a text encoder that replaces some texts.

    Args:
        encoder: text encoder.
        replacements: text -> text to encode in its place.
    """
    return TextEncoder(
        f"{encoder.name} of other texts",
        encoder.fingerprint,
        encoder.dimension,
        lambda texts: encoder.encode([replacements.get(text, text) for text in texts]),
    )


def another_act(intervention: Intervention, neighbours: list[str], rng: np.random.Generator) -> Intervention:
    """Draw another modulated act on the same label.

    Args:
        intervention: intervention with a different action than the one drawn.
        neighbours: neighbours that the act may exclude; without any it is not "exclude".
        rng: source of random numbers.
    """
    actions = sorted(MODULATED - {intervention.action} - (set() if neighbours else {"exclude"}))
    action = cast(Action, str(rng.choice(actions)))
    directions: list[Any] = [None, *DIRECTIONS]
    return Intervention(
        label=intervention.label,
        action=action,
        direction=rng.choice(directions) if action in ("expand", "shrink") else None,
        near=str(rng.choice(neighbours)) if action == "exclude" else None,
        strength=cast(Strength, str(rng.choice(STRENGTHS))) if action in ("expand", "shrink") else "moderate",
    )


def changed_outside(corrections: list[Correction], volume: Volume, masks: Masks) -> int:
    """Count voxels that acts changed where their recomputed regions are 0.

    Args:
        corrections: corrections in their order.
        volume: image.
        masks: masks of all labels before the first correction.
    """
    now, count = dict(masks), 0
    for correction in corrections:
        act = correction.intervention
        others = {name: mask for name, mask in now.items() if name != act.label}
        changed = correction.mask ^ now[act.label]
        region = region_gate(act, volume, now[act.label], others)
        changed[region.box] &= region.weight == 0
        count += int(changed.sum())
        gained = correction.mask & ~now[act.label]
        now |= {name: mask & ~gained for name, mask in others.items()} | {act.label: correction.mask}
    return count


def click_seconds(predictor: Predictor, volume: Volume, truth: NDArray[np.bool_]) -> float:
    """Time a click into the middle of a structure that is propagated through the volume, with cached embeddings.

    Args:
        predictor: predictor of the model.
        volume: image.
        truth: true mask (I, J, K), not empty.
    """
    click = next_click_in_volume(truth, np.zeros_like(truth), volume.spacing)
    if click is None:
        raise InputError("There is nothing to click: the true mask is empty.")
    predictor = predictor.for_volume(volume)
    for _ in range(2):  # the first run also encodes crops, which are then cached
        session = InteractiveSession(predictor)
        begin = time.perf_counter()
        session.add_point("structure", click[0])
        seconds = time.perf_counter() - begin
    return seconds
