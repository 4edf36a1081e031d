"""Plots of the benchmark across domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causal_sam.benchmark.report import GREY, PALETTE

MARKERS = ("o", "s", "^", "D", "v", "P")
# Black cannot be seen on a dark image.
MASK_COLOURS = np.array([to_rgb(colour) for colour in PALETTE if colour != "#000000"])


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features that one method pooled inside structures of held-out images.

    Attributes:
        features: NxC.
        styles: style of the image of each row.
        structures: name of the structure of each row.
    """

    features: NDArray[np.floating]
    styles: list[str]
    structures: list[str]


@dataclass(frozen=True, eq=False)
class Example:
    """A slice of a held-out case with each method's segmentation.

    Attributes:
        domain: style or data set.
        case: name of the case.
        image: HxW in [0, 1].
        truth: HxW label map, 0 outside all structures.
        predictions: method -> HxW label map with the same values.
    """

    domain: str
    case: str
    image: NDArray[np.floating]
    truth: NDArray[np.integer]
    predictions: dict[str, NDArray[np.integer]]


def plot_bars(scores: pd.DataFrame, title: str) -> Figure:
    """Draw Dice with its interval for each domain and method.

    Args:
        scores: rows with ``domain``, ``shift``, ``method`` and ``dice`` (`Estimate`); domains of one shift together.
        title: title of the plot.
    """
    domains = dict(zip(scores["domain"], scores["shift"], strict=True))
    shifts, methods = list(dict.fromkeys(domains.values())), list(scores["method"].unique())
    # A gap between shifts.
    centres = {domain: n + 0.5 * shifts.index(shift) for n, (domain, shift) in enumerate(domains.items())}
    width = 0.84 / len(methods)
    inches = max(7.0, 2.0 + 1.3 * len(domains))
    figure = Figure(figsize=(inches, 4.8), layout="constrained")
    axis = figure.subplots()
    for m, (method, rows) in enumerate(scores.groupby("method", sort=False)):
        places = [centres[domain] + (m - (len(methods) - 1) / 2) * width for domain in rows["domain"]]
        values, low, high = np.array([(each.value, each.low, each.high) for each in rows["dice"]]).T
        # Rounding may put a mean outside an interval without width.
        errors = np.maximum(0, [values - low, high - values])
        axis.bar(places, values, 0.92 * width, color=PALETTE[m % len(PALETTE)], label=method)
        axis.errorbar(places, values, errors, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
    for shift in shifts:
        members = [centres[domain] for domain, other in domains.items() if other == shift]
        axis.text(float(np.mean(members)), 1.03, shift, ha="center", fontsize=10, fontweight="bold")
        if min(members) > 0:
            axis.axvline(min(members) - 0.75, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xticks(list(centres.values()), list(centres), rotation=25, ha="right", rotation_mode="anchor")
    axis.set(ylim=(0, 1.1), yticks=np.linspace(0, 1, 6), xlim=(-0.7, max(centres.values()) + 0.7))
    axis.set_ylabel("Dice, mean and 95 % interval")
    axis.set_title(title, fontsize=11)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=int(inches / 2.3), fontsize=9, frameon=False)
    return figure


def plot_features(features: Mapping[str, FeatureSet]) -> Figure:
    """Draw each method's features on their first two principal components, by style and by structure.

    Args:
        features: method -> features; each method gets a column.
    """
    figure = Figure(figsize=(1.8 + 4.0 * len(features), 8), layout="constrained")
    grid = figure.subplots(2, len(features), squeeze=False)
    rows = {
        "style": {method: found.styles for method, found in features.items()},
        "structure": {method: found.structures for method, found in features.items()},
    }
    for axes, (title, groups) in zip(grid, rows.items(), strict=True):
        names = list(dict.fromkeys(name for members in groups.values() for name in members))
        for axis, (method, members) in zip(axes, groups.items(), strict=True):
            points, shares = principal_components(features[method].features)
            for n, name in enumerate(names):
                chosen = points[np.array(members) == name]
                look = {"color": PALETTE[n % len(PALETTE)], "marker": MARKERS[n % len(MARKERS)]}
                axis.scatter(*chosen.T, s=18, alpha=0.7, linewidths=0, label=name, **look)
            axis.set_title(f"{method}, by {title}", fontsize=11)
            axis.set_xlabel(f"component 1, {100 * shares[0]:.0f} % of the variance")
            axis.set_ylabel(f"component 2, {100 * shares[1]:.0f} %")
            axis.set(xticks=[], yticks=[])
        axes[-1].legend(title=title, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9, frameon=False)
    return figure


def principal_components(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project features onto their first two principal components.

    Args:
        features: NxC.

    Returns:
        Nx2 coordinates, and each component's share of the variance; 0 for a second component that does not exist.
    """
    centred = np.asarray(features, float) - np.mean(features, axis=0, dtype=float)
    points, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    shares = lengths**2 / max(float((lengths**2).sum()), np.finfo(float).tiny)
    missing = max(0, 2 - len(lengths))
    return np.pad((points * lengths)[:, :2], ((0, 0), (0, missing))), np.pad(shares[:2], (0, missing))


def plot_examples(examples: Sequence[Example], order: Sequence[str]) -> Figure:
    """Draw each example as a row: the truth, then each method's segmentation with the truth's outline.

    Args:
        examples: at least one example.
        order: order of the methods; other methods come after these.
    """
    present = dict.fromkeys(method for example in examples for method in example.predictions)
    methods = [method for method in order if method in present] + [method for method in present if method not in order]
    heights = [example.image.shape[0] / example.image.shape[1] for example in examples]
    size = 2.3
    figure = Figure(figsize=(0.5 + size * (1 + len(methods)), 0.4 + size * sum(heights)), layout="constrained")
    grid = figure.subplots(len(examples), 1 + len(methods), squeeze=False, height_ratios=heights)
    for axes, example in zip(grid, examples, strict=True):
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
        axes[0].set_ylabel(f"{example.domain}\n{example.case}", fontsize=9)
        axes[0].imshow(example.image, cmap="gray", vmin=0, vmax=1)
        _outline(axes[0], example.truth)
        for axis, method in zip(axes[1:], methods, strict=True):
            if method in example.predictions:
                axis.imshow(_overlay(example.image, example.predictions[method]))
                _outline(axis, example.truth)
    for axis, title in zip(grid[0], ("truth", *methods), strict=True):
        axis.set_title(title, fontsize=10)
    return figure


def _overlay(image: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the image with its structures in colour, HxWx3 in [0, 1]."""
    grey = np.repeat(np.clip(image, 0, 1)[..., None], 3, axis=-1)
    # Structure 1 has the first colour; the background stays grey.
    mixed = 0.5 * grey + 0.5 * MASK_COLOURS[(labels - 1) % len(MASK_COLOURS)]
    return np.where((labels > 0)[..., None], mixed, grey)


def _outline(axis: Axes, labels: NDArray[np.integer]) -> None:
    for label in np.unique(labels[labels > 0]):
        # A white line with a black rim is visible on bright and on dark tissue.
        for colour, width in (("black", 2.2), ("white", 1.0)):
            axis.contour(labels == label, levels=[0.5], colors=colour, linewidths=width)
