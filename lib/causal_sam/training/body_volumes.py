"""Rendered bodies as volumes with masks, on which the product itself can be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.imaging import Volume
from causal_sam.imaging.frames import DISPLAY
from causal_sam.phantom.bodies import BodySample, BodySampler
from causal_sam.training.context_targets import choose_structures

MAX_STRUCTURES, MIN_VOXELS, MIN_SLICES = 4, 300, 10


class BodyVolume(NamedTuple):
    """A rendered body as a volume with the axes (columns, rows, slices).

    Attributes:
        volume: image.
        structures: some of its structures: name, "" for a shape without one, and mask (I, J, K).
    """

    volume: Volume
    structures: list[tuple[str, NDArray[np.bool_]]]


def body_volumes(folders: Sequence[Path], rng: np.random.Generator) -> Iterator[BodyVolume]:
    """Yield bodies with at least one structure of some size, without end.

    Args:
        folders: folders of named label maps, see `BodySampler`.
        rng: source of randomness.
    """
    sampler = BodySampler(folders, styles=1)
    while True:
        body = sampler.sample(rng)
        if len(body.labels) < MIN_SLICES:
            continue
        structures = [
            (name, _in_file_order(torch.isin(body.labels, torch.tensor(values, dtype=body.labels.dtype)).numpy()))
            for name, values in choose_structures(body, MAX_STRUCTURES, MIN_VOXELS, rng)
        ]
        if structures:
            yield BodyVolume(_volume(body), structures)


def _volume(body: BodySample) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, sign), spacing in zip((2, 1, 0), DISPLAY[body.plane], body.spacing, strict=True):
        affine[axis, column] = sign * spacing
    is_ct = not torch.equal(body.images[0], body.wide[0])
    values = body.wide[0] * 2000 - 1000 if is_ct else body.images[0] * 1000
    array = _in_file_order(values.numpy().round().astype(np.int16))
    return Volume(array, affine, "CT" if is_ct else "MR")


def _in_file_order(slices: NDArray) -> NDArray:
    """Return slices ZxYxX as (X, Y, Z)."""
    return np.ascontiguousarray(slices.transpose(2, 1, 0))
