"""What became of labels, in numbers and in a sentence for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from causal_sam.imaging import nonempty_slices
from causal_sam.prompting.label_state import is_unnamed
from causal_sam.prompting.refinement import Refinement
from infers.base import Call


def describe_refinements(
    call: Call, refinements: Mapping[str, Refinement], current: str | None, *, counts_unused: bool
) -> dict[str, Any]:
    """Put what became of labels into numbers, and into one sentence for clients that can show it.

    Args:
        call: request that was answered.
        refinements: refinements of the labels that were prompted; ``current`` is the one that the client works on.
        current: None if the client does not say.
        counts_unused: say how many background points change nothing.
    """
    axis, volume = call.predictor.slices.axis, call.volume
    where = partial(_slices, count=volume.shape[axis])
    labels = {}
    for name, refinement in refinements.items():
        slices = sorted(nonempty_slices(refinement.mask, axis))
        certainty = refinement.state.certainty
        labels[name] = {
            "volume_ml": round(float(np.count_nonzero(refinement.mask)) * volume.voxel_ml, 3),
            "slices": slices,
            "updated_slices": list(refinement.decided),
            "followed_slices": list(refinement.followed),
            "predicted_iou": None if certainty is None else round(certainty, 4),
        }
    shown = labels.get(current) or next(iter(labels.values()))
    said = [
        f"{'the structure' if is_unnamed(name) else name}: {label['volume_ml']:.1f} ml on {where(label['slices'])}"
        for name, label in labels.items()
        if label["slices"] or label["updated_slices"] or name == current
    ]
    message = "; ".join(said) or "nothing is segmented"
    if counts_unused and (unused := sum(refinement.unused for refinement in refinements.values())):
        message += f" ({unused} background clicks lie where there is nothing to correct)"
    spared, locked = call.session.spared, call.session.locked
    if accepted := ", ".join(sorted(spared - locked)):
        message += f"; nothing of {accepted} was taken, which is accepted: click inside of it to take a part"
    if kept := ", ".join(sorted(spared & locked)):
        message += f"; nothing of {kept} was taken, which is locked"
    message += describe_taken(call.taken_ml(refinements))
    return {
        "label": None if is_unnamed(current) else current,
        "predicted_iou": shown["predicted_iou"],
        "volume_ml": shown["volume_ml"],
        "slices": shown["slices"],
        "axis": axis,
        "labels": {name: label for name, label in labels.items() if not is_unnamed(name)},
        "message": f"{message}.",
    }


def describe_taken(taken_ml: Mapping[str, float]) -> str:
    """Say what labels lost in a step for others, as the end of a sentence; nothing if none did."""
    lost = " and ".join(f"{ml:.1f} ml from {name}" for name, ml in taken_ml.items())
    return lost and f"; took {lost}: undo and lock {'it' if len(taken_ml) == 1 else 'them'} to prevent that"


def _slices(indices: Collection[int], count: int) -> str:
    if len(indices) == count > 1:
        return f"all {count} slices of the image: check its ends"
    return f"{len(indices)} slice{'' if len(indices) == 1 else 's'}"
