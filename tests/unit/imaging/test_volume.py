"""What a volume promises, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from causal_sam.errors import InputError
from causal_sam.imaging import Volume

from .grids import make_affine, orientations, reorient, spacings, tilts


@given(orientations, spacings, tilts)
def test_spacing_and_voxel_size_in_every_orientation(orientation, spacing, tilt):
    volume = reorient(Volume(np.zeros((2, 3, 4)), make_affine(spacing, tilt)), orientation)
    assert [volume.spacing[int(axis)] for axis in orientation[:, 0]] == pytest.approx(spacing)
    assert volume.voxel_ml == pytest.approx(np.prod(spacing) / 1000)


def test_the_hash_is_that_of_the_voxels():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    reference = Volume(array, np.eye(4)).content_hash
    assert Volume(np.asfortranarray(array), make_affine((1.0, 2.0, 3.0)), "CT").content_hash == reference
    assert Volume(array.astype(">i2"), np.eye(4)).content_hash == reference
    assert Volume(array[::-1, ::-1][::-1, ::-1], np.eye(4)).content_hash == reference
    others = [array + 1, array.reshape(3, 2, 4), array.astype(np.int32), array[:, ::-1], array.transpose(1, 0, 2)]
    hashes = {Volume(other, np.eye(4)).content_hash for other in others}
    assert len(hashes) == len(others)
    assert reference not in hashes


def test_a_volume_cannot_be_changed_through_itself():
    array = np.zeros((2, 3, 4))
    volume = Volume(array, np.eye(4), tags={"KVP": 120.0})
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2
    with pytest.raises(TypeError):
        volume.tags["KVP"] = 80.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        volume.modality = "MR"
    assert array.flags.writeable


def test_masks_are_volumes_too():
    assert Volume(np.ones((2, 3, 4), bool), np.eye(4)).array.dtype == np.uint8


def test_not_finite_voxels_are_kept():
    array = np.array([[[np.nan, np.inf, 1.0]]])
    assert np.array_equal(Volume(array, np.eye(4)).array, array, equal_nan=True)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.zeros((3, 4)), np.eye(4), "three axes"),
        (np.zeros((3, 4, 5, 2)), np.eye(4), "three axes"),
        (np.zeros((3, 0, 5)), np.eye(4), "at least one voxel"),
        (np.zeros((3, 4, 5), complex), np.eye(4), "real numbers"),
        (np.full((3, 4, 5), np.nan), np.eye(4), "no finite voxel"),
        (np.full((3, 4, 5), np.inf), np.eye(4), "no finite voxel"),
        (np.zeros((3, 4, 5)), np.eye(3), "4x4"),
        (np.zeros((3, 4, 5)), np.full((4, 4), np.nan), "finite"),
        (np.zeros((3, 4, 5)), np.ones((4, 4)), "last row"),
        (np.zeros((3, 4, 5)), np.diag([1.0, 0, 1, 1]), "not invertible"),
    ],
)
def test_what_is_no_volume(array, affine, message):
    with pytest.raises(InputError, match=message) as error:
        Volume(array, affine, source=Path("folder/case.nii"))
    assert "case.nii" in str(error.value)
