"""Which cells a correcting click means.

The context network, asked again with the mask so far, mostly answers with that mask: it changes little beyond the
click. A click in a leak means the whole leak. So a logistic regression weighs, for each cell, the network's answers
with and without the mask so far against what the click itself says: how deep in the mask it is, how far the cell is
from it, and how much the cell looks like the prompted places. It was fitted on errors of this product on rendered
bodies (`training/fit_corrections.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.imaging.distances import signed_distance
from causal_sam.volume.network import Context
from causal_sam.volume.prompt_maps import GridPrompts, likeness, nearest_cells

CORRECTION_WEIGHTS = Path(__file__).parent / "weights" / "corrections.json"
FEATURES = (
    "answer",  # logit of the network with all prompts and the mask so far
    "answer, squashed",
    "answer without the mask so far, squashed",
    "likeness to foreground",  # in the network's descriptors, -1 to 1
    "likeness to background",
    "likeness to the click",
    "distance in depths",  # from the click, as a multiple of its depth
    "distance",  # from the click, in 40 mm
    "distance to foreground",  # from the nearest foreground point, in 50 mm
    "distance to the border in depths",
    "depth of the click",  # its distance to the border of the mask so far, logarithm of multiples of 5 mm
    "difference in brightness",  # from the click
)
# A click changes nothing farther from it than this.
REACH_IN_DEPTHS, REACH_MM = 6.0, 15.0
# Logits of the clicked cells, and of cells that the click does not decide: these stay as they are.
CLICKED_LOGIT, UNCHANGED_LOGIT = 3.0, 6.0


class Evidence(NamedTuple):
    """Features of the cells of a grid for a correction by clicks of one kind.

    Attributes:
        features: `FEATURES` of each cell: FxZxYxX.
        undecided: ZxYxX, True for the cells that the click may change: all inside the mask for a background click, all
            outside for a foreground click, as far as it reaches.
        clicked: ZxYxX, True for the cells of the new points.
        inside: ZxYxX, share of each cell that the mask so far covers.
    """

    features: Tensor
    undecided: Tensor
    clicked: Tensor
    inside: Tensor


class CorrectionModel:
    """Logistic regression on `FEATURES`.

    Args:
        weights: 2xF weights and a bias at the end of each row, for background and for foreground clicks.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    @classmethod
    def load(cls, path: Path = CORRECTION_WEIGHTS) -> CorrectionModel:
        """Read the weights of a file that `training/fit_corrections.py` has written."""
        content = json.loads(path.read_text())
        kinds = (content[kind] for kind in ("background", "foreground"))
        return cls(torch.tensor([[*(kind[name] for name in FEATURES), kind["bias"]] for kind in kinds]))

    def logits(self, evidence: Evidence, is_foreground: bool) -> Tensor:
        """Return logits ZxYxX of the corrected mask; cells that the click does not decide stay as they are."""
        weights = self.weights[int(is_foreground)]
        decided = torch.einsum("f,fzyx->zyx", weights[:-1], evidence.features) + weights[-1]
        logits = torch.where(evidence.undecided, decided, UNCHANGED_LOGIT * (2 * evidence.inside - 1))
        return logits.masked_fill(evidence.clicked, CLICKED_LOGIT if is_foreground else -CLICKED_LOGIT)


def gather_evidence(
    context: Context,
    prompts: GridPrompts,
    new: Tensor,
    is_foreground: bool,
    answer: Tensor,
    without_mask: Tensor,
) -> Evidence:
    """Describe each cell of a grid for a correction.

    Args:
        context: context of the grid.
        prompts: all prompts on the grid, with the mask so far.
        new: Nx3 positions of the new points of one kind, in cells; at least one.
        is_foreground: their kind.
        answer: ZxYxX logits of the network for the prompts.
        without_mask: the same without the mask so far.
    """
    assert prompts.mask is not None
    shape, cell_mm = answer.shape, context.cell_mm
    inside = prompts.mask.float()
    border = torch.from_numpy(_distance_to_border(inside.numpy() > 0.5, cell_mm))
    clicked = nearest_cells(new, shape)
    depth = max(float(border[clicked].max()), cell_mm[1])
    away = _distance(new, shape, cell_mm)
    brightness = context.brightness[0, 0].float()
    difference = (brightness - brightness[clicked][:, None, None, None]).abs().amin(0)
    features = torch.stack(
        [
            answer.clamp(-6, 6),
            (answer / 2).tanh(),
            (without_mask / 2).tanh(),
            likeness(context.descriptors, prompts.foreground).mean(0),
            likeness(context.descriptors, prompts.background).mean(0),
            likeness(context.descriptors, new).mean(0),
            (away / depth).clamp(max=8) / 3,
            away.clamp(max=80) / 40,
            _distance(prompts.foreground, shape, cell_mm).clamp(max=100) / 50,
            (border / depth).clamp(max=2),
            torch.full(shape, np.log(depth / 5)),
            difference.clamp(max=0.5) * 4,
        ]
    )
    undecided = ((inside > 0.5) != is_foreground) & (away <= REACH_IN_DEPTHS * depth + REACH_MM)
    is_clicked = torch.zeros(shape, dtype=torch.bool)
    is_clicked[clicked] = True
    return Evidence(features, undecided, is_clicked, inside)


def _distance_to_border(inside: NDArray[np.bool_], cell_mm: Sequence[float]) -> NDArray[np.float32]:
    """Return the distance of all cells to the border of a mask in mm, inside and outside of it.

    The end of the grid counts as border inside of the mask. Without a cell in the mask, which a thin one may not have,
    nothing is near.
    """
    if not inside.any():
        return np.full(inside.shape, REACH_MM, np.float32)
    return np.abs(signed_distance(np.pad(inside, 1), cell_mm))[1:-1, 1:-1, 1:-1].astype(np.float32)


def _distance(points: Tensor, shape: Sequence[int], cell_mm: Sequence[float]) -> Tensor:
    """Return the distance of all cells to the nearest of some points in mm; infinite without points."""
    nearest = torch.full(tuple(shape), torch.inf)
    for point in points:
        axes = [((torch.arange(n) - at) * mm) ** 2 for n, at, mm in zip(shape, point, cell_mm, strict=True)]
        z, y, x = axes
        nearest = torch.minimum(nearest, z[:, None, None] + y[:, None] + x)
    return nearest.sqrt()
