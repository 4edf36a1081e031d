"""Guard of corrections: rejects results that contradict the intervention, and measures changes in ml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.region import Region, viewer_numbers
from causal_sam.imaging import Volume, nonempty_slices, slice_axis
from causal_sam.imaging.directions import DIRECTIONS, direction_vector
from causal_sam.imaging.shape import centroid, line_ends
from causal_sam.notes.schema import Intervention, Strength

# Directions of larger changes are measured on a part of their voxels, evenly spread.
MAX_MEASURED = 100_000
# Acts that may add voxels, and acts that may remove them.
MAY_ADD = frozenset({"expand", "fill", "smooth", "restyle"})
MAY_REMOVE = frozenset({"shrink", "exclude", "remove", "keep_largest", "smooth", "restyle"})
# Smoothing may change at most this share of the volume.
MAX_SMOOTHING_CHANGE = 0.1
# Largest plausible changes, as shares of the mask's volume; acts on parts of a good mask have the same limit for all
# strengths. One that says by how many mm is limited like a slight one.
MAX_GROWTH: Mapping[Strength, float] = {"slight": 0.5, "moderate": 1.2, "strong": 3.0}
MAX_SHRINKAGE: Mapping[Strength, float] = {"slight": 0.4, "moderate": 0.65, "strong": 0.85}
MAX_PARTIAL_CHANGE = 0.4
# Largest share of another label that a label takes without being asked for it, and the volume in ml below which it does
# not matter.
MAX_TAKEN_SHARE, MIN_TAKEN_ML = 0.1, 0.1
MINUS = "\N{MINUS SIGN}"
# Share of a change in one direction that is called most of it.
MAIN_SHARE = 0.5
# Largest gain where the context of the volume expects other structures, as a share of all gains and of the mask.
MAX_UNEXPECTED_GAIN, MAX_UNEXPECTED_SHARE = 0.5, 0.1


@dataclass(frozen=True)
class Effect:
    """Change of a mask.

    Attributes:
        label: name of the label.
        gained_ml: added volume in ml.
        lost_ml: removed volume in ml.
        gained_towards_ml: patient direction -> added volume in ml whose offset from the centre of the previous mask,
            relative to the size of the mask, is largest in that direction.
        lost_towards_ml: the same for the removed volume.
        taken_ml: label -> added volume in ml that belonged to this label.
    """

    label: str
    gained_ml: float
    lost_ml: float
    gained_towards_ml: dict[str, float] = field(default_factory=dict)
    lost_towards_ml: dict[str, float] = field(default_factory=dict)
    taken_ml: dict[str, float] = field(default_factory=dict)

    @property
    def amount(self) -> str:
        """The change in words: what is added and removed, and where most of it is."""
        parts = []
        for sign, total, towards in (
            ("+", self.gained_ml, self.gained_towards_ml),
            (MINUS, self.lost_ml, self.lost_towards_ml),
        ):
            if total:
                main = max(towards, key=towards.__getitem__)
                where = f", mostly {main}" if towards[main] >= MAIN_SHARE * total else ""
                parts.append(f"{sign}{in_ml(total)}{where}")
        parts += [f"{in_ml(ml)} of it were {label}" for label, ml in self.taken_ml.items()]
        return "; ".join(parts) or "nothing changes"

    def __str__(self) -> str:
        """Describe the effect in words."""
        return f"{self.label}: {self.amount}"


def in_ml(ml: float) -> str:
    """Return a volume in words, as precise as people need it.

    >>> in_ml(192.81), in_ml(8.46), in_ml(0.031)
    ('193 ml', '8.5 ml', '0.03 ml')
    """
    return f"{ml:.{0 if ml >= 10 else 1 if ml >= 1 else 2}f} ml"


def divide_by_direction(volume: Volume, mask: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the patient direction of voxels: that in which their offset from the centre of a mask is largest.

    Args:
        volume: image.
        mask: (I, J, K) mask, not empty.
        places: Nx3 voxels.

    Returns:
        N indices in `DIRECTIONS`. Offsets are relative to the extent of the mask, so that a layer on top of a flat
        organ counts as superior.
    """
    middle, turn = centroid(mask), volume.affine[:3, :3].T
    size = np.abs((line_ends(mask) - middle) @ turn).max(0) + 0.5 * np.abs(turn).max(0)
    offsets = ((places - middle) @ turn / size).astype(np.float32)
    along = offsets @ np.stack([direction_vector(direction) for direction in DIRECTIONS], 1).astype(np.float32)
    return along.argmax(1) if len(places) else np.zeros(0, np.intp)


