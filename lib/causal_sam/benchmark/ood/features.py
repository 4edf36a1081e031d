"""Pooled features of scans, for the style probe and the plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causal_sam.style.lad import pool_inside
from causal_sam.training.style_pairs import LabelledSlices, with_neighbours

# Slices per forward pass.
SLICES_PER_BATCH = 16


@dataclass(frozen=True)
class Features:
    """Features of the slices of a scan.

    Attributes:
        slices: NxC, mean over each slice that shows a structure, or over each slice if none does.
        structures: MxC, mean inside each structure of each slice.
        names: M names of these structures.
    """

    slices: NDArray[np.float32]
    structures: NDArray[np.float32]
    names: list[str]


def pooled_features(
    labelled: LabelledSlices, names: Sequence[str], image_size: int, encode: Callable[[Tensor], Tensor]
) -> Features:
    """Average features over slices and inside structures.

    Args:
        labelled: slices of a scan.
        names: structures of the label map's values, counted from 1.
        image_size: side S of the model's input.
        encode: maps images Bx3xSxS to features BxCxhxw.
    """
    shown = np.flatnonzero(labelled.label_map.any(axis=(1, 2)))
    if not len(shown):  # none of the structures is in this anatomy
        shown = np.arange(len(labelled.label_map))
    image = labelled.image
    values = torch.arange(1, len(names) + 1)[:, None, None]
    slices, structures, found = [], [], []
    for first in range(0, len(shown), SLICES_PER_BATCH):
        indices = shown[first : first + SLICES_PER_BATCH]
        padded = torch.zeros(len(indices), 3, image_size, image_size)
        stacks = torch.from_numpy(np.stack([with_neighbours(image, n) for n in indices]))
        padded[:, :, : image.shape[1], : image.shape[2]] = stacks
        features = encode(padded).float()
        masks = torch.zeros(len(indices), len(names), image_size, image_size)
        label_maps = torch.from_numpy(labelled.label_map[indices])[:, None]
        masks[:, :, : image.shape[1], : image.shape[2]] = (label_maps == values).float()
        inside, present = pool_inside(features, F.adaptive_avg_pool2d(masks, (features.shape[-2], features.shape[-1])))
        slices.append(features.mean((-2, -1)).numpy())
        structures.append(inside[present].numpy())
        found += [names[n] for n in present.nonzero()[:, 1].tolist()]
    return Features(np.concatenate(slices), np.concatenate(structures), found)
