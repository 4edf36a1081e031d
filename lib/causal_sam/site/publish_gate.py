"""The publish gate: what a new version is measured on, and whether it may replace the one in use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice
from causal_sam.phantom.abdomen import LABELS
from causal_sam.phantom.studies import STYLES, render_study
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.text import canonical

Case = tuple[Volume, dict[str, NDArray[np.bool_]]]
# Suffix of a label name for figures measured on generated images.
GENERATED = " (generated)"
_GENERATED_STYLES, _GENERATED_ANATOMY = ("ct-portal-venous", "mr-t1"), 90_001


def is_held_out(study: str, share: float) -> bool:
    """Whether a study is one of those that are never trained on: by its name alone, so always the same.

    Args:
        study: its name.
        share: of the studies that are held out.
    """
    return int.from_bytes(study_digest(study)[:8], "big") < share * 2**64


def study_digest(study: str) -> bytes:
    """What decides about a study: SHA-256 of its name."""
    return hashlib.sha256(study.encode()).digest()


def generated_cases(names: Iterable[str]) -> list[Case]:
    """Make the abdomens that all versions are measured on, with those structures that have one of the names.

    They show whether a model that learns from few patients still knows what others look like.
    """
    wanted = {canonical(name): name for name in names}
    shown = {wanted[canonical(name)]: value for name, value in LABELS.items() if canonical(name) in wanted}
    if not shown:
        return []
    cases = []
    for style in _GENERATED_STYLES:
        volume, label_map = render_study(STYLES[style], seed=_GENERATED_ANATOMY, anatomy=_GENERATED_ANATOMY)
        cases.append((volume, {name: label_map == value for name, value in shown.items()}))
    return cases


def measure(
    labels: LabelPrompter,
    cases: Sequence[Case],
    names: Sequence[str],
    plane: str,
    suffix: str = "",
    done: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Measure how well labels are found by their names: mean Dice of each over the cases that have it.

    Args:
        labels: what a model was taught.
        cases: images with their structures.
        names: of the labels; what was never taught counts as not found.
        plane: of the slices.
        suffix: put behind each name.
        done: called after each case.
    """
    found: dict[str, list[float]] = {}
    predictor = Predictor(labels.model, ahead=0)
    taught = [name for name in names if labels.find(name) is not None]
    for volume, structures in cases:
        label_map = predictor.for_volume(volume, plane).predict_named(taught, labels).label_map if taught else None
        for name in structures.keys() & set(names):
            score = dice(label_map == taught.index(name) + 1, structures[name]) if name in taught else 0.0
            found.setdefault(name + suffix, []).append(score)
        done()
    return {name + suffix: mean(found[name + suffix]) for name in names if name + suffix in found}


def rejection_reason(
    metrics: Mapping[str, float],
    parent: Mapping[str, float],
    tolerance: float,
    min_dice: float = 0.0,
    min_label_dice: float = 0.0,
) -> str | None:
    """Say why a version is not published, as a sentence; None if it is.

    Args:
        metrics: of the version, by label.
        parent: of the one in use, measured on the same images; all 0 if there is none.
        tolerance: by how much a label may drop.
        min_dice: least mean over the labels on the site's own images.
        min_label_dice: least of each of these.
    """
    dropped = {name: parent[name] - value for name, value in metrics.items() if parent[name] - value > tolerance}
    if dropped:
        worst = max(dropped, key=dropped.__getitem__)
        return (
            f"{worst} would drop from Dice {parent[worst]:.3f} to {metrics[worst]:.3f}, by more than {tolerance:g}: "
            "accept more labels, or train longer."
        )
    before, after = (round(mean(values.values()), 4) if values else 0.0 for values in (parent, metrics))
    if not after:
        return "None of the labels is found with it: accept more labels, or train longer."
    own = {name: value for name, value in metrics.items() if not name.endswith(GENERATED)}
    poorest = min(own, key=own.__getitem__, default=None)
    if poorest is not None and own[poorest] < min_label_dice:
        return (
            f"{poorest} is found with Dice {own[poorest]:.3f} only, below {min_label_dice:g}: accept more labels, "
            "train longer, or choose the others with labels."
        )
    if own and mean(own.values()) < min_dice:
        return (
            f"The mean Dice is {mean(own.values()):.3f} only, below {min_dice:g}: accept more labels, or train longer."
        )
    if after < before:
        return f"The mean Dice would fall from {before:.4f} to {after:.4f}: accept more labels, or train longer."
    return None