def measure_effect(
    label: str,
    volume: Volume,
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> Effect:
    """Measure the difference between two masks.

    Args:
        label: name of the label.
        volume: image of the same shape.
        before: (I, J, K) mask, not empty.
        after: (I, J, K) mask.
        others: label -> mask, for other labels.
    """
    totals, towards = [], []
    for changed in (after & ~before, before & ~after):
        order: Literal["F", "C"] = "F" if changed.flags.f_contiguous else "C"
        every = np.flatnonzero(changed.ravel(order))
        totals.append(len(every) * volume.voxel_ml)
        chosen = every[:: 1 + len(every) // MAX_MEASURED]
        places = np.stack(np.unravel_index(chosen, changed.shape, order), 1)
        counts = np.bincount(divide_by_direction(volume, before, places), minlength=len(DIRECTIONS))
        chosen_ml = volume.voxel_ml * len(every) / max(len(chosen), 1)
        towards.append({d: float(n * chosen_ml) for d, n in zip(DIRECTIONS, counts, strict=True) if n})
    gained = after & ~before
    taken = {}
    if gained.any():
        shared = {name: np.count_nonzero(mask & gained) for name, mask in others.items()}
        taken = {name: voxels * volume.voxel_ml for name, voxels in shared.items() if voxels}
    return Effect(label, totals[0], totals[1], towards[0], towards[1], taken)


def keeps_shape(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Return whether smoothing has changed only the boundary of a mask."""
    return max((after & ~before).sum(), (before & ~after).sum()) <= MAX_SMOOTHING_CHANGE * before.sum()


def find_objection(
    intervention: Intervention,
    region: Region,
    volume: Volume,
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    certainty: float | None = None,
) -> str | None:
    """Return why a corrected mask must be rejected; None if it fulfils the intervention.

    Args:
        intervention: requested intervention.
        region: region in which the mask may change.
        volume: image.
        before: mask, (I, J, K) or in the region's box alone.
        after: mask of the same shape.
        certainty: mean probability of the model's decisions in the region; None without a decision of the model.

    Returns:
        One or two sentences for the clinician.
    """
    act, label = intervention.action, intervention.label
    gained, lost = after & ~before, before & ~after
    if act == "keep":
        return None if not (gained.any() or lost.any()) else f"{label} was to stay as it is, and would have changed."
    outside = gained | lost
    inside = outside if outside.shape == region.weight.shape else outside[region.box]
    inside &= region.weight == 0
    if outside.any():
        return f"{label} would have changed outside of the place that the note names, so nothing was done."
    if gained.any() and act not in MAY_ADD:
        return f"{label} was only to lose volume, and would have gained some, so nothing was done."
    if lost.any() and act not in MAY_REMOVE:
        return f"{label} was only to gain volume, and would have lost some, so nothing was done."
    # A note can delete a mask on all of its slices, once it is confirmed: see `find_doubt`. No other act empties one.
    is_deletion = act == "remove" and intervention.slices is not None
    if not (after.any() or is_deletion):
        return f"Nothing of {label} would be left: say which part is wrong, or clear the label in the viewer."
    if act == "smooth" and not keeps_shape(before, after):
        return f"{label} is too thin to be smoothed: it would lose its shape."
    if not (gained.any() or lost.any()):
        return nothing_to_change(intervention, region, volume, certainty)
    return None


def nothing_to_change(
    intervention: Intervention, region: Region, volume: Volume, certainty: float | None = None
) -> str:
    """Say that an act changes nothing, and what was looked at: the place, its slices, and how sure the model is.

    Args:
        intervention: act.
        region: its region.
        volume: image.
        certainty: see `find_objection`.
    """
    label, near = intervention.label, intervention.near
    click = "click what is missing; a background point (on the page Remove, or Alt+click) marks what is wrong."
    axis = slice_axis(volume)
    touched = nonempty_slices(region.weight, axis)
    if not touched:
        reasons = {"fill": "it has no holes", "remove": "it is in one part", "keep_largest": "it is in one part"}
        if intervention.action not in reasons:
            reason = f"it is not near {near}" if near else "it has nothing in that place"
        elif intervention.direction is None and near is None and intervention.slices is None:
            reason = reasons[intervention.action]
        else:
            reason = "it has nothing in that place"
        return f"There is nothing to change in {label}: {reason}. If that is wrong, {click}"
    numbers = viewer_numbers(volume)[region.box[axis]][sorted(touched)]
    ml = np.count_nonzero(region.weight) * volume.voxel_ml
    place = "".join(
        [
            f" {ml:.1f} ml",
            f" on its {intervention.direction} side" if intervention.direction else "",
            f" near {near}" if near else "",
            f", in slices {numbers.min()} to {numbers.max()}",
        ]
    )
    sure = "" if certainty is None else f", and is {certainty:.0%} sure"
    return f"The model finds nothing to change in {label} there. It looked at{place}{sure}: {click}"


def find_doubt(
    intervention: Intervention,
    effect: Effect,
    volumes_ml: Mapping[str, float],
    unexpected_ml: float = 0.0,
    lost_clicks: int = 0,
) -> str | None:
    """Return why a change has to be confirmed: it is larger or elsewhere than is plausible, or takes another label.

    Nor is it plausible that somebody clicked a place as inside of the label that a note about another place removes.

    Args:
        intervention: requested intervention.
        effect: its effect.
        volumes_ml: label -> volume before in ml, for all labels.
        unexpected_ml: gain in ml outside of the coarse mask that the context of the volume has for the label.
        lost_clicks: number of places that were clicked as inside of the label, and would leave it.

    Returns:
        One sentence for the clinician; None if the change is plausible.
    """
    label = intervention.label
    volume_ml = volumes_ml[label]
    if lost_clicks:
        places = "a place" if lost_clicks == 1 else f"{lost_clicks} places"
        return f"{label} would lose {places} that you clicked as part of it, {effect.lost_ml:.1f} ml in all."
    limit = _limit(intervention) * volume_ml
    for verb, ml in (("gain", effect.gained_ml), ("lose", effect.lost_ml)):
        if ml > limit:
            return f"{label} would {verb} {ml:.1f} ml, {ml / volume_ml:.0%} of its {volume_ml:.1f} ml."
    for other, ml in effect.taken_ml.items():
        if other != intervention.near and ml > max(MIN_TAKEN_ML, MAX_TAKEN_SHARE * volumes_ml[other]):
            return f"{label} would take {ml:.1f} ml of {other}, {ml / volumes_ml[other]:.0%} of it."
    if unexpected_ml > max(MAX_UNEXPECTED_GAIN * effect.gained_ml, MAX_UNEXPECTED_SHARE * volume_ml):
        return f"{label} would gain {unexpected_ml:.1f} ml where the image shows something else."
    return None


def find_total_doubt(acts: Sequence[Intervention], effect: Effect, volumes_ml: Mapping[str, float]) -> str | None:
    """Return why what several acts of a note change in a label together has to be confirmed; see `find_doubt`.

    The limit is the largest of any of the acts: two acts may not do in two steps what one may not do.

    Args:
        acts: acts on the label that were carried out, at least one.
        effect: difference between the mask before the note and after all acts.
        volumes_ml: label -> volume before the note in ml, for all labels.

    Returns:
        One sentence for the clinician; None if the change is plausible.
    """
    label, volume_ml = effect.label, volumes_ml[effect.label]
    for verb, ml, actions in (("gain", effect.gained_ml, MAY_ADD), ("lose", effect.lost_ml, MAY_REMOVE)):
        limit = max((_limit(act) for act in acts if act.action in actions), default=0.0) * volume_ml
        if ml > limit:
            return f"In all, {label} would {verb} {ml:.1f} ml, {ml / volume_ml:.0%} of its {volume_ml:.1f} ml."
    for other, ml in effect.taken_ml.items():
        if other not in {act.near for act in acts} and ml > max(MIN_TAKEN_ML, MAX_TAKEN_SHARE * volumes_ml[other]):
            return f"In all, {label} would take {ml:.1f} ml of {other}, {ml / volumes_ml[other]:.0%} of it."
    return None


def _limit(intervention: Intervention) -> float:
    """Return the largest plausible change by an act, as a share of the mask's volume."""
    strength: Strength = "slight" if intervention.extent_mm else intervention.strength
    limits = {"expand": MAX_GROWTH[strength], "shrink": MAX_SHRINKAGE[strength]}
    return limits.get(intervention.action, MAX_PARTIAL_CHANGE)
