"""Plots of a benchmark across domains, in colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from causal_sam.benchmark.ood.report import Example, FeatureSet

# Okabe and Ito, Color Universal Design, 2008.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P")
# One of the colours is black, which is no colour for a mask on a dark image.
MASK_COLOURS = tuple(colour for colour in COLOURS if colour != "#000000")


def plot_bars(path: Path, summary: Mapping[str, Any]) -> None:
    """Draw Dice with its interval for each domain and method, domains of one shift together.

    Args:
        path: of the PNG to write.
        summary: from `summarise_protocol`.
    """
    methods, domains = summary["methods"], summary["domains"]
    shifts = list(dict.fromkeys(domains.values()))
    # A gap between shifts.
    centres = {domain: n + 0.5 * shifts.index(shift) for n, (domain, shift) in enumerate(domains.items())}
    width = 0.84 / len(methods)
    inches = max(7.0, 2.0 + 1.3 * len(domains))
    figure = Figure(figsize=(inches, 4.8), layout="constrained")
    axis = figure.subplots()
    for m, record in enumerate(methods):
        found = {domain: values["dice"] for domain, values in record["domains"].items() if values["dice"]}
        places = [centres[domain] + (m - (len(methods) - 1) / 2) * width for domain in found]
        values, low, high = (np.array([getattr(e, end) for e in found.values()]) for end in ("value", "low", "high"))
        # Rounding may put a mean outside an interval without width.
        errors = np.maximum(0, [values - low, high - values])
        colour = COLOURS[m % len(COLOURS)]
        axis.bar(places, values, 0.92 * width, color=colour, label=record["method"])
        axis.errorbar(places, values, errors, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
    for shift in shifts:
        members = [centres[domain] for domain, other in domains.items() if other == shift]
        axis.text(np.mean(members), 1.03, shift, ha="center", fontsize=10, fontweight="bold")
        if min(members) > 0:
            axis.axvline(min(members) - 0.75, color="#999999", linewidth=0.8, linestyle=":")
    axis.set_xticks(list(centres.values()), list(centres), rotation=25, ha="right", rotation_mode="anchor")
    axis.set(ylim=(0, 1.1), yticks=np.linspace(0, 1, 6), xlim=(-0.7, max(centres.values()) + 0.7))
    axis.set_ylabel("Dice, mean and 95 % interval")
    axis.set_title(summary["protocol"], fontsize=11)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=int(inches / 2.3), fontsize=9, frameon=False)
    _write(figure, path)


def plot_features(path: Path, features: Mapping[str, FeatureSet]) -> None:
    """Draw each method's features on their first two principal components, by style and by structure.

    Args:
        path: of the PNG to write.
        features: method -> features; a column each.
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
                look = {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
                axis.scatter(*chosen.T, s=18, alpha=0.7, linewidths=0, label=name, **look)
            axis.set_title(f"{method}, by {title}", fontsize=11)
            axis.set_xlabel(f"component 1, {100 * shares[0]:.0f} % of the variance")
            axis.set_ylabel(f"component 2, {100 * shares[1]:.0f} %")
            axis.set(xticks=[], yticks=[])
        axes[-1].legend(title=title, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9, frameon=False)
    _write(figure, path)


def principal_components(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the places of points on their first two principal components.

    Args:
        features: NxC.

    Returns:
        Nx2, and each component's share of the variance; 0 where there is no second one.
    """
    centred = np.asarray(features, float) - np.mean(features, axis=0, dtype=float)
    points, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    shares = lengths**2 / max(float((lengths**2).sum()), np.finfo(float).tiny)
    missing = max(0, 2 - len(lengths))
    return np.pad((points * lengths)[:, :2], ((0, 0), (0, missing))), np.pad(shares[:2], (0, missing))


def plot_examples(path: Path, examples: Sequence[Example], order: Sequence[str]) -> None:
    """Draw each example as a row: the truth, then what each method made of it with the truth's outline.

    Args:
        path: of the PNG to write.
        examples: at least one.
        order: of the methods; others come after them.
    """
    there = dict.fromkeys(method for example in examples for method in example.predictions)
    methods = [method for method in order if method in there] + [method for method in there if method not in order]
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
                axis.imshow(_tinted(example.image, example.predictions[method]))
                _outline(axis, example.truth)
    for axis, title in zip(grid[0], ("truth", *methods), strict=True):
        axis.set_title(title, fontsize=10)
    _write(figure, path)


def _tinted(image: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """HxWx3 in [0, 1]: the image with its structures in colour."""
    colours = np.array([to_rgb(colour) for colour in MASK_COLOURS])
    grey = np.repeat(np.clip(image, 0, 1)[..., None], 3, axis=-1)
    # Structure 1 has the first colour; what is outside of all gets none.
    mixed = 0.5 * grey + 0.5 * colours[(labels - 1) % len(colours)]
    return np.where((labels > 0)[..., None], mixed, grey)


def _outline(axis: Axes, labels: NDArray[np.integer]) -> None:
    for label in np.unique(labels[labels > 0]):
        # White on bright and on dark ground alike.
        for colour, width in (("black", 2.2), ("white", 1.0)):
            axis.contour(labels == label, levels=[0.5], colors=colour, linewidths=width)


def _write(figure: Figure, path: Path) -> None:
    figure.set_dpi(120)
    FigureCanvasAgg(figure).print_png(path)
