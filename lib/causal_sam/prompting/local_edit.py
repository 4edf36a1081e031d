"""Clicks on a mask that is mostly right change it where they are, and not elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging import SliceFrame
from causal_sam.imaging.distances import distance_to, signed_distance

# Changes within so many voxels of a click belong to the click.
NEAR = 2
# Radius around a click within which a change counts, as a multiple of the click's distance from the border: people
# click in the middle of an error, so it ends about as far behind the click.
REACH = 2.0
# Within so many millimetres of a click, and not beyond the border, the click alone decides.
SURE_MM = 3.0
# Millimetre within which what has changed on a slice fades away, on it and across slices (a standard deviation).
FADE_MM = 8.0
# An edit reaches no farther than so many of these.
FARTHEST = 2.5


def apply_edit_near_clicks(
    before: NDArray[np.bool_],
    answer: NDArray[np.bool_],
    foreground: Collection[tuple[int, int]],
    background: Collection[tuple[int, int]],
    spacing_rc: tuple[float, float],
) -> NDArray[np.bool_]:
    """Change a slice with a mask that was not made by clicks, by `progressive_merge`, near the clicks that disagree.

    The farther a click is from the border of the mask, the larger the error that it points at, and the larger the part
    that may change. Where the model does not follow a click, the surroundings of the click change nevertheless.

    Args:
        before: (rows, columns), not empty.
        answer: answer of the model, decided from the clicks.
        foreground: (row, column) of the clicks inside the structure.
        background: (row, column) of the clicks outside it.
        spacing_rc: distance of neighbouring rows and columns in mm.

    Returns:
        A new array, which is as all clicks say.
    """
    clicks = [(click, True, background) for click in foreground]
    clicks += [(click, False, foreground) for click in background]
    contradicting = [(click, inside) for click, inside, _ in clicks if before[click] != inside]
    depth = np.abs(signed_distance(before, spacing_rc))
    near = np.zeros_like(before)
    for click, _ in contradicting:
        near |= _away(click, before.shape, spacing_rc) <= REACH * depth[click]
    answered = [click for click, inside in contradicting if answer[click] == inside]
    result = np.where(near, progressive_merge(before, answer, answered), before)
    for click, inside, others in clicks:
        if before[click] == result[click] == inside:
            continue
        away = _away(click, before.shape, spacing_rc)
        radius = min([SURE_MM, *(away[other] / 2 for other in others)])
        result[(away < depth[click]) & (away <= radius)] = inside
    return result


def _away(click: tuple[int, int], shape: tuple[int, ...], spacing_rc: tuple[float, float]) -> NDArray[np.float64]:
    """Distance of all voxels of a slice from a click in mm."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot((rows - click[0]) * spacing_rc[0], (columns - click[1]) * spacing_rc[1])


def progressive_merge(
    before: NDArray[np.bool_], after: NDArray[np.bool_], clicks: Iterable[tuple[int, ...]], axis: int | None = None
) -> NDArray[np.bool_]:
    """Apply only those changes of a new mask that belong to clicks on the old one.

    The model decides whole slices again and moves borders a little everywhere, which spoils a mask that was drawn by
    hand or segmented by its name. So only connected changes at a click count; lines of one pixel along a border do not
    connect. This is the "progressive merge" of Chen et al., "FocalClick: Towards Practical Interactive Image
    Segmentation" (2022), here also in 3D.

    Args:
        before: mask of a slice or a volume before the clicks.
        after: mask of the same shape, decided from the clicks.
        clicks: voxel indices of the clicks.
        axis: across the slices of a volume; None for a slice.

    Returns:
        The old mask, with what has changed at the clicks; a new array.
    """
    changed = before ^ after
    at = np.zeros_like(changed)
    for click in clicks:
        at[click] = changed[click]
    if not at.any():
        return before.copy()
    # Across the slices a voxel may be as long as a structure is thick.
    cross = ndimage.generate_binary_structure(changed.ndim, 1)
    if axis is not None:
        cross[tuple(slice(None) if n != axis else slice(0, None, 2) for n in range(changed.ndim))] = False
    near = ndimage.binary_dilation(at, cross, iterations=NEAR) & changed
    solid = ndimage.binary_opening(changed, cross)
    parts, _ = ndimage.label(solid)
    asked = (parts > 0) & np.isin(parts, np.unique(parts[near & solid]))
    region = (ndimage.binary_dilation(asked, cross) & changed) | near
    return np.where(region, after, before)


def propagate_edit(
    mask: NDArray[np.bool_],
    before: NDArray[np.bool_],
    index: int,
    clicks: Iterable[tuple[int, int]],
    frame: SliceFrame,
    kept: Collection[int] = (),
) -> NDArray[np.bool_]:
    """Move the borders on neighbouring slices as an edit has moved them on one slice.

    An error on one slice mostly continues on the next ones, where the structure has another outline. So borders move
    by the change of the signed distance to them, which fades with the distance from the slice and from the edit.

    Args:
        mask: (I, J, K), with the edited slice; if that is empty, or has not changed at the clicks, nothing moves.
        before: (rows, columns), the slice as it was, canonical.
        index: index of the slice.
        clicks: (row, column) of the clicks that the edit was made from.
        frame: geometry of the slices.
        kept: indices of slices that stay as they are; nothing changes beyond them, or beyond where the structure ends.

    Returns:
        A new array.
    """
    decision = frame.extract(mask, index)
    changed = before ^ decision
    result = mask.copy()
    at = np.zeros_like(changed)
    for click in clicks:
        at[click] = True
    at_clicks = ndimage.binary_dilation(at, iterations=NEAR) & changed
    if not (at_clicks.any() and before.any() and decision.any()):
        return result
    reach = FARTHEST * FADE_MM
    area = tuple(
        slice(max(int(found[0] - reach / step), 0), int(found[-1] + reach / step) + 2)
        for found, step in zip((np.flatnonzero(changed.any(axis)) for axis in (1, 0)), frame.spacing_rc, strict=True)
    )
    away = distance_to(changed[area], frame.spacing_rc)
    move = _limited_distance(decision[area], frame) - _limited_distance(before[area], frame)
    move *= np.exp(-0.5 * (away / FADE_MM) ** 2)
    for step in (-1, 1):
        for distance in range(1, int(reach / frame.spacing) + 1):
            other = index + step * distance
            if other in kept or not 0 <= other < frame.count or not (here := frame.extract(result, other)).any():
                break
            weight = np.exp(-0.5 * (distance * frame.spacing / FADE_MM) ** 2)
            here[area] = _limited_distance(here[area], frame) + weight * move > 0
    return result


def _limited_distance(mask: NDArray[np.bool_], frame: SliceFrame) -> NDArray[np.float64]:
    """Distance to the border in mm, positive inside; where there is no border, as far as anything reaches."""
    farthest = FARTHEST * FADE_MM
    return np.clip(signed_distance(mask, frame.spacing_rc), -farthest, farthest)
