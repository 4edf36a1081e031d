"""Train methods on source domains and test them in and out of these domains, with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causal_sam.atomic import atomic_write
from causal_sam.benchmark.interactive.targets import slice_targets
from causal_sam.benchmark.metrics import hd95, surface_dice
from causal_sam.benchmark.ood.features import Features
from causal_sam.benchmark.ood.methods import METHODS, Setup, Trained
from causal_sam.benchmark.ood.plots import Example, FeatureSet
from causal_sam.benchmark.ood.protocols import Scan, Split
from causal_sam.benchmark.ood.results import Probe, Run, Score, append_run, read_runs
from causal_sam.imaging import SliceFrame, intensity_window, other_axes, slice_axis
from causal_sam.imaging.overlap import dice
from causal_sam.simulation.annotator import deepest_point
from causal_sam.style.probe import probe_style
from causal_sam.training.style_pairs import LabelledSlices, label_map_of, labelled_slices

RUNS = "runs.jsonl"
SHOWN = "shown"
# Largest distance in mm at which two borders count as equal.
TOLERANCE_MM = 2.0
CLICKED_SLICES = 6
CLICKED_VOXELS = 50


class DomainProtocol(Protocol):
    """The source and target domains of a comparison.

    Attributes:
        name: name in the report.
        prompt: "name" or "click".
    """

    name: str
    prompt: str

    def split(self, seed: int) -> Split:
        """Draw the training and test patients."""


def compare(
    protocol: DomainProtocol,
    setup: Setup,
    methods: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    announce: Callable[[str], object] = lambda text: None,
) -> None:
    """Train and test the methods that a folder has no runs of yet, and append these to `RUNS`.

    Features and example slices of the first seed are saved too.

    Args:
        protocol: source and target domains.
        setup: settings that all methods share.
        methods: keys of `METHODS`.
        seeds: seeds of the division of patients and of the training.
        folder: folder of the runs.
        announce: called with a description of the current step.
    """
    done = {(run.protocol, run.seed, run.method) for run in read_runs(folder / RUNS)}
    for seed in seeds:
        wanted = [key for key in methods if (protocol.name, seed, METHODS[key].name) not in done]
        if not wanted:
            continue
        announce(f"seed {seed}: images")
        size, _ = setup.size_and_device
        split = protocol.split(seed)
        cases = [_labelled(scan, split.labels, size) for scan in split.train]
        fitted, held_out = (
            [(scan.domain, _labelled(scan, split.labels, size)) for scan in scans]
            for scans in (split.probe_train, split.test)
        )
        for key in wanted:
            method = METHODS[key]
            announce(f"seed {seed}: {method.name}")
            trained = method.train(setup, cases, split.labels, seed)
            examples: list[Any] = []
            if protocol.prompt == "click":
                scores = list(_test_clicked(trained, split))
            else:
                scores, examples = _test_named(trained, split, method.name)
            features = [
                [(domain, trained.features(one, split.labels)) for domain, one in part] for part in (fitted, held_out)
            ]
            if seed == seeds[0]:
                _save_shown(folder / SHOWN / f"{key}.npz", features[1], examples)
            probes = tuple(_probes(features[0], features[1], split.shifts))
            figures = (tuple(scores), probes, trained.step_seconds, trained.trainable_share)
            append_run(folder / RUNS, Run(protocol.name, seed, method.name, *figures))


def read_shown(folder: Path) -> tuple[dict[str, FeatureSet], list[Example]]:
    """Read the features by method and the example slice of each domain that `compare` saved."""
    features: dict[str, FeatureSet] = {}
    examples: dict[str, Example] = {}
    for key, method in METHODS.items():
        path = folder / SHOWN / f"{key}.npz"
        if not path.is_file():
            continue
        with np.load(path) as file:
            if len(file["features"]):
                parts = (file["styles"].tolist(), file["structures"].tolist())
                features[method.name] = FeatureSet(file["features"], *parts)
            for domain, case in zip(file["domains"].tolist(), file["cases"].tolist(), strict=True):
                image, truth, answer = (file[f"{domain}/{part}"] for part in ("image", "truth", "answer"))
                example = examples.setdefault(domain, Example(domain, case, image, truth, {}))
                example.predictions[method.name] = answer
    return features, list(examples.values())


def _save_shown(path: Path, features: list[tuple[str, Features]], examples: list[Example]) -> None:
    """Save features and examples of one method atomically.

    Structures that are too small for the grid of the features have no features.
    """
    named = [(domain, name) for domain, each in features for name in each.names]
    arrays: dict[str, NDArray] = {
        "features": np.concatenate([each.structures for _, each in features]),
        "styles": np.array([domain for domain, _ in named], dtype=str),
        "structures": np.array([name for _, name in named], dtype=str),
        "domains": np.array([example.domain for example in examples], dtype=str),
        "cases": np.array([example.case for example in examples], dtype=str),
    }
    for example in examples:
        (answer,) = example.predictions.values()
        arrays |= {
            f"{example.domain}/{k}": v
            for k, v in (("image", example.image), ("truth", example.truth), ("answer", answer))
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _labelled(scan: Scan, labels: Sequence[str], image_size: int) -> LabelledSlices:
    return labelled_slices(scan.volume, scan.structures, labels, image_size, "auto", scan.acquisition)


def _test_named(trained: Trained, split: Split, method: str) -> tuple[list[Score], list[Example]]:
    """Segment whole scans by the names of their structures; return one example slice of each domain too."""
    scores: list[Score] = []
    examples: dict[str, Example] = {}
    for scan in split.test:
        label_map = trained.segment(scan.volume, split.labels)
        for value, name in enumerate(split.labels, start=1):
            truth = scan.structures.get(name)
            if truth is not None and truth.any():
                scores.append(_score(label_map == value, truth, scan, split, name, scan.volume.spacing))
        if scan.domain not in examples:
            examples[scan.domain] = _example(scan, split, label_map, method)
    return scores, list(examples.values())


def _test_clicked(trained: Trained, split: Split) -> Iterator[Score]:
    """Segment each structure on a few slices from one click in its middle."""
    for scan in split.test:
        frame = SliceFrame(scan.volume.affine, scan.volume.shape, slice_axis(scan.volume, "auto"))
        targets = slice_targets(scan.domain, scan.patient, scan.volume, scan.structures, CLICKED_SLICES, CLICKED_VOXELS)
        for target in targets:
            assert target.index is not None
            voxel = frame.to_voxel(target.index, *deepest_point(target.truth))
            mask = trained.segment_clicked(scan.volume, frame, target.index, voxel)
            yield _score(mask, target.truth, scan, split, target.structure, frame.spacing_rc)


def _score(mask: NDArray, truth: NDArray, scan: Scan, split: Split, structure: str, spacing: Sequence[float]) -> Score:
    return Score(
        scan.domain,
        split.shifts[scan.domain],
        scan.patient,
        structure,
        dice(mask, truth),
        hd95(mask, truth, spacing),
        surface_dice(mask, truth, spacing, TOLERANCE_MM),
    )


def _example(scan: Scan, split: Split, label_map: NDArray[np.uint8], method: str) -> Example:
    """Return the slice with the most structures; among several, the one with the largest labelled area."""
    frame = SliceFrame(scan.volume.affine, scan.volume.shape, slice_axis(scan.volume, "auto"))
    truth = label_map_of(scan.structures, split.labels, scan.volume.shape)
    others = other_axes(frame.axis)
    structures = sum((truth == value).any(axis=others).astype(int) for value in range(1, len(split.labels) + 1))
    index = int(np.argmax(structures * truth.size + (truth > 0).sum(axis=others)))
    image, truth, answer = (
        np.ascontiguousarray(frame.extract(array, index)) for array in (scan.volume.array, truth, label_map)
    )
    return Example(scan.domain, scan.patient, intensity_window(scan.volume).apply(image), truth, {method: answer})


def _probes(
    fitted: list[tuple[str, Features]], held_out: list[tuple[str, Features]], shifts: dict[str, str]
) -> Iterator[Probe]:
    """Measure how well styles can be predicted, for the source domains and for the others."""
    for name, seen in (("seen styles", True), ("unseen styles", False)):
        styles = {domain for domain, shift in shifts.items() if (shift == "none") == seen}
        rows = []
        for part in (fitted, held_out):
            chosen = [(domain, features.slices) for domain, features in part if domain in styles]
            rows.append(([d for d, f in chosen for _ in f], [f for _, f in chosen]))
        (styles_fitted, fit), (styles_tested, test) = rows
        if len(set(styles_fitted)) < 2 or not test or not set(styles_tested) <= set(styles_fitted):
            continue
        probed = probe_style(np.concatenate(fit), styles_fitted, np.concatenate(test), styles_tested)
        yield Probe(name, probed.accuracy, probed.chance, len(styles_tested), len(set(styles_fitted)))
