"""Voxels that no act of a plan may change."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.region import kept_part
from causal_sam.imaging import Volume
from causal_sam.notes.schema import Plan


def protected_voxels(
    label: str,
    plan: Plan,
    locked: Collection[str],
    volume: Volume,
    masks: Mapping[str, NDArray[np.bool_]],
    original: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return where the mask of a label must stay as it is.

    It must not grow into labels that are locked or that the plan keeps. If it is one of these itself, it must not
    change at all, or not where the plan keeps it: on one side, or on some slices.

    Args:
        label: label with a mask.
        plan: plan with acts `keep`.
        locked: labels that no act may change.
        volume: image.
        masks: label -> (I, J, K) mask of all labels, after the acts so far.
        original: (I, J, K) mask of the label before the plan, not empty, on which the sides of acts `keep` are found.
    """
    if label in locked:
        return np.ones(volume.shape, bool)
    protected = np.zeros(volume.shape, bool)
    keeps = [act for act in plan.interventions if act.action == "keep"]
    for name in {*locked, *(act.label for act in keeps)} - {label}:
        if name in masks:
            protected |= masks[name]
    protected &= ~masks[label]
    for act in keeps:
        if act.label == label:
            protected |= kept_part(act, volume, original)
    return protected
