"""Small parts of masks that lie apart from the rest."""

from __future__ import annotations

import numpy as np

from causal_sam.imaging import PackedMask
from causal_sam.imaging.stray_parts import MAX_ML, stray_parts

SHAPE = (40, 30, 12)


def body() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[5:20, 5:20, 3:9] = True
    return mask


def test_small_parts_apart_from_the_rest_are_found_and_nothing_else() -> None:
    mask = body()
    mask[30:32, 3:5, 2] = True
    mask[35, 25, 10] = True
    mask[20, 20, 9] = True  # touches the body at a corner
    found = stray_parts(PackedMask.pack(mask), voxel_ml=0.01)
    assert found is not None
    assert (found.count, found.voxels) == (2, 5)
    np.testing.assert_array_equal(mask & ~found.mask, mask & (np.arange(SHAPE[0]) < 25)[:, None, None])
    assert found.place in {(i, j, 2) for i in (30, 31) for j in (3, 4)}


def test_large_parts_are_parts_of_the_label() -> None:
    mask = body()
    mask[25:32, 5:12, 3:6] = True
    assert stray_parts(PackedMask.pack(mask), voxel_ml=0.01) is None
    few = body()
    few[30:32, 3:5, 2:4] = True
    assert stray_parts(PackedMask.pack(few), voxel_ml=MAX_ML / 8) is None
    for whole in (body(), np.zeros(SHAPE, bool)):
        assert stray_parts(PackedMask.pack(whole), voxel_ml=0.01) is None
