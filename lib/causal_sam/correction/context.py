"""Read-only access of note interpreters to an image and its masks, and the sides of masks in the body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.corrector import Corrector
from causal_sam.correction.expectation import plausible_end, probability_beside
from causal_sam.correction.measures import measure_mask
from causal_sam.correction.region import viewer_numbers
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, intensity_window, nonempty_slices, slice_axis
from causal_sam.imaging.directions import patient_axes
from causal_sam.imaging.shape import centroid
from causal_sam.notes import ImageSlices
from causal_sam.notes.laterality import side_of
from causal_sam.notes.request import Plane
from causal_sam.notes.schema import Direction, Intervention, Plan
from causal_sam.prompting.prompts import Voxel
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.prompting.slots import Slot, no_queue
from causal_sam.volume.context import CoarseMask

# Structures nearer than this to the midline of the body have no side.
MIDLINE_MM = 15.0
# Air lies below this share of the intensity window.
AIR_LEVEL = 0.05
# Plane across each patient axis: left to right, posterior to anterior, inferior to superior.
PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
# Step along each axis for locating the body.
SAMPLING_STEP = 4


class ImageContext:
    """A volume with masks; see `causal_sam.notes.NoteContext`.

    Args:
        corrector: corrector for previews.
        slices: all slices of the volume.
        masks: label -> (I, J, K) mask.
        describe: function that describes the style of an image.
        protect: labels that a plan acts on -> labels that it may not change.
        expect: function that maps labels to the coarse masks of those that the context of the volume knows.
        slot: entered around the use of the model, where others use it too.
        clicked: label -> voxels (i, j, k) that somebody clicked as inside of it.
    """

    def __init__(
        self,
        corrector: Corrector,
        slices: VolumeSlices,
        masks: Mapping[str, NDArray[np.bool_]],
        describe: Callable[[Volume], str],
        protect: Callable[[Collection[str]], Collection[str]] = lambda acts_on: (),
        expect: Callable[[Sequence[str]], Mapping[str, CoarseMask]] = lambda labels: {},
        slot: Slot = no_queue,
        clicked: Mapping[str, Sequence[Voxel]] = MappingProxyType({}),
    ) -> None:
        self._corrector, self._slices, self._masks, self._describe = corrector, slices, masks, describe
        self._protect, self._expect, self._slot, self._clicked = protect, expect, slot, clicked

    def measure(self, label: str) -> Mapping[str, Any]:
        """Measure the mask of a label: see `measure_mask`."""
        return measure_mask(label, self._slices.volume, self._masks)

    def style(self) -> str:
        """Describe acquisition and appearance of the image."""
        return self._describe(self._slices.volume)

    def probability_beside(self, label: str) -> Mapping[str, Any]:
        """Compare the mask of a label with where the context of the volume expects it; see `NoteContext`.

        Raises:
            InputError: the label has no mask, or the context does not know it.
        """
        return probability_beside(self._slices, self._mask(label), self._expected(label))

    def plausible_end(self, label: str, direction: Direction) -> Mapping[str, Any]:
        """Say where a label plausibly ends in a direction; see `NoteContext`.

        Raises:
            InputError: the label has no mask, or the context does not know it.
        """
        return plausible_end(self._slices, self._mask(label), self._expected(label), direction)

    def preview(
        self, interventions: Sequence[Intervention], on_slice: Callable[[int], object] = lambda done: None
    ) -> str:
        """Describe the effect of interventions, or the objections to them, without applying them.

        Args:
            interventions: interventions in their order.
            on_slice: called with the number of processed slices; its exceptions end the preview.

        Raises:
            InputError: there is no mask of a label, or the model does not support an act.
        """
        plan, acts_on = Plan(interventions=tuple(interventions)), {act.label for act in interventions}
        expected, locked = self._expect(sorted(acts_on)), self._protect(acts_on)
        with self._slot(on_slice) as while_allowed:
            result = self._corrector.carry_out(
                *(plan, self._slices, self._masks, while_allowed),
                locked=locked,
                coarse=expected,
                clicked=self._clicked,
            )
        sentences = []
        for each in result.corrections:
            sentences.append(each.objection or f"{each.effect}.")
            sentences += [
                f"It reaches {ml:.1f} ml of {name}, which stays as it is." for name, ml in each.spared_ml.items()
            ]
        sentences += [f"In all, {effect}." for effect in result.totals.values()]
        sentences += [f"Has to be confirmed: {doubt}" for doubt in result.doubts]
        return " ".join(sentences)

    def _mask(self, label: str) -> NDArray[np.bool_]:
        if label not in self._masks or not self._masks[label].any():
            raise InputError(f"There is no mask of {label} yet.")
        return self._masks[label]

    def _expected(self, label: str) -> CoarseMask:
        found = self._expect([label]).get(label)
        if found is None:
            raise InputError(f"The context of the volume does not know {label}, so it expects it nowhere.")
        return found


def slices_in(volume: Volume, masks: Mapping[str, NDArray[np.bool_]]) -> ImageSlices:
    """Return the slices of an image and of each mask, numbered as in the viewer.

    Args:
        volume: image.
        masks: label -> (I, J, K) mask; empty ones have no slices.
    """
    axis, numbers, nonempty = slice_axis(volume), viewer_numbers(volume), {}
    for name, mask in masks.items():
        there = numbers[sorted(nonempty_slices(mask, axis))].tolist()
        if there:
            nonempty[name] = (min(there), max(there))
    plane = PLANES[patient_axes(volume.affine)[axis][0]]
    return ImageSlices(volume.shape[axis], float(volume.spacing[axis]), plane == "axial", nonempty, plane)


def sides_in(volume: Volume, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, Direction]:
    """Return the side of the body of each mask, from its position relative to the body in the image.

    Labels with a side in their name and labels at the midline are omitted.

    Args:
        volume: image.
        masks: label -> (I, J, K) mask, not empty.
    """
    unsided = {name: mask for name, mask in masks.items() if side_of(name) is None}
    if not unsided:
        return {}
    every = (slice(None, None, SAMPLING_STEP),) * 3
    body = np.argwhere(intensity_window(volume).apply(np.nan_to_num(volume.array[every])) > AIR_LEVEL) * SAMPLING_STEP
    if not len(body):
        return {}
    to_right = volume.affine[0, :3]
    places = body @ to_right
    # The midline is halfway between the flanks; the centre of mass would depend on bright organs.
    middle = (np.quantile(places, 0.01) + np.quantile(places, 0.99)) / 2
    offsets = {name: float(centroid(mask) @ to_right - middle) for name, mask in unsided.items()}
    return {name: "right" if mm > 0 else "left" for name, mm in offsets.items() if abs(mm) >= MIDLINE_MM}
