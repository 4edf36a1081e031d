"""What an image and its masks say to those who read notes about them; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.corrector import Corrector
from causal_sam.correction.measures import measure_mask
from causal_sam.imaging import Volume, intensity_window
from causal_sam.notes.laterality import side_of
from causal_sam.notes.schema import Direction, Intervention, Plan
from causal_sam.prompting.slices import VolumeSlices

# Nearer than this to the middle of the body, a structure is on neither side of it.
MIDLINE_MM = 15.0
# Air is darker than this share of the intensity window.
AIR = 0.05
# Of the voxels along each axis one in so many tells where the body is.
SAMPLED = 4


class VolumeContext:
    """A volume with masks; see `causal_sam.notes.NoteContext`.

    Args:
        corrector: for previews.
        slices: of the volume, whole.
        masks: (I, J, K) of all labels by name.
        describe: an image -> its style in words.
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
        """Say how the image was made and looks."""
        return self._describe(self._slices.volume)

    def preview(self, intervention: Intervention) -> str:
        """Say what an intervention would change, or why it would not be done.

        Raises:
            InputError: there is no mask of its label, or it cannot be done at all.
        """
        plan = Plan(interventions=(intervention,))
        (correction,) = self._corrector.carry_out(plan, self._slices, self._masks).corrections
        return correction.objection or str(correction.effect)


def sides_in(volume: Volume, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, Direction]:
    """Return the sides of the body that masks are on, by where the body is in the image.

    Labels whose names say a side, and those at the midline, are left out.

    Args:
        volume: the image.
        masks: (I, J, K) by name, not empty.
    """
    unsided = {name: mask for name, mask in masks.items() if side_of(name) is None}
    if not unsided:
        return {}
    every = (slice(None, None, SAMPLED),) * 3
    body = np.argwhere(intensity_window(volume).apply(np.nan_to_num(volume.array[every])) > AIR) * SAMPLED
    if not len(body):
        return {}
    to_right = volume.affine[0, :3]
    places = body @ to_right
    # Halfway between the flanks: where most of the body's voxels are depends on what is bright.
    middle = (np.quantile(places, 0.01) + np.quantile(places, 0.99)) / 2
    offsets = {name: float(np.mean(np.argwhere(mask) @ to_right) - middle) for name, mask in unsided.items()}
    return {name: "right" if mm > 0 else "left" for name, mm in offsets.items() if abs(mm) >= MIDLINE_MM}
