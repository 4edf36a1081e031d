"""Training from clinicians' notes: the notes, the masks that were wrong, and the labels that were accepted.

The accepted label is the truth for each note. Simulated errors are added to these real corrections, so that training on
a few notes does not make the response to other notes worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import default_collate

from causal_sam.correction.corrector import MODULATED
from causal_sam.correction.decoding import STRENGTH
from causal_sam.correction.region import region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask, Volume, other_axes
from causal_sam.notes.schema import Intervention, parse_plan
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import FilmPart, shipped_film
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.film import Film
from causal_sam.simulation.errors import simulate_error
from causal_sam.text import TextEncoder, canonical
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.style_pairs import padded
from causal_sam.training.tci import MODULATED_KINDS, CorrectionBatch, CorrectionObjective, CorrectionSample

# Slices of a correction that are trained on: those with the largest errors in the region.
MAX_SLICES = 6
# Simulated errors of each structure of a case.
SIMULATED = 2
BATCH, LEARNING_RATE = 8, 1e-4


class CorrectionSamples(NamedTuple):
    """The samples of one case or of many.

    Attributes:
        real: samples of clinicians' notes.
        simulated: samples of errors simulated on accepted labels.
    """

    real: list[CorrectionSample]
    simulated: list[CorrectionSample]


class NoteResult(NamedTuple):
    """Quality of the modulation after training on notes.

    Attributes:
        corrections: number of slices with real corrections in the training data.
        before: Dice of the wrong masks of the test data.
        until_now: Dice after the correction with the modulation in use before.
        after: Dice after the correction with the new one.
    """

    corrections: int
    before: float
    until_now: float
    after: float

    @property
    def is_better(self) -> bool:
        """True if the new modulation is to be used."""
        return self.after >= self.until_now


def samples_of_case(
    entries: Sequence[Mapping[str, Any]],
    volume: Volume,
    structures: Mapping[str, NDArray[np.bool_]],
    plane: str,
    image_size: int,
    rng: np.random.Generator,
) -> CorrectionSamples:
    """Make samples of the notes about an image whose label was accepted.

    Args:
        entries: journal entries about this image and frame, the oldest first.
        volume: the image.
        structures: accepted masks by name.
        plane: plane of the slices.
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
                real += _samples(slices, image_size, intervention, before, truth, others)
    simulated = []
    if real:
        for name, truth in structures.items():
            others = {other: mask for other, mask in structures.items() if other != name}
            for _ in range(SIMULATED):
                error = simulate_error(name, truth, volume, others, rng, str(rng.choice(MODULATED_KINDS)))
                if error is not None:
                    simulated += _samples(slices, image_size, error.intervention, error.mask, truth, others)
    return CorrectionSamples(real, simulated)


def _corrections(entry: Mapping[str, Any], shape: tuple[int, int, int]) -> list[tuple[Intervention, NDArray[np.bool_]]]:
    """Interventions of a journal entry that the decoder carried out, each with the mask before it."""
    if entry.get("act") != "note" or entry.get("preview"):
        return []
    try:
        plan = parse_plan(entry["plan"])
        before = {name: PackedMask.from_json(packed) for name, packed in entry["before"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):  # of another version, or damaged
        return []
    # If several acts changed a label, only the first one saw this mask.
    firsts = {act.label: act for act in reversed(plan.interventions)}.values()
    return [
        (act, before[act.label].unpack())
        for act in firsts
        if act.action in MODULATED and act.label in before and before[act.label].shape == shape
    ]


def _samples(
    slices: VolumeSlices,
    size: int,
    intervention: Intervention,
    before: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]],
) -> list[CorrectionSample]:
    """Samples of the slices on which a mask is most wrong in the region of an intervention."""
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
        CorrectionSample(
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
        slices: slices of the volume.
        index: index of the slice.
        size: side S of the model's input.

    Returns:
        uint8 of a mask, else float32; 0 in the padding.
    """
    shown = torch.from_numpy(np.ascontiguousarray(slices.frame.extract(array, index))).float()[None, None]
    scaled = F.interpolate(shown, (slices.height, slices.width), mode="nearest-exact")[0, 0].numpy()
    return padded(scaled.astype(np.uint8 if array.dtype == bool else np.float32), size)


def save_samples(path: Path, samples: CorrectionSamples) -> None:
    """Write samples to a file, images with 256 levels."""
    every = [*samples.real, *samples.simulated]
    arrays = {name: np.array([getattr(sample, name) for sample in every]) for name in CorrectionSample._fields}
    arrays["image"] = np.rint(255 * arrays["image"]).astype(np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, real=len(samples.real), **arrays)


def load_samples(path: Path) -> CorrectionSamples:
    """Read samples from a file of `save_samples`."""
    with np.load(path) as file:
        parts = [file[name] for name in CorrectionSample._fields]
        count = int(file["real"])
    parts[0] = parts[0].astype(np.float32) / 255
    every = [
        CorrectionSample(image, wrong, truth, region, str(sentence), float(strength))
        for image, wrong, truth, region, sentence, strength in zip(*parts, strict=True)
    ]
    return CorrectionSamples(every[:count], every[count:])


def train_on_notes(
    model: CausalSam,
    encoder: TextEncoder,
    start: FilmPart | None,
    samples: CorrectionSamples,
    held_out: Sequence[CorrectionSample],
    steps: int,
    seed: int,
) -> tuple[Film, NoteResult] | None:
    """Go on training the modulation, half on real corrections, half on simulated ones.

    Args:
        model: without adapters; it is frozen, and its decoder becomes one that can be modulated.
        encoder: text encoder of the sentences.
        start: the modulation to start with; None for the one that came with the model.
        samples: samples to train on, real ones among them.
        held_out: real corrections of held-out studies; if there are none, it is measured on those it was trained on.
        steps: number of optimizer steps.
        seed: seed of the order of the samples.

    Returns:
        The new modulation, and how good it is; None if the model has no modulation to start with.
    """
    start = start or shipped_film(model)
    if start is None:
        return None
    objective = CorrectionObjective(model, encoder, LEARNING_RATE, start)
    measured = list(held_out) or samples.real
    until_now = objective.score(measured)
    TrainingEngine(objective, LoopConfig(steps=steps)).run(_batches(samples, seed))
    after = objective.eval().score(measured)
    result = NoteResult(len(samples.real), until_now["dice before"], until_now["dice after"], after["dice after"])
    return objective.film, result


def _batches(samples: CorrectionSamples, seed: int) -> Iterator[CorrectionBatch]:
    """Batches without end, half of them simulated, if there are simulated ones."""
    rng, kinds = np.random.default_rng(seed), (samples.simulated or samples.real, samples.real)
    while True:
        yield default_collate([kinds[n % 2][int(rng.integers(len(kinds[n % 2])))] for n in range(BATCH)])
