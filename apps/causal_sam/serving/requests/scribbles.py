"""Scribbles: strokes inside and outside of a structure, which Slicer paints into a label map beside the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from causal_sam.errors import InputError
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.prompting.prompts import Prompts, Voxel
from causal_sam.site.accepted import names_in_info, values_by_name
from serving.data.incoming_labels import read_sent
from serving.data.label_set import BACKGROUND, checked_label
from serving.requests.clicks import LABEL_FILE_KEY, roi_of

FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES = "foreground_scribbles", "background_scribbles"
# A stroke is shown to the model as points along it, at least so many voxels from each other.
MAX_POINTS = 8
MIN_DISTANCE = 4.0


@dataclass(frozen=True)
class Scribbles:
    """The strokes that a user painted for one label.

    Attributes:
        label: its name.
        mask: of the label as the client shows it; None if its label map has no voxel of the label: a client that has
            not loaded what was segmented before shows nothing either.
        foreground, background: bool (I, J, K), the strokes.
        roi: (i0, i1, j0, j1, k0, k1), ends inclusive, outside of which the structure is not; None without.
    """

    label: str
    mask: NDArray[np.bool_] | None
    foreground: NDArray[np.bool_]
    background: NDArray[np.bool_]
    roi: list[int] | None

    @classmethod
    def from_request(cls, request: Mapping[str, Any], names: Mapping[str, int], volume: Volume) -> Scribbles:
        """Read the strokes of a request.

        Args:
            request: `LABEL_FILE_KEY` has the path of the label map, ``label_info`` says what its values are: a list of
                names with their values (``id``). Without it the values behind those of the label set are strokes
                outside and inside, as in MONAI Label's own scribbles. ``selected_label_name`` is the structure,
                ``roi`` where it is.
            names: the label set, name -> value.
            volume: the image.

        Raises:
            InputError: there is no label map, its voxels are not those of the image, or it has no stroke inside the
                structure and nothing to correct.
        """
        path = request.get(LABEL_FILE_KEY)
        if path is None:
            raise InputError("The scribbles are missing: upload the label map with the strokes as the file label.")
        if request.get("selected_label_name") is None:
            raise InputError("The scribbles are of no label: give the name of a structure as selected_label_name.")
        label = request["selected_label_name"]
        if label in (BACKGROUND, FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES):
            raise InputError(f"selected_label_name must be the name of a structure, not {label!r}.")
        checked_label(label, "selected_label_name")
        roi = roi_of(request, volume.shape)
        named = names_in_info({"label_info": request.get("label_info")})
        painted = read_sent(path, volume)
        if named:
            named = values_by_name(named, [int(value) for value in np.unique(painted) if value > 0])
        else:
            named = {**names, BACKGROUND_SCRIBBLES: len(names) + 1, FOREGROUND_SCRIBBLES: len(names) + 2}
        foreground, background = (
            painted == named.get(name, -1) for name in (FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES)
        )
        mask = painted == named.get(label, -1)
        mask = mask if mask.any() else None
        if not foreground.any() and not (background.any() and mask is not None):
            raise InputError("Nothing was scribbled: paint at least one stroke inside the structure.")
        return cls(label, mask, foreground, background, roi)

    def prompts(self, frame: SliceFrame) -> Prompts:
        """The strokes as points on their slices."""
        return Prompts(tuple(_points(self.foreground, frame)), tuple(_points(self.background, frame)), None)

    def enforced(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The mask with what the user painted, and nothing outside of the region."""
        mask = (mask | self.foreground) & ~self.background
        if self.roi is not None:
            i0, i1, j0, j1, k0, k1 = self.roi
            inside = np.zeros_like(mask)
            inside[i0 : i1 + 1, j0 : j1 + 1, k0 : k1 + 1] = True
            mask &= inside
        return mask


def _points(strokes: NDArray[np.bool_], frame: SliceFrame) -> Iterator[Voxel]:
    """Spread points over the middle lines of the strokes of each slice."""
    across = tuple(axis for axis in range(3) if axis != frame.axis)
    for index in np.flatnonzero(strokes.any(axis=across)).tolist():
        line = np.argwhere(skeletonize(np.ascontiguousarray(frame.extract(strokes, index))))
        nearest = np.full(len(line), np.inf)
        chosen = 0
        for _ in range(MAX_POINTS):
            row, column = line[chosen].tolist()
            yield frame.to_voxel(index, row, column)
            nearest = np.minimum(nearest, np.linalg.norm(line - line[chosen], axis=1))
            chosen = int(nearest.argmax())
            if nearest[chosen] < MIN_DISTANCE:
                break
