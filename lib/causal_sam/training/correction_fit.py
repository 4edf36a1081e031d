"""The fit of `CorrectionModel`: errors of this product on rendered bodies, and a logistic regression on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from causal_sam.atomic import atomic_write
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.prompting.shipped_context import predictor_with_context
from causal_sam.sam.loading import load_model
from causal_sam.simulation.annotator import next_click_in_volume, random_point
from causal_sam.training.body_volumes import body_volumes
from causal_sam.volume.context import VolumeContext
from causal_sam.volume.corrections import FEATURES

CLICKS = 6
# Cells of each correction that are fitted; each correction counts the same.
MAX_CELLS = 600
REGULARISATION = 0.02  # sklearn's C
# Added to the logits of background and of foreground clicks. The regression is fitted to be right about each cell, but
# a structure that vanishes is a greater loss than a leak that needs another click, and among the many cells outside of
# a mask few belong to the structure.
OFFSETS = (0.3, 1.0)


@dataclass
class Samples:
    """Cells of corrections by one kind of click.

    Attributes:
        features: one NxF array for each correction, columns as `FEATURES`.
        inside: for each, N values, True for the cells that belong to the structure.
    """

    features: list[NDArray[np.float32]] = field(default_factory=list)
    inside: list[NDArray[np.bool_]] = field(default_factory=list)


def collect_samples(
    folders: Sequence[Path], bodies: int, rng: np.random.Generator, log: Callable[[str], object]
) -> tuple[Samples, Samples]:
    """Click structures of rendered bodies, and describe the cells that each correction may change.

    Args:
        folders: folders of named label maps, see `causal_sam.phantom.bodies.BodySampler`.
        bodies: number of bodies.
        rng: source of randomness.
        log: called with a line for each body.

    Returns:
        Samples of background and of foreground clicks.
    """
    predictor, samples = predictor_with_context(load_model("compact")), (Samples(), Samples())
    for number, body in enumerate(islice(body_volumes(folders, rng), bodies)):
        own = predictor.for_volume(body.volume)
        for name, truth in body.structures:
            _annotate(own, name or "shape", truth, body.volume.spacing, samples, rng)
        log(f"body {number + 1} of {bodies}: {' and '.join(str(len(each.inside)) for each in samples)} corrections")
    return samples


def fit(samples: Sequence[Samples]) -> dict[str, dict[str, float]]:
    """Fit the weights of background and of foreground clicks; see `CorrectionModel.load` for the form."""
    weights = {}
    for kind, own, offset in zip(("background", "foreground"), samples, OFFSETS, strict=True):
        counts = np.concatenate([np.full(len(cells), 1 / len(cells)) for cells in own.inside])
        model = LogisticRegression(C=REGULARISATION, max_iter=1000)
        model.fit(np.concatenate(own.features), np.concatenate(own.inside), counts / counts.mean())
        named = {name: round(float(value), 3) for name, value in zip(FEATURES, model.coef_[0], strict=True)}
        weights[kind] = {**named, "bias": round(float(model.intercept_[0]) + offset, 3)}
    return weights


def write_weights(path: Path, weights: dict[str, dict[str, float]]) -> None:
    """Write weights as JSON, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(weights, indent=1) + "\n")


def _annotate(
    predictor: Predictor,
    name: str,
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    samples: tuple[Samples, Samples],
    rng: np.random.Generator,
) -> None:
    """Click one structure, the first time at a random place, and add the samples of the corrections."""
    session, clicked = InteractiveSession(predictor), list[tuple[int, int, int]]()
    shown: dict[bool, list[tuple[int, int, int]]] = {False: [], True: []}
    i, j, k = random_point(truth, rng)
    click: tuple[tuple[int, int, int], bool] | None = ((i, j, k), True)
    while click is not None and len(clicked) < CLICKS:
        voxel, is_foreground = click
        shown[is_foreground].append(voxel)
        mask = session.mask(name) if clicked else np.zeros_like(truth)
        if mask.any() and bool(mask[voxel]) != is_foreground and predictor.context is not None:
            context = predictor.context.masker().context
            assert isinstance(context, VolumeContext)
            answer, evidence = context.evidence(shown[True], shown[False], None, mask, [voxel], name)
            cells = (evidence.undecided & ~evidence.clicked).nonzero()
            cells = cells[torch.from_numpy(rng.permutation(len(cells))[:MAX_CELLS])]
            if len(cells):
                z, y, x = cells.T
                own = samples[int(is_foreground)]
                own.features.append(evidence.features[:, z, y, x].T.numpy())
                own.inside.append((answer.grid.from_voxels(truth)[z, y, x] > 0.5).numpy())
        session.add_point(name, voxel, positive=is_foreground)
        clicked.append(voxel)
        click = next_click_in_volume(truth, session.mask(name), spacing, clicked=clicked)
