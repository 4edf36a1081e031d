"""Measurements of the benchmark across domains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter

from causal_sam.benchmark.json_lines import append_line, read_lines

# JSON has no infinity: it is written as null.
Distance = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value)]


@dataclass(frozen=True)
class Score:
    """Scores of one structure of one held-out case.

    Attributes:
        domain: style or data set of the image, such as "T1 3 T" or "brats T1c".
        shift: difference of the domain from training: "none" (in domain), "scanner", "modality", "anatomy", "data set".
        case: name of the case.
        structure: name of the label.
        dice: Dice coefficient, 0 to 1.
        hd95: 95th percentile of the border distances in mm, infinite if one mask is empty.
        nsd: normalised surface Dice, 0 to 1.
    """

    domain: str
    shift: str
    case: str
    structure: str
    dice: float
    hd95: Distance
    nsd: float


@dataclass(frozen=True)
class Probe:
    """Accuracy of a linear probe that predicts the style of held-out images from a method's features.

    Attributes:
        name: "seen styles" or "unseen styles".
        accuracy: share of images whose style was predicted correctly.
        chance: accuracy of guessing.
        images: number of test images.
        styles: number of styles.
    """

    name: str
    accuracy: float
    chance: float
    images: int
    styles: int


@dataclass(frozen=True)
class Run:
    """One training of one method.

    Attributes:
        protocol: name of the source and target domains.
        seed: seed of the training.
        method: "U-Net", "SAM + adapters", "+ style augmentation", "+ LAD, random vectors" or "+ LAD".
        scores: scores of all held-out cases.
        probes: style probes.
        step_seconds: median time of a training step.
        trainable_share: trainable share of the parameters, 0 to 1.
    """

    protocol: str
    seed: int
    method: str
    scores: tuple[Score, ...]
    probes: tuple[Probe, ...]
    step_seconds: float
    trainable_share: float


_RUN = TypeAdapter(Run)


def append_run(path: Path, run: Run) -> None:
    """Append a run to a file as one line of JSON."""
    append_line(path, _RUN.dump_json(run))


def read_runs(path: Path) -> list[Run]:
    """Read the runs of a file in order; see `read_lines`."""
    return read_lines(path, _RUN.validate_json)
