"""Time from a note to the new mask of a large organ, beside a click on the same organ in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.benchmark.latency import peak_mb
from causal_sam.correction.corrector import load_corrector
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice
from causal_sam.notes import NoteRequest, load_interpreter
from causal_sam.phantom.abdomen import LABELS, draw_abdomen
from causal_sam.phantom.scans import render_scan
from causal_sam.phantom.studies import STYLES
from causal_sam.prompting import EmbeddingCache, InteractiveSession
from causal_sam.prompting.history import History
from causal_sam.prompting.prompts import Voxel
from causal_sam.prompting.shipped_context import predictor_with_context
from causal_sam.sam import load_model
from causal_sam.simulation.annotator import next_click_in_volume
from causal_sam.simulation.errors import simulate_error
from causal_sam.simulation.notes import write_note

# Millimetres that the volume covers: the trunk of the phantom, with its liver of two litres.
COVERED_MM = (400.0, 400.0, 190.0)
# Voxels that share one voxel of the generated anatomy, along each axis: drawing every voxel would take minutes.
REPEATED = (2, 2, 1)
PATIENT, NEIGHBOURS, LESION = 7, ("stomach", "gallbladder", "right kidney", "spleen"), "liver lesion"
CACHE_BYTES = 4 * 2**30
# Name in the report -> kind of the simulated error, and the note about it; None for the note that belongs to the kind.
NOTES: dict[str, tuple[str, str | None]] = {
    "too small": ("under", None),
    "too large": ("over", None),
    "too small on a side": ("under on a side", None),
    "too large on a side": ("over on a side", None),
    "a pole is missing": ("missing pole", None),
    "leak": ("leak", None),
    "leak, neighbour without a mask": ("leak", None),
    "misled by style": ("misled by style", None),
    "by millimetres": ("under", "The liver is 5 mm too small."),
    "by millimetres on a side": ("over", "The liver is 5 mm too large at the front."),
    "hole": ("hole", None),
    "island": ("island", None),
    "rough": ("rough", None),
}


@dataclass(frozen=True)
class NoteLatency:
    """Time of one note or click.

    Attributes:
        name: what is timed.
        seconds: median seconds, with cached embeddings and a prepared context of the volume.
        dice_before: Dice of the mask before.
        dice_after: Dice of the mask after.
    """

    name: str
    seconds: float
    dice_before: float
    dice_after: float


@dataclass(frozen=True)
class OrganLatency:
    """Times of one volume, and of clicks and notes on an organ of it.

    Attributes:
        encoded: seconds to encode all slices, once a volume.
        prepared: seconds to prepare the volume context after that, once a volume.
        acts: a click that segments the organ, one that corrects it, then the notes.
        peak_mb: peak resident memory of the process after the clicks, in 10^6 bytes.
        peak_before_mb: peak resident memory before the volume is encoded, in 10^6 bytes.
    """

    encoded: float
    prepared: float
    acts: list[NoteLatency]
    peak_mb: float
    peak_before_mb: float


def measure_notes(shape: tuple[int, int, int], repeats: int, threads: int | None = None) -> OrganLatency:
    """Time clicks on the liver of a generated CT and notes about wrong masks of it.

    Args:
        shape: shape of the volume; the first two numbers are even.
        repeats: measurements of each time.
        threads: number of CPU threads; None for PyTorch's default.

    Raises:
        InputError: the shape is odd, or too small for the anatomy.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    volume, structures = _generated_ct(shape)
    model = load_model("compact")
    predictor = predictor_with_context(model, EmbeddingCache(CACHE_BYTES), prefetch_slices=0)
    predictor.set_volume(volume)
    before_mb, begin = peak_mb(), time.perf_counter()
    for index in range(predictor.slices.frame.count):
        predictor.encoder.embedding(predictor.slices, index)
    encoded = time.perf_counter()
    if predictor.context is not None:
        predictor.context.masker()
    prepared = time.perf_counter()
    corrector, interpreter = load_corrector(predictor.encoder), load_interpreter()
    liver = structures["liver"]
    others = {name: structures[name] for name in NEIGHBOURS}
    truth = _repeated(liver)
    # Not into the lesion, which would be segmented by itself.
    first = next_click_in_volume(truth & ~_repeated(structures[LESION]), np.zeros_like(truth), volume.spacing)
    found = list(_clicks(InteractiveSession(predictor, ["liver"]), volume, truth, first, repeats))
    after_mb = peak_mb()
    for number, (name, (kind, given)) in enumerate(NOTES.items()):
        rng, steps = np.random.default_rng(number), tuple(slice(None, None, step) for step in REPEATED)
        coarse = Volume(volume.array[steps], volume.affine @ np.diag([*REPEATED, 1.0]), "CT")
        error = simulate_error("liver", liver, coarse, others, rng, kind)
        if error is None:
            raise InputError(f"The volume of {'x'.join(map(str, shape))} voxels is too small for the anatomy.")
        note, near = given or write_note(error.intervention, rng), error.intervention.near
        session = InteractiveSession(predictor)
        for other, mask in others.items():
            if other != near or "without" not in name:
                session.set_mask(other, _repeated(mask & ~error.mask))
        session.set_mask("liver", _repeated(error.mask))
        labels, start, before = tuple(session.masks()), session.history, session.mask("liver")

        def carry_out(
            session: InteractiveSession = session,
            start: History = start,
            note: str = note,
            labels: tuple[str, ...] = labels,
        ) -> None:
            session.history = start
            plan = interpreter.invoke(NoteRequest(note, labels)).plan
            session.apply_note(note, plan, corrector, confirm=True)

        seconds = _median_seconds(carry_out, repeats)
        after = session.mask("liver")
        found.append(NoteLatency(f"note: {name}", seconds, dice(before, truth), dice(after, truth)))
    return OrganLatency(encoded - begin, prepared - encoded, found, after_mb, before_mb)


