"""Learning from what clinicians wrote: their notes, the masks that were wrong, and the labels that were accepted.

What a note asked for was right where the accepted label says so. Beside these real corrections errors are simulated on
accepted labels, so that a few notes do not spoil what all others do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import default_collate

from causal_sam.correction.corrector import MODULATED, STRENGTH
from causal_sam.correction.region import region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask, Volume, other_axes
from causal_sam.notes.schema import Intervention, parse_plan
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import FilmPart, shipped_film
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.film import Film, make_modulable
from causal_sam.simulation.errors import simulate_error
from causal_sam.text import TextEncoder, canonical
from causal_sam.training.style_pairs import padded
from causal_sam.training.tci import MODULATED_KINDS, Lesson, correction_loss, propose, score_lessons

# Slices of a correction that are learnt from: those with the largest errors in the region.
MAX_SLICES = 6
# Simulated errors of each structure of a case.
SIMULATED = 2
BATCH, LEARNING_RATE = 8, 1e-4


class Lessons(NamedTuple):
    """What one case teaches.

    Attributes:
        real: of the clinicians' notes.
        simulated: of errors made up on the accepted label.
    """

    real: list[Lesson]
    simulated: list[Lesson]


class Notes(NamedTuple):
    """What learning from notes has come to.

    Attributes:
        corrections: slices of real corrections that were learnt from.
        before: Dice of the wrong masks that it was measured on.
        until_now: after the correction, with the modulation in use before.
        after: with the new one.
    """

    corrections: int
    before: float
    until_now: float
    after: float

    @property
    def is_better(self) -> bool:
        """Whether the new modulation is to be used."""
        return self.after >= self.until_now


def lessons_of_case(
    entries: Sequence[Mapping[str, Any]],
    volume: Volume,
    structures: Mapping[str, NDArray[np.bool_]],
    plane: str,
    image_size: int,
    rng: np.random.Generator,
) -> Lessons:
    """Make lessons of the notes about an image whose label was accepted.

    Args:
        entries: of the journal, about this image and frame, the oldest first.
        volume: the image.
        structures: accepted masks by name.
        plane: of the slices.
        image_size: side S of the model's input.
        rng: source of the simulated errors.
    """
    slices = VolumeSlices(volume, plane, image_size)
    accepted = {canonical(name): mask for name, mask in structures.items()}
    real = []
    for entry in entries:
        for intervention, before in _corrections(entry, volume.shape):
            truth = accepted.get(canonical(intervention.label))
            if truth is not None and before.any():
                others = {name: mask for name, mask in structures.items() if mask is not truth}
                real += _lessons(slices, image_size, intervention, before, truth, others)
    simulated = []
    if real:
        for name, truth in structures.items():
            others = {other: mask for other, mask in structures.items() if other != name}
            for _ in range(SIMULATED):
                error = simulate_error(name, truth, volume, others, rng, str(rng.choice(MODULATED_KINDS)))
                if error is not None:
                    simulated += _lessons(slices, image_size, error.intervention, error.mask, truth, others)
    return Lessons(real, simulated)


def _corrections(entry: Mapping[str, Any], shape: tuple[int, int, int]) -> list[tuple[Intervention, NDArray[np.bool_]]]:
    """The interventions of a journal entry that the decoder decided, each with the mask before it."""
    if entry.get("act") != "note" or entry.get("preview"):
        return []
    try:
        plan = parse_plan(entry["plan"])
        before = {name: PackedMask.from_json(packed) for name, packed in entry["before"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):  # of another version, or damaged
        return []
    # Of several acts on one label only the first one saw this mask.
    firsts = {act.label: act for act in reversed(plan.interventions)}.values()
    return [
        (act, before[act.label].unpack())
        for act in firsts
        if act.action in MODULATED and act.label in before and before[act.label].shape == shape
    ]


def _lessons(
    slices: VolumeSlices,
    size: int,
    intervention: Intervention,
    before: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]],
) -> list[Lesson]:
    """The slices on which a mask is most wrong in the region of an intervention."""
    try:
        region = region_gate(intervention, slices.volume, before, others).in_volume(before.shape)
    except InputError:  # slices that the image does not have
        return []
    wrong = (before ^ truth) & (region > 0)
    along = other_axes(slices.axis)
    errors = wrong.sum(axis=along) * before.any(axis=along)
    chosen = [index for index in np.argsort(-errors, kind="stable")[:MAX_SLICES].tolist() if errors[index]]
    # Outside of the region the mask stays, whatever the accepted label says.
    wanted = np.where(region > 0, truth, before)
    return [
        Lesson(
            padded(slices.image(index)[0].numpy(), size),
            fitted(before, slices, index, size),
            fitted(wanted, slices, index, size),
            fitted(region, slices, index, size),
            intervention.sentence,
            STRENGTH[intervention.strength],
        )
        for index in chosen
    ]


def fitted(array: NDArray, slices: VolumeSlices, index: int, size: int) -> NDArray:
    """Bring a slice of an array in the order of the volume's voxels to the grid of the model's input, SxS.

    Args:
        array: (I, J, K), bool or float32.
        slices: of the volume.
        index: of the slice.
        size: side S of the model's input.

    Returns:
        uint8 of a mask, else float32; 0 in the padding.
    """
    shown = torch.from_numpy(np.ascontiguousarray(slices.frame.extract(array, index))).float()[None, None]
    scaled = F.interpolate(shown, (slices.height, slices.width), mode="nearest-exact")[0, 0].numpy()
    return padded(scaled.astype(np.uint8 if array.dtype == bool else np.float32), size)


def save_lessons(path: Path, lessons: Lessons) -> None:
    """Write lessons into a file, images with 256 levels."""
    every = [*lessons.real, *lessons.simulated]
    arrays = {name: np.array([getattr(lesson, name) for lesson in every]) for name in Lesson._fields}
    arrays["image"] = np.rint(255 * arrays["image"]).astype(np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, real=len(lessons.real), **arrays)


def load_lessons(path: Path) -> Lessons:
    """Read lessons from a file of `save_lessons`."""
    with np.load(path) as file:
        parts = [file[name] for name in Lesson._fields]
        count = int(file["real"])
    parts[0] = parts[0].astype(np.float32) / 255
    every = [Lesson(*row[:4], str(row[4]), float(row[5])) for row in zip(*parts, strict=True)]
    return Lessons(every[:count], every[count:])


def learn_notes(
    model: CausalSam,
    encoder: TextEncoder,
    start: FilmPart | None,
    lessons: Lessons,
    held_out: Sequence[Lesson],
    steps: int,
    seed: int,
) -> tuple[Film, Notes] | None:
    """Go on training the modulation, half on real corrections, half on simulated ones.

    Args:
        model: without adapters; it is frozen, and its decoder becomes one that can be modulated.
        encoder: of the sentences.
        start: the modulation to start with; None for the one that came with the model.
        lessons: to learn from, with real ones.
        held_out: real corrections of studies that are not learnt from; if there are none, it is measured on those
            that were.
        steps: of the optimiser.
        seed: of the order of the lessons.

    Returns:
        The new modulation, and what it has come to; None if the model has no modulation to start with.
    """
    start = start or shipped_film(model)
    if start is None:
        return None
    model.requires_grad_(False)
    make_modulable(model)
    film = start.load(model, encoder.fingerprint)
    measured = list(held_out) or lessons.real
    until_now = score_lessons(model, film, encoder, measured)
    rng = np.random.default_rng(seed)
    film.train()
    optimizer = torch.optim.AdamW(film.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / steps)
        kinds = [lessons.simulated or lessons.real, lessons.real]
        batch = default_collate([kinds[n % 2][int(rng.integers(len(kinds[n % 2])))] for n in range(BATCH)])
        loss = correction_loss(propose(model, film, batch, encoder.encode(batch.sentence)), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(film.parameters(), 1.0)
        optimizer.step()
    film.eval()
    after = score_lessons(model, film, encoder, measured)
    found = Notes(len(lessons.real), until_now["dice before"], until_now["dice after"], after["dice after"])
    return film, found
