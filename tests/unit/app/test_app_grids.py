"""Label maps on another order or a part of the grid of their image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from unit.imaging.grids import ORIENTATIONS, SHAPE, make_affine, reorient

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.directions import RAS_LPS
from serving.grids import on_grid_of

TILT = np.linalg.qr(np.array([[9.0, 1, 2], [-1, 9, 1], [-2, 0, 9]]))[0]
IMAGE = Volume(np.zeros(SHAPE, np.int16), make_affine((0.7, 1.3, 4.1), TILT))
LABEL = np.random.default_rng(0).integers(0, 4, SHAPE, dtype=np.uint8)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_order_of_the_axes(orientation: NDArray) -> None:
    turned = reorient(Volume(LABEL, IMAGE.affine), orientation)
    found = on_grid_of(turned, IMAGE)
    np.testing.assert_array_equal(found, LABEL)
    assert found.dtype == LABEL.dtype


def test_a_part_of_the_grid() -> None:
    affine = IMAGE.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (1, 0, 3)
    part = Volume(LABEL[1:4, :, 3:5], affine)
    expected = np.zeros_like(LABEL)
    expected[1:4, :, 3:5] = part.array
    np.testing.assert_array_equal(on_grid_of(part, IMAGE), expected)
    assert not on_grid_of(Volume(np.zeros((2, 2, 2), np.uint8), affine), IMAGE).any()


def test_rounded_headers_are_the_same_grid() -> None:
    np.testing.assert_array_equal(on_grid_of(Volume(LABEL, IMAGE.affine.round(4)), IMAGE), LABEL)


@pytest.mark.parametrize(
    "change",
    [
        np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # between the voxels
        np.array([[1, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # outside
        np.diag([2.0, 1, 1, 1]),  # larger voxels
        np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # sheared
        RAS_LPS,
    ],
)
def test_other_grids_are_refused(change: NDArray) -> None:
    with pytest.raises(InputError, match="not on the grid"):
        on_grid_of(Volume(LABEL, IMAGE.affine @ change), IMAGE)
