"""Publish gate: measurement of a new adapter version, and its comparison with the current one."""

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
# Suffix of label names for Dice on generated images.
GENERATED = " (generated)"
_GENERATED_STYLES, _GENERATED_ANATOMY = ("ct-portal-venous", "mr-t1"), 90_001


def is_held_out(study: str, share: float) -> bool:
    """Return whether a study is held out, which depends on its name alone and hence never changes.

    Args:
        study: name of the study.
        share: share of the studies that are held out.
    """
    return int.from_bytes(study_digest(study)[:8], "big") < share * 2**64


def study_digest(study: str) -> bytes:
    """Return the SHA-256 of the name of a study."""
    return hashlib.sha256(study.encode()).digest()


def generated_cases(names: Iterable[str]) -> list[Case]:
    """Generate the abdomens that all versions are measured on, with the structures of the given names.

    They reveal a loss of generality after training on few patients.
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
    on_case: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Return the mean Dice of each label over the cases that have it, for segmentation by name.

    Args:
        labels: label prompter of the version.
        cases: images with their structures.
        names: names of the labels; unknown ones have Dice 0.
        plane: plane of the slices.
        suffix: suffix of the names in the result.
        on_case: function called after each case.
    """
    found: dict[str, list[float]] = {}
    predictor = Predictor(labels.model, prefetch_slices=0)
    known = [name for name in names if labels.find(name) is not None]
    for volume, structures in cases:
        label_map = predictor.for_volume(volume, plane).predict_named(known, labels).label_map if known else None
        for name in structures.keys() & set(names):
            score = 0.0
            if label_map is not None and name in known:
                score = dice(label_map == known.index(name) + 1, structures[name])
            found.setdefault(name + suffix, []).append(score)
        on_case()
    return {name + suffix: mean(found[name + suffix]) for name in names if name + suffix in found}


def rejection_reason(
    metrics: Mapping[str, float],
    parent: Mapping[str, float],
    tolerance: float,
    min_dice: float = 0.0,
    min_label_dice: float = 0.0,
) -> str | None:
    """Return a sentence on why a version is not published; None if it is.

    Args:
        metrics: label -> Dice of the version.
        parent: label -> Dice of the current version on the same images; all 0 if there is none.
        tolerance: maximum drop of the Dice of a label.
        min_dice: minimum mean over the labels on the site's own images.
        min_label_dice: minimum of each of these.
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
