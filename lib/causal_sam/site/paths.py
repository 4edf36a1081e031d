"""Paths of a site, configuration of its updates, and their progress."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from causal_sam.atomic import atomic_write
from causal_sam.errors import CausalSamError, InputError
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.loading import load_model
from causal_sam.style.lad import NO_LAD, LadConfig
from causal_sam.training.adapters import TrainingConfig

# Default folders of adapter versions and of the journal, in the folder of the data store.
STORE_FOLDER = "causal_sam_adapters"
JOURNAL_FOLDER = "causal_sam_journal"
TRAINING, PROGRESS, LOCK = "training", "progress.json", "lock"
SECONDS_BETWEEN_REPORTS = 2.0
# Upper limits of an update: one week, and passes over the training data.
MAX_MINUTES, MAX_EPOCHS = 7 * 24 * 60, 10_000


class UpdateError(CausalSamError):
    """An update failed; the current version is unchanged."""


@dataclass(frozen=True)
class UpdateConfig:
    """Configuration of an update.

    Attributes:
        minutes: duration of the training, at most `MAX_MINUTES`, without reading and validation.
        epochs: passes over all slices in place of ``minutes`` if above 0; at most `MAX_EPOCHS`.
        learning_rate: maximum learning rate of the label prompt.
        adapter_rate: maximum learning rate of the adapters.
        labels: names to learn in addition to those of the current version; empty for all.
        replay: share of earlier cases in the training data.
        validation: share of the studies that is held out and never trained on.
        tolerance: maximum drop of the Dice of a label.
        min_dice: minimum mean Dice of a published version on the site's own images.
        min_label_dice: minimum Dice of each label there.
        lad: whether LAD is used, with images in two styles.
        batch: images per step in each process.
        pairs: anatomies per step in two styles.
        plane: plane of the slices.
        seed: seed of all random numbers.

    Raises:
        InputError: a number is out of range.
    """

    minutes: float = 10.0
    epochs: int = 0
    learning_rate: float = 3e-3
    adapter_rate: float = 1e-3
    labels: tuple[str, ...] = ()
    replay: float = 0.5
    validation: float = 0.2
    tolerance: float = 0.02
    min_dice: float = 0.5
    min_label_dice: float = 0.2
    lad: bool = True
    batch: int = 8
    pairs: int = 3
    plane: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.epochs <= MAX_EPOCHS:
            raise InputError(f"The number of epochs must be 0 to {MAX_EPOCHS}, not {self.epochs}.")
        if not self.epochs and not 0 < self.minutes <= MAX_MINUTES:
            raise InputError(
                f"An update needs minutes above 0 and at most {MAX_MINUTES}, not {self.minutes}, or a number of epochs."
            )
        for name in ("replay", "validation", "tolerance", "min_dice", "min_label_dice"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        self.training(1)

    def training(self, steps: int, *, amp: bool = False) -> TrainingConfig:
        """Return how adapters are trained: for the minutes of the update, or for ``steps`` where it counts epochs."""
        return TrainingConfig(
            steps=steps,
            minutes=0.0 if self.epochs else self.minutes,
            batch=self.batch,
            pairs=self.pairs,
            learning_rate=self.learning_rate,
            adapter_rate=self.adapter_rate,
            clicked=0.0,  # clicks use the model without adapters
            varied=True,
            amp=amp,
            seed=self.seed,
            lad=LadConfig() if self.lad else NO_LAD,
        )


@dataclass(frozen=True)
class SitePaths:
    """Paths and model of a site.

    Attributes:
        data: folder of the data store.
        store: folder of the adapter store.
        model: name of the model.
        checkpoint: weights in place of the model's own.
        image_size: side of the model's input in pixels; None for the default. See `ModelSpec` for other sizes.
        device: torch device; None for a GPU if available.
        values: label name -> value, for label maps without names.
        journal: folder of the journal of notes, which is also training data; None for none.
    """

    data: Path
    store: Path
    model: str = "compact"
    checkpoint: Path | None = None
    image_size: int | None = None
    device: str | None = None
    values: Mapping[str, int] = field(default_factory=dict)
    journal: Path | None = None

    def load(self) -> CausalSam:
        """Load the model without adapters."""
        return load_model(self.model, self.checkpoint, image_size=self.image_size, device=self.device)


class Progress:
    """Reports the progress of an update, as lines for people and in a file for the server.

    Args:
        folder: folder of the file.
        log: function called with each line.
        before: last report of another process of the same update; None at the start.
    """

    def __init__(self, folder: Path, log: Callable[[str], object], before: Mapping[str, Any] | None = None) -> None:
        self._path, self._log = folder / PROGRESS, log
        self._began, self._message = (before or {}).get("began", time.time()), (before or {}).get("message", "")
        self._last = 0.0

    def __call__(self, phase: str, share: float, text: str = "", **figures: float) -> None:
        """Report the current state.

        Args:
            phase: "reading", "training", "measuring", or the final status.
            share: completed share of the update.
            text: line for people; reports without a line are rate-limited.
            figures: further numbers, such as the loss.
        """
        now = time.time()
        if not text and now - self._last < SECONDS_BETWEEN_REPORTS:
            return
        self._last, self._message = now, text or self._message
        state = {"phase": phase, "share": round(share, 4), "began": self._began, "now": now, **figures}
        state["message"] = self._message
        with atomic_write(self._path) as part:
            part.write_text(json.dumps(state))
        if text:
            self._log(text)


def progress_of(store: Path) -> dict[str, Any]:
    """Return the last report of the current or latest update of an adapter store; {} if there was none."""
    try:
        state = json.loads((store / TRAINING / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def processes_for(wanted: int, device: str | None) -> int:
    """Return the number of training processes.

    Args:
        wanted: requested number; 0 for one per GPU, or one without a GPU.
        device: torch device; None for GPUs if available.

    Raises:
        InputError: there are fewer GPUs or processors.
    """
    gpus = torch.cuda.device_count() if device in (None, "cuda") else 0
    most = gpus or max(2, os.cpu_count() or 1)
    if not 0 <= wanted <= most:
        of = "GPUs" if gpus else "processors"
        raise InputError(f"processes must be 0 to {most}, for the {of} of this machine, and not {wanted}.")
    return wanted or max(1, gpus)


def is_running(store: Path) -> bool:
    """Return whether an update of an adapter store is running in any process."""
    try:
        with (store / TRAINING / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
