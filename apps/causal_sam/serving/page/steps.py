"""The steps of a session in words, such as "+ point, slice 25: spleen +348 ml"."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from causal_sam.correction.region import viewer_numbers
from causal_sam.imaging import Volume
from causal_sam.prompting.history import Step, StepKind
from causal_sam.prompting.label_state import LabelState, is_unnamed, state_of
from causal_sam.prompting.prompts import Voxel

MAX_LABELS = 3
MINUS = "\N{MINUS SIGN}"
ACTS = {
    StepKind.PROMPTS: "prompts",
    StepKind.SCRIBBLE: "scribble",
    StepKind.MASK: "drawing",
    StepKind.NAME: "found by name",
    StepKind.RESET: "emptied",
}


def describe_steps(steps: Sequence[Step], volume: Volume) -> list[str]:
    """Say of each step what was done, and which labels gained or lost how much.

    Args:
        steps: steps of a history, in order; what the first one changed is not known.
        volume: image of the session.
    """
    return [str(steps[0]), *(_describe(before, step, volume) for before, step in pairwise(steps))]


def _describe(before: Step, step: Step, volume: Volume) -> str:
    if step.kind is StepKind.LOCK:
        locked, unlocked = sorted(step.locked - before.locked), sorted(before.locked - step.locked)
        return "; ".join(
            f"{verb} {_listed(names)}" for verb, names in (("locked", locked), ("unlocked", unlocked)) if names
        )
    if step.kind is StepKind.NOTE:
        act = f"note “{step.about}”"
    elif step.kind in (StepKind.PROMPTS, StepKind.SCRIBBLE):
        act = _prompts(before, step, volume)
    else:
        act = ACTS[step.kind]
    changes = _changes(before, step, volume)
    return f"{act}: {_listed(changes)}" if changes else act


def _prompts(before: Step, step: Step, volume: Volume) -> str:
    """Name the prompts that a step added, and their slices."""
    inside: set[Voxel] = set()
    outside: set[Voxel] = set()
    slices: set[tuple[int, int]] = set()
    other = ""
    for name, state in step.labels.items():
        earlier = state_of(before.labels, name, volume.shape)
        if earlier is state or state.axis is None:
            continue
        axis = state.axis
        new_inside = state.points(inside=True) - earlier.points(inside=True)
        new_outside = state.points(inside=False) - earlier.points(inside=False)
        inside |= new_inside
        outside |= new_outside
        slices |= {(axis, voxel[axis]) for voxel in new_inside | new_outside}
        boxes = {index: record.box for index, record in state.slices.items() if record.box is not None}
        new = {index for index, box in boxes.items() if index not in earlier.slices or earlier.slices[index].box != box}
        if new:
            other = "box"
            slices |= {(axis, index) for index in new}
        if state.lasso is not None and state.lasso != earlier.lasso:
            other = "lasso"
    if step.kind is StepKind.SCRIBBLE:
        act = ACTS[step.kind]
    elif len(inside) + len(outside) > 1:
        act = f"{len(inside) + len(outside)} points"
    elif inside or outside:
        act = "+ point" if inside else f"{MINUS} point"
    else:
        act = other or ACTS[step.kind]
    return f"{act}, {_slices(slices, volume)}" if slices else act


def boxes(state: LabelState) -> set[tuple[Voxel, Voxel]]:
    """Boxes that the slices of a label were decided from: two opposite corners, both inside."""
    found = {record.box for record in state.slices.values() if record.box is not None}
    return {((i0, j0, k0), (i1, j1, k1)) for i0, i1, j0, j1, k0, k1 in found}


def _slices(slices: Collection[tuple[int, int]], volume: Volume) -> str:
    numbers = sorted(int(viewer_numbers(volume, axis)[index]) for axis, index in slices)
    first, last = numbers[0], numbers[-1]
    return f"slice {first}" if first == last else f"slices {first} to {last}"


def _changes(before: Step, step: Step, volume: Volume) -> list[str]:
    """Say what labels gained or lost, those that the step is about first."""
    names = [name for name in {**step.labels, **before.labels} if not is_unnamed(name)]
    changes = []
    for name in sorted(names, key=lambda name: name not in step.about):
        now, then = (state_of(each.labels, name, volume.shape).mask for each in (step, before))
        if now is then or now.same_as(then):
            continue
        changes.append(f"{name} {_signed((now.count - then.count) * volume.voxel_ml)}")
    return changes


def _signed(ml: float) -> str:
    digits = 0 if abs(ml) >= 10 else 1
    return f"{MINUS if ml < 0 else '+'}{abs(ml):.{digits}f} ml"


def _listed(parts: Sequence[str]) -> str:
    more = len(parts) - MAX_LABELS
    return ", ".join(parts[:MAX_LABELS]) + (f" and {more} more" if more > 0 else "")
