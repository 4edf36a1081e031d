"""What a benchmark across domains measured: one file, one line a trained model, so that it can be interrupted."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from causal_sam.errors import InputError


@dataclass(frozen=True)
class Score:
    """One structure of one held-out case.

    Attributes:
        domain: style or data set it was tested on, such as "T1 3 T" or "brats T1c".
        shift: how the domain differs from training: "none" (in domain), "scanner", "modality", "anatomy", "data set".
        case: of the data set.
        structure: name of the label.
        dice: Dice coefficient, 0 to 1.
        hd95: 95th percentile of the border distances in millimetre, infinite where one mask is empty.
        nsd: normalised surface Dice, 0 to 1.
    """

    domain: str
    shift: str
    case: str
    structure: str
    dice: float
    hd95: float
    nsd: float


@dataclass(frozen=True)
class Probe:
    """How well a linear probe tells the style of held-out images from a method's features.

    Attributes:
        name: "seen styles" or "unseen styles".
        accuracy: share of the images whose style was told.
        chance: the accuracy of guessing.
        images: number of images it was measured on.
        styles: number of styles to choose from.
    """

    name: str
    accuracy: float
    chance: float
    images: int
    styles: int


@dataclass(frozen=True)
class Run:
    """One method, trained once.

    Attributes:
        protocol: which domains it was trained and tested on.
        seed: of the training.
        method: "U-Net", "SAM + adapters", "+ style augmentation", "+ LAD, random vectors" or "+ LAD".
        scores: of all held-out cases.
        probes: of the style.
        step_seconds: median time of a training step.
        trainable_share: share of the parameters that train, 0 to 1.
    """

    protocol: str
    seed: int
    method: str
    scores: tuple[Score, ...]
    probes: tuple[Probe, ...]
    step_seconds: float
    trainable_share: float


def append_run(path: Path, run: Run) -> None:
    """Add a run to a file as one line of JSON, on the disk when this returns.

    A half-written last line, left by an interruption, is taken away first.
    """
    record = asdict(run)
    for score in record["scores"]:
        # JSON has no infinity.
        score["hd95"] = None if score["hd95"] == float("inf") else score["hd95"]
    line = json.dumps(record, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_runs(path: Path) -> list[Run]:
    """Read the runs of a file in the order they were added; none where there is no file yet.

    A last line without an end was being written when the benchmark was interrupted: it is left out.

    Raises:
        InputError: another line is not a run.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_run(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _run(line: bytes, where: str) -> Run:
    try:
        record = json.loads(line)
        for score in record["scores"]:
            score["hd95"] = float("inf") if score["hd95"] is None else score["hd95"]
        scores = tuple(Score(**score) for score in record.pop("scores"))
        probes = tuple(Probe(**probe) for probe in record.pop("probes"))
        return Run(scores=scores, probes=probes, **record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: this is not a run of the benchmark ({error}).") from error
