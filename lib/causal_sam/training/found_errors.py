"""The worst error of a mask that somebody or something made, with the intervention that corrects it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.guard import measure_effect
from causal_sam.imaging import Volume
from causal_sam.imaging.directions import distances_along
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.shape import equivalent_radius, largest_part
from causal_sam.notes.schema import Intervention, Strength
from causal_sam.simulation.errors import DEPTH_SHARES, MIN_CHANGE

# Share of an error that has to lie in a neighbour, beyond the end of a mask or on one side, to be called so.
MAIN_SHARE = 0.6


class FoundError(NamedTuple):
    """An error of a mask.

    Attributes:
        kind: one of the kinds of simulated errors.
        intervention: intervention that a clinician would request.
    """

    kind: str
    intervention: Intervention


def find_error(
    label: str,
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    volume: Volume,
    others: Mapping[str, NDArray[np.bool_]],
) -> FoundError | None:
    """Find the largest connected part of what is wrong with a mask.

    Args:
        label: name of the structure.
        mask: (I, J, K) mask.
        truth: true mask, not empty.
        volume: image.
        others: label -> true mask, for the neighbours.

    Returns:
        The error; None if it is too small to be worth a note, or if nothing of the mask is right.
    """
    if not (mask & truth).any():
        return None
    parts = [largest_part(wrong) for wrong in (mask & ~truth, truth & ~mask)]
    extra, missing = parts
    worst = max(parts, key=np.count_nonzero)
    if worst.sum() < MIN_CHANGE * truth.sum():
        return None
    strength = _strength(worst, mask, volume)
    effect = measure_effect(label, volume, mask, mask ^ worst)
    towards = effect.lost_towards_ml if worst is extra else effect.gained_towards_ml
    main = max(towards, key=towards.__getitem__)
    direction = main if towards[main] >= MAIN_SHARE * sum(towards.values()) else None

    def act(action: str, **fields: str | None) -> Intervention:
        return Intervention.model_validate({"label": label, "action": action, **fields})

    if worst is missing:
        if (ndimage.binary_fill_holes(mask) & worst).sum() >= MAIN_SHARE * worst.sum():
            return FoundError("hole", act("fill"))
        beyond = _beyond_end(worst, mask, volume, direction)
        kind = "missing pole" if beyond else "under on a side" if direction else "under"
        return FoundError(kind, act("expand", direction=direction, strength=strength))
    if not (ndimage.binary_dilation(worst, np.ones((3, 3, 3))) & mask & ~worst).any():
        return FoundError("island", act("remove"))
    in_others = {name: np.count_nonzero(worst & other) for name, other in others.items()}
    near = max(in_others, key=in_others.__getitem__, default=None)
    if near is not None and in_others[near] >= MAIN_SHARE * worst.sum():
        return FoundError("leak", act("exclude", near=near))
    kind = "over on a side" if direction else "over"
    return FoundError(kind, act("shrink", direction=direction, strength=strength))


def _strength(wrong: NDArray[np.bool_], mask: NDArray[np.bool_], volume: Volume) -> Strength:
    """Return the word for the depth of an error, relative to the radius of a ball of the mask's volume."""
    to_border = distance_to(mask if not (mask & wrong).any() else ~mask, volume.spacing)
    share = float(to_border[wrong].max()) / equivalent_radius(mask, volume.spacing)
    if share <= DEPTH_SHARES["slight"][1]:
        return "slight"
    return "moderate" if share <= DEPTH_SHARES["moderate"][1] else "strong"


def _beyond_end(missing: NDArray[np.bool_], mask: NDArray[np.bool_], volume: Volume, direction: str | None) -> bool:
    """Return whether most of what is missing lies beyond the end of a mask in a direction."""
    if direction is None:
        return False
    heights = distances_along(volume.affine, direction, mask.shape)
    return bool((heights[missing] > heights[mask].max()).mean() >= MAIN_SHARE)
