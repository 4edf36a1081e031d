"""Log of a training run, for people and for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Prints records, appends them to ``log.jsonl`` and sends them to TensorBoard.

    Args:
        folder: existing folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "log.jsonl").open("a")
        self._writer = SummaryWriter(folder)

    def write(self, record: Mapping[str, float]) -> None:
        """Report the figures of one step, which ``step`` numbers."""
        print("  ".join(f"{name} {value:.4g}" for name, value in record.items()), flush=True)
        self._log.write(json.dumps({name: float(value) for name, value in record.items()}) + "\n")
        self._log.flush()
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, record["step"])
