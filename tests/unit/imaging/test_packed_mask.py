"""Packed masks: nothing is lost, little is kept, and what is damaged is said."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9))


@given(masks)
def test_packing_loses_nothing(mask: np.ndarray) -> None:
    packed = PackedMask.pack(mask)
    np.testing.assert_array_equal(packed.unpack(), mask)
    again = PackedMask.from_json(json.loads(json.dumps(packed.as_json())))
    np.testing.assert_array_equal(again.unpack(), mask)
    assert again.same_as(packed)


@given(masks, st.data())
def test_other_masks_are_told_apart(mask: np.ndarray, data: st.DataObject) -> None:
    voxel = tuple(data.draw(st.integers(0, size - 1)) for size in mask.shape)
    other = mask.copy()
    other[voxel] ^= True
    assert not PackedMask.pack(other).same_as(PackedMask.pack(mask))


def test_a_packed_mask_is_small() -> None:
    mask = np.zeros((256, 256, 100), bool)
    mask[100:140, 100:140, 50:60] = True
    assert PackedMask.pack(mask).bits.nbytes == 40 * 40 * 10 / 8


@pytest.mark.parametrize(
    "change",
    [
        {"bits": "no base64!"},
        {"bits": "AAAA"},
        {"bits": base64.b64encode(zlib.compress(bytes(8)[:-1])).decode()},
        {"bits": base64.b64encode(zlib.compress(bytes(10**6))).decode()},
        {"bits": base64.b64encode(zlib.compress(bytes(8))[:-1]).decode()},
        {"shape": [2, 2, 2]},
        {"extent": [9, 9, 9]},
        {"corner": [-1, 0, 0]},
        {"shape": None},
        {"shape": [8, 8]},
    ],
)
def test_what_is_damaged_is_said(change: dict) -> None:
    mask = np.zeros((8, 8, 8), bool)
    mask[2:6, 2:6, 2:6] = True
    with pytest.raises(InputError, match="no packed mask, or it is damaged"):
        PackedMask.from_json({**PackedMask.pack(mask).as_json(), **change})
