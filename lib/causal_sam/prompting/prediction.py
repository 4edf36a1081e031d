"""Result of a prediction: the masks of the prompted slices, and the data that is needed to refine them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.imaging import FILE_ORDER, SliceFrame


def as_iou(estimate: Tensor) -> float:
    """The model's estimate of an overlap, one number, as an overlap can be: it overshoots [0, 1] a little."""
    return float(estimate.clamp(0, 1))


@dataclass(frozen=True)
class SlicePrediction:
    """Answer for one slice.

    Attributes:
        mask: bool (rows, columns), canonical.
        logits: float32 (rows, columns), canonical; positive is inside.
        low_res_logits: float32 LxL of the model's mask grid; pass it on as ``previous`` to refine the mask.
        predicted_iou: the model's own estimate of the overlap with the truth, in [0, 1].
    """

    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]
    predicted_iou: float


@dataclass(frozen=True)
class Prediction:
    """Answer for one set of prompts.

    Attributes:
        slices: voxel index along ``axis`` -> answer, in ascending order.
        axis: voxel axis perpendicular to the slices.
        shape: shape of the volume, in the file's voxel order.
        frame: turns canonical slices into the file's voxel order.
    """

    slices: dict[int, SlicePrediction]
    axis: int
    shape: tuple[int, ...]
    frame: SliceFrame

    @property
    def mask(self) -> NDArray[np.bool_]:
        """A new bool array in the file's voxel order, False on slices that were not prompted."""
        mask = np.zeros(self.shape, dtype=bool, order=FILE_ORDER)
        for index, answer in self.slices.items():
            self.frame.insert(answer.mask, mask, index)
        return mask

    @property
    def predicted_iou(self) -> float:
        """Mean over the slices."""
        return float(np.mean([answer.predicted_iou for answer in self.slices.values()]))
