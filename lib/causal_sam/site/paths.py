"""Where accepted labels come from, where versions go, how labels are learnt, and how far an update is."""

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

# Where versions go if nobody says it: in the folder of the data store.
STORE_FOLDER = "causal_sam_adapters"
JOURNAL_FOLDER = "causal_sam_journal"
TRAINING, PROGRESS, LOCK = "training", "progress.json", "lock"
SECONDS_BETWEEN_REPORTS = 2.0
# No update takes longer than a week, or passes more often through what it learns.
MAX_MINUTES, MAX_EPOCHS = 7 * 24 * 60, 10_000


class UpdateError(CausalSamError):
    """An update could not be carried out; the version in use is as it was."""


@dataclass(frozen=True)
class UpdateConfig:
    """How accepted labels are learnt.

    Attributes:
        minutes: of training, at most `MAX_MINUTES`; reading and measuring come on top.
        epochs: passes through all slices instead, if above 0; at most `MAX_EPOCHS`.
        learning_rate: of the label prompt, the highest one.
        adapter_rate: of the adapters.
        labels: names to learn, beside those that the version in use knows; empty for all.
        replay: share of what is shown that is of earlier cases.
        validation: share of the studies that is held out, never to be trained on.
        tolerance: by how much Dice of a label may drop.
        min_dice: least mean Dice of a version that is published, on the site's own images.
        min_label_dice: least Dice of each label there.
        lad: whether images are also seen in other styles, with LAD.
        batch: images of a step in each process.
        pairs: how many anatomies of a step are seen in two styles.
        plane: of the slices.
        seed: of all that is drawn.

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
        self.steps(1)

    def steps(self, count: int, *, amp: bool = False) -> TrainingConfig:
        """How steps are made, for at most ``count`` of them."""
        return TrainingConfig(
            steps=count,
            batch=self.batch,
            pairs=self.pairs,
            learning_rate=self.learning_rate,
            adapter_rate=self.adapter_rate,
            clicked=0.0,  # clicks are answered by the model as it came
            varied=True,
            amp=amp,
            seed=self.seed,
            lad=LadConfig() if self.lad else NO_LAD,
        )


@dataclass(frozen=True)
class SitePaths:
    """Where labels come from, and where versions go.

    Attributes:
        data: folder of the data store.
        store: folder of the adapter store.
        model: name of the model.
        checkpoint: weights of it, instead of its own.
        image_size: side of its input in pixels; None for its own. `ModelSpec` says whether it takes others.
        device: torch device; None for a GPU if there is one.
        values: label name -> value, for label maps whose client did not say it.
        journal: folder of the journal of notes, to learn from them too; None for none.
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
        """Load the model, without adapters."""
        return load_model(self.model, self.checkpoint, image_size=self.image_size, device=self.device)


class Progress:
    """Tells people and the server what an update does, in lines and in a file.

    Args:
        folder: of the file.
        tell: called with each line.
        before: what another process of the same update reported last; {} if it begins here.
    """

    def __init__(self, folder: Path, tell: Callable[[str], object], before: Mapping[str, Any] | None = None) -> None:
        self._path, self._tell = folder / PROGRESS, tell
        self._began, self._message = (before or {}).get("began", time.time()), (before or {}).get("message", "")
        self._last = 0.0

    def __call__(self, phase: str, share: float, text: str = "", **figures: float) -> None:
        """Report.

        Args:
            phase: "reading", "training", "measuring", or what has become of it.
            share: of the whole update that is done.
            text: a line for people; without one this may be left out, so as not to say too much.
            figures: such as the loss.
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
            self._tell(text)


def progress_of(store: Path) -> dict[str, Any]:
    """What the update of an adapter store does, or what the last one did; {} if there was none."""
    try:
        state = json.loads((store / TRAINING / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def processes_for(wanted: int, device: str | None) -> int:
    """How many processes train.

    Args:
        wanted: 0 for one on each GPU, or one where there is none.
        device: torch device; None for GPUs if there are some.

    Raises:
        InputError: there are not so many GPUs or processors.
    """
    gpus = torch.cuda.device_count() if device in (None, "cuda") else 0
    most = gpus or max(2, os.cpu_count() or 1)
    if not 0 <= wanted <= most:
        of = "GPUs" if gpus else "processors"
        raise InputError(f"processes must be 0 to {most}, for the {of} of this machine, and not {wanted}.")
    return wanted or max(1, gpus)


def is_running(store: Path) -> bool:
    """Whether an update of an adapter store runs, in any process."""
    try:
        with (store / TRAINING / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
