"""Read-only access of note interpreters to an image and its masks, and the sides of masks in the body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.corrector import Corrector
from causal_sam.correction.measures import measure_mask
from causal_sam.correction.region import VIEWER_SIGNS
from causal_sam.imaging import Volume, intensity_window, nonempty_slices, slice_axis
from causal_sam.imaging.directions import patient_axes
from causal_sam.notes import ImageSlices
from causal_sam.notes.laterality import side_of
from causal_sam.notes.schema import Direction, Intervention, Plan
from causal_sam.prompting.slices import VolumeSlices

# Structures nearer than this to the midline of the body have no side.
MIDLINE_MM = 15.0
# Air lies below this share of the intensity window.
AIR_LEVEL = 0.05
# Patient axis from inferior to superior.
SUPERIOR_AXIS = 2
# Step along each axis for locating the body.
SAMPLING_STEP = 4


class VolumeContext:
    """A volume with masks; see `causal_sam.notes.NoteContext`.

    Args:
        corrector: corrector for previews.
        slices: all slices of the volume.
        masks: label -> (I, J, K) mask.
        describe: function that describes the style of an image.
    """

    def __init__(
        self,
        corrector: Corrector,
        slices: VolumeSlices,
        masks: Mapping[str, NDArray[np.bool_]],
        describe: Callable[[Volume], str],
    ) -> None:
        self._corrector, self._slices, self._masks, self._describe = corrector, slices, masks, describe

    def measure(self, label: str) -> Mapping[str, Any]:
        """Measure the mask of a label: see `measure_mask`."""
        return measure_mask(label, self._slices.volume, self._masks)

    def style(self) -> str:
        """Describe acquisition and appearance of the image."""
        return self._describe(self._slices.volume)

    def preview(self, intervention: Intervention) -> str:
        """Describe the effect of an intervention, or the objection to it, without applying it.

        Raises:
            InputError: there is no mask of its label, or the model does not support the act.
        """
        plan = Plan(interventions=(intervention,))
        (correction,) = self._corrector.carry_out(plan, self._slices, self._masks).corrections
        return correction.objection or " ".join(filter(None, [f"{correction.effect}.", correction.doubt]))


def slices_in(volume: Volume, masks: Mapping[str, NDArray[np.bool_]]) -> ImageSlices:
    """Return the slices of an image and of each mask, numbered as in the viewer.

    Args:
        volume: image.
        masks: label -> (I, J, K) mask; empty ones have no slices.
    """
    axis = slice_axis(volume)
    patient_axis, sign = patient_axes(volume.affine)[axis]
    count = volume.shape[axis]
    is_reversed = sign != VIEWER_SIGNS[patient_axis]
    nonempty = {}
    for name, mask in masks.items():
        numbers = [count - index if is_reversed else index + 1 for index in nonempty_slices(mask, axis)]
        if numbers:
            nonempty[name] = (min(numbers), max(numbers))
    return ImageSlices(count, float(volume.spacing[axis]), patient_axis == SUPERIOR_AXIS, nonempty)


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
    offsets = {name: float(np.mean(np.argwhere(mask) @ to_right) - middle) for name, mask in unsided.items()}
    return {name: "right" if mm > 0 else "left" for name, mm in offsets.items() if abs(mm) >= MIDLINE_MM}
