"""Scribbles: strokes inside and outside of a structure, which Slicer paints into a label map beside the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.label_names import named_masks, named_values
from causal_sam.prompting.prompts import Strokes
from serving.data.incoming_labels import read_sent
from serving.data.label_set import BACKGROUND, checked_label
from serving.requests.clicks import LABEL_FILE_KEY, roi_of

FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES = "foreground_scribbles", "background_scribbles"


@dataclass(frozen=True)
class Scribbles:
    """The strokes that a user painted for one label.

    Attributes:
        label: its name, as the client writes it.
        shown: (I, J, K) the label as the client shows it; None if its label map has no voxel of the label: a client
            that has not loaded what was segmented before shows nothing either.
        strokes: inside and outside of it.
    """

    label: str
    shown: NDArray[np.bool_] | None
    strokes: Strokes

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
        info = {"label_info": request.get("label_info")}
        if not named_values(info):
            strokes = {BACKGROUND_SCRIBBLES: len(names) + 1, FOREGROUND_SCRIBBLES: len(names) + 2}
            info = {"label_names": {**names, **strokes}}
        masks, _ = named_masks(read_sent(path, volume), info)
        nothing = np.zeros(volume.shape, bool)
        foreground, background = (masks.get(name, nothing) for name in (FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES))
        shown = mask if (mask := masks.get(label)) is not None and mask.any() else None
        if not foreground.any() and not (background.any() and shown is not None):
            raise InputError("Nothing was scribbled: paint at least one stroke inside the structure.")
        return cls(label, shown, Strokes(foreground, background, None if roi is None else tuple(roi)))
