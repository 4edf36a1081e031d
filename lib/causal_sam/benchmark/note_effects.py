"""Comparison of plans by their effect: two plans agree if they change the same voxels on a set of masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray

from causal_sam.correction.operators import apply_exact_operator
from causal_sam.correction.region import region_gate
from causal_sam.imaging import Volume, slice_axis
from causal_sam.notes.laterality import OPPOSITES
from causal_sam.notes.schema import Intervention, Plan

Verdict = Literal["right", "question", "wrong", "unsafe"]
Masks = dict[str, NDArray[np.bool_]]

# Orientation and spacing in mm of the label maps.
GRIDS: tuple[tuple[str, tuple[float, float, float]], ...] = (("RAS", (1.0, 1.0, 1.5)), ("ASL", (4.0, 5.0, 4.0)))
CELL = 30  # voxels along each edge of the part of a label map that belongs to one label
RADIUS = 11.0  # voxels; bodies of adjacent cells overlap the border between them
# Share of the voxels changed by either plan that may differ between plans with the same effect.
TOLERANCE = 0.1


def judge(labels: Sequence[str], expected: Sequence[Intervention] | None, plan: Plan) -> Verdict:
    """Judge a plan by its effect on label maps.

    Args:
        labels: labels that are present.
        expected: interventions that the note requests; None if it requires a question.
        plan: plan to judge.

    Returns:
        "right" for the same changed voxels and the same kept labels, or for a required question; "question" if the
        plan asks although acts are expected; "unsafe" if it changes a label that the note protects or does not ask to
        change, or the opposite side of one; "wrong" otherwise.
    """
    if plan.question is not None:
        return "right" if expected is None else "question"
    if expected is None:
        return "wrong"
    if _is_unsafe(expected, plan.interventions):
        return "unsafe"
    if set(expected) == set(plan.interventions):
        return "right"
    is_same = _kept(expected) == _kept(plan.interventions) and has_same_effect(labels, expected, plan.interventions)
    return "right" if is_same else "wrong"


def is_justified(question: str, note: str, labels: Sequence[str]) -> bool:
    """Return whether a question says what is unclear: it names several labels to choose from, or quotes the note."""
    quotes = re.findall(r"\"([^\"]+)\"", question)
    return sum(label in question for label in labels) > 1 or any(each.lower() in note.lower() for each in quotes)


def has_same_effect(labels: Sequence[str], one: Sequence[Intervention], other: Sequence[Intervention]) -> bool:
    """Return whether two lists of interventions change the same voxels on every label map.

    The regions and exact operators are those of the corrector. Acts of the mask decoder change their whole region
    here, since the decoder would see other images.
    """
    named = {name for act in (*one, *other) for name in (act.label, act.near)}
    bounds = sorted({bound for act in (*one, *other) if act.slices for bound in (act.slices[0], act.slices[1] + 1)})
    for grid in range(len(GRIDS)):
        volume, masks = _label_map(tuple(label for label in labels if label in named), grid)
        depth = volume.shape[slice_axis(volume)]
        # Slice numbers of the note, in their order, are distributed over the middle of the label map.
        places = dict(zip(bounds, np.linspace(0.3 * depth, 0.7 * depth, len(bounds)).astype(int).tolist(), strict=True))
        first, second = ([_on_slices(act, places) for act in acts] for acts in (one, other))
        if not _agree(first, second, volume, masks):
            return False
    return True


def _agree(first: Sequence[Intervention], second: Sequence[Intervention], volume: Volume, masks: Masks) -> bool:
    """Return whether two lists of interventions change the same voxels of a label map."""
    results = [_apply(acts, volume, masks) for acts in (first, second)]
    for label, mask in masks.items():
        one, other = (after[label] for after in results)
        if (one ^ other).sum() > TOLERANCE * ((mask ^ one) | (mask ^ other)).sum():
            return False
    for acts, after in ((first, results[1]), (second, results[0])):
        # A small act must not be lost beside a large one: what it changes by itself changes in the other result too.
        for act in acts:
            mask = masks[act.label]
            changed = mask ^ _apply([act], volume, masks)[act.label]
            if (changed & (mask == after[act.label])).sum() > TOLERANCE * changed.sum() and act.label not in _kept(
                acts
            ):
                return False
    return True


def _kept(acts: Sequence[Intervention]) -> set[str]:
    return {act.label for act in acts if act.action == "keep"}


def _is_unsafe(expected: Sequence[Intervention], found: Sequence[Intervention]) -> bool:
    """Return whether an act concerns a label that must not change, or only the opposite side of the requested one."""
    directions: dict[str, set[str | None]] = {}
    for act in expected:
        if act.action != "keep":
            directions.setdefault(act.label, set()).add(act.direction)
    for act in found:
        if act.action == "keep":
            continue
        wanted = directions.get(act.label)
        if wanted is None:
            return True
        is_free = act.direction is None or None in wanted or act.direction in wanted
        if not is_free and OPPOSITES[act.direction or ""] in wanted:
            return True
    return False


def _on_slices(act: Intervention, places: Mapping[int, int]) -> Intervention:
    if act.slices is None:
        return act
    return act.model_copy(update={"slices": (places[act.slices[0]], places[act.slices[1] + 1] - 1)})


def _apply(acts: Sequence[Intervention], volume: Volume, masks: Masks) -> Masks:
    """Apply interventions one after the other; kept labels do not change."""
    now, kept = dict(masks), _kept(acts)
    for act in acts:
        mask = now[act.label]
        if act.label in kept or not mask.any():
            continue
        others = {name: other for name, other in now.items() if name != act.label}
        after = _changed(act, volume, mask, others)
        for name in kept & set(others):
            after = after & ~(others[name] & ~mask)
        now = {name: other & ~(after & ~mask) for name, other in others.items()} | {act.label: after}
    return now


def _changed(act: Intervention, volume: Volume, mask: NDArray[np.bool_], others: Masks) -> NDArray[np.bool_]:
    region = region_gate(act, volume, mask, others)
    if act.action not in ("expand", "shrink", "exclude", "restyle"):
        after = mask.copy()
        after[region.box] = apply_exact_operator(act, region, volume, mask[region.box])
        return after
    inside = region.in_volume(mask.shape) > 0.5
    if act.action == "expand":
        return mask | inside
    if act.action == "restyle":  # every other voxel, so that it differs from growing and from shrinking
        return mask ^ (inside & (np.indices(mask.shape).sum(0) % 2 == 0))
    return mask & ~inside


@lru_cache(64)
def _label_map(labels: tuple[str, ...], grid: int) -> tuple[Volume, Masks]:
    """Return an image and its masks: rough bodies that touch, each with a hole, islands and a part of other tissue."""
    orientation, spacing = GRIDS[grid]
    columns = int(np.ceil(len(labels) ** 0.5))
    shape = (CELL * columns, CELL * columns, CELL + 10)
    rng = np.random.default_rng(grid)
    image = rng.normal(0, 5, shape)
    masks: Masks = {}
    free = np.ones(shape, bool)
    for number, label in enumerate(labels):
        middle = np.array([CELL * (number % columns), CELL * (number // columns), 5]) + CELL / 2
        offsets = (np.indices(shape).T - middle).T
        distance = np.sqrt((offsets**2).sum(0))
        body = distance + rng.normal(0, 0.7, shape) < RADIUS
        # A bridge to each neighbour, so that acts at the border concern both.
        body |= (np.abs(offsets[:2]).min(0) < 3) & (np.abs(offsets[2]) < 3) & (np.abs(offsets).max(0) <= CELL / 2)
        body &= distance > 2.5
        for axis in range(3):
            for sign in (-1, 1):
                island = offsets + sign * np.roll([RADIUS + 2.5, RADIUS - 5, 3], axis)[:, None, None, None]
                body |= (np.abs(island) < 1.5).all(0)
        body &= free
        free &= ~body
        masks[label] = body
        image += np.where(body, 100 + 80 * (offsets.sum(0) > RADIUS), 0)
    affine = np.diag([*spacing, 1.0]) @ inv_ornt_aff(axcodes2ornt(tuple(orientation)), shape)
    return Volume(image.astype(np.float32), affine), masks
