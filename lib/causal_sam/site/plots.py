"""Plots of an update: the losses, and the Dice of each label before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

# Number of parts of the training whose mean losses are drawn.
PARTS = 50


def draw_update(folder: Path, losses: Path, metrics: Mapping[str, float], parent: Mapping[str, float]) -> None:
    """Draw ``loss.png`` and ``dice.png``.

    Args:
        folder: folder of the plots, created if needed.
        losses: JSON Lines of the update with ``step`` and losses.
        metrics: label -> Dice of the new version.
        parent: label -> Dice of the previous version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _losses(losses).savefig(folder / "loss.png", dpi=110)
    _dice(metrics, parent).savefig(folder / "dice.png", dpi=110)


def _losses(path: Path) -> Figure:
    records = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = [record["step"] for record in records]
    for name, label in (("drafts", "places found by name"), ("decoded", "decoded masks")):
        values = [record[name] for record in records]
        (line,) = axes.plot(steps, values, alpha=0.25, linewidth=0.8)
        parts = np.array_split(np.array([steps, values], float), min(PARTS, len(steps)), axis=1)
        axes.plot(*zip(*(part.mean(axis=1) for part in parts), strict=True), color=line.get_color(), label=label)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.legend()
    return figure


def _dice(metrics: Mapping[str, float], parent: Mapping[str, float]) -> Figure:
    names = list(metrics)
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.barh(rows - 0.2, [parent.get(name, 0.0) for name in names], 0.4, label="version in use before")
    axes.barh(rows + 0.2, [metrics[name] for name in names], 0.4, label="new version")
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set(xlabel="Dice", xlim=(0, 1))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return figure