def _generated_ct(shape: tuple[int, int, int]) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
    """Return a CT with repeated voxels, and the masks of its structures before they are repeated."""
    if any(size % step for size, step in zip(shape, REPEATED, strict=True)):
        raise InputError(f"The volume needs even numbers of rows and columns, not {'x'.join(map(str, shape))}.")
    coarse = tuple(size // step for size, step in zip(shape, REPEATED, strict=True))
    spacing = np.array(COVERED_MM) / coarse
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(coarse) - 1) / 2)
    values = draw_abdomen(coarse, affine, np.random.default_rng(PATIENT))
    style = STYLES["ct-portal-venous"]
    levels = np.array([-1000.0, *(style.levels[name] for name in LABELS)], np.float32)
    scan = render_scan(values, affine, levels, style, np.random.default_rng(PATIENT))
    structures = {name: values == LABELS[name] for name in NEIGHBOURS}
    structures[LESION] = values == LABELS[LESION]
    structures["liver"] = (values == LABELS["liver"]) | structures[LESION]
    fine = affine @ np.diag([*(1 / np.array(REPEATED)), 1.0])
    return Volume(np.asfortranarray(_repeated(scan.array)), fine, "CT"), structures


def _repeated(array: NDArray[Any]) -> NDArray[Any]:
    for axis, count in enumerate(REPEATED):
        array = array.repeat(count, axis)
    return array


def _clicks(
    session: InteractiveSession,
    volume: Volume,
    truth: NDArray[np.bool_],
    first: tuple[Voxel, bool] | None,
    repeats: int,
) -> Iterator[NoteLatency]:
    start, mask, chosen = session.history, np.zeros_like(truth), first
    for name in ("click: segments the organ", "click: corrects the organ"):
        if chosen is None:
            return
        voxel, is_positive = chosen

        def click(start: History = start, voxel: Voxel = voxel, is_positive: bool = is_positive) -> None:
            session.history = start
            session.add_point("liver", voxel, positive=is_positive)

        seconds = _median_seconds(click, repeats)
        after = session.mask("liver")
        yield NoteLatency(name, seconds, dice(mask, truth), dice(after, truth))
        start, mask = session.history, after
        chosen = next_click_in_volume(truth, mask, volume.spacing)


def _median_seconds(act: Callable[[], None], repeats: int) -> float:
    """Return the median seconds of an act, after one that warms up."""
    act()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))
