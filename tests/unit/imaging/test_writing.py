"""Masks come back voxel by voxel, at the same place of the patient for every reader."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from causal_sam.errors import InputError
from causal_sam.imaging import MASK_EXTENSIONS, Volume, read_volume, write_mask
from causal_sam.imaging.writing import stream_image

from .grids import SHAPE, make_affine, positions, volumes

# NIfTI keeps its affine in single precision; the tests' patients are 640 mm tall.
PRECISION_MM = 2e-3
# And its qform as three quarters of a quaternion, whose last, left out, is lost in rounding near half a turn.
QFORM_ANGLE = 2e-3


def corners(volume: Volume) -> list[tuple[int, int, int]]:
    i, j, k = (size - 1 for size in volume.shape)
    return [(0, 0, 0), (i, 0, 0), (0, j, 0), (0, 0, k), (i, j, k)]


@pytest.mark.parametrize("extension", MASK_EXTENSIONS)
@settings(max_examples=40)
@given(volume=volumes())
def test_every_reader_finds_the_mask_on_the_grid_of_its_image(extension, volume):
    mask = (volume.array % 5).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = write_mask(mask, volume, Path(folder) / f"mask{extension}")
        again = read_volume(path)
        assert again.array.dtype == np.uint8
        assert np.array_equal(again.array, mask)
        np.testing.assert_allclose(again.affine, volume.affine, atol=PRECISION_MM)

        where = positions(volume.affine, volume.shape)
        image = sitk.ReadImage(str(path))
        assert np.array_equal(sitk.GetArrayFromImage(image).T, mask)
        for voxel in corners(volume):
            lps = np.array(image.TransformIndexToPhysicalPoint(voxel))
            np.testing.assert_allclose(lps * (-1, -1, 1), where[voxel], atol=PRECISION_MM)

        if extension != ".nrrd":
            header = nibabel.load(path).header
            assert header["sform_code"] == header["qform_code"] == 1
            np.testing.assert_allclose(header.get_sform(), volume.affine, atol=PRECISION_MM)
            np.testing.assert_allclose(header.get_qform(), volume.affine, atol=QFORM_ANGLE * max(volume.spacing))


def like() -> Volume:
    return Volume(np.zeros(SHAPE), make_affine((1.0, 2.0, 3.0)))


@pytest.mark.parametrize("extension", MASK_EXTENSIONS)
@pytest.mark.parametrize(
    ("mask", "dtype"),
    [(np.ones(SHAPE, bool), np.uint8), (np.full(SHAPE, 255), np.uint8), (np.full(SHAPE, 256), np.uint16)],
)
def test_the_smallest_type_that_holds_the_labels(mask, dtype, extension, tmp_path):
    path = write_mask(mask, like(), tmp_path / f"mask{extension}")
    assert read_volume(path).array.dtype == dtype
    assert np.array_equal(read_volume(path).array, mask)


def test_a_type_can_be_asked_for(tmp_path):
    assert (
        read_volume(write_mask(np.ones(SHAPE, int), like(), tmp_path / "m.nii", dtype="int16")).array.dtype == np.int16
    )
    with pytest.raises(InputError, match="Label 300 does not fit"):
        write_mask(np.full(SHAPE, 300), like(), tmp_path / "n.nii", dtype=np.uint8)


def test_nrrd_is_compressed_or_not(tmp_path):
    mask = np.zeros((64, 64, 64), bool)
    packed = write_mask(mask, Volume(mask, np.eye(4)), tmp_path / "packed.nrrd")
    raw = write_mask(mask, Volume(mask, np.eye(4)), tmp_path / "raw.nrrd", compress=False)
    assert packed.stat().st_size < mask.size / 20 < mask.size < raw.stat().st_size
    assert np.array_equal(read_volume(packed).array, read_volume(raw).array)


@pytest.mark.parametrize(
    ("mask", "name", "message"),
    [
        (np.zeros((5, 6, 8), bool), "m.nii.gz", r"\(5, 6, 8\), its image \(5, 6, 7\)"),
        (np.zeros((6, 5, 7), bool), "m.nii.gz", "must be the same"),
        (np.full(SHAPE, -1), "m.nii.gz", "0 to 65535"),
        (np.full(SHAPE, 65536), "m.nrrd", "0 to 65535"),
        (np.full(SHAPE, 0.5), "m.nrrd", "0 to 65535"),
        (np.zeros(SHAPE, bool), "m.png", "not as m.png"),
        (np.zeros(SHAPE, bool), "nowhere/m.nii", "does not exist"),
    ],
)
def test_refused_masks_leave_no_file(mask, name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_mask(mask, like(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", MASK_EXTENSIONS)
def test_an_interrupted_write_leaves_the_old_file_whole(extension, tmp_path, monkeypatch):
    path = write_mask(np.ones(SHAPE, bool), like(), tmp_path / f"mask{extension}")
    before = path.read_bytes()

    def fail(source, target):
        assert Path(source).stat().st_size > 0
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mask(np.zeros(SHAPE, bool), like(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("kind", "sent"), [("<i2", "<i2"), (">i2", "<i2"), ("u1", "u1"), ("<f8", "<f4"), ("<i8", "<f4"), ("<f4", "<f4")]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_image_is_streamed_in_parts_as_nifti(kind, sent, order, monkeypatch):
    monkeypatch.setattr("causal_sam.imaging.writing.PART_BYTES", 100)
    array = np.asarray(np.arange(5 * 6 * 7).reshape(5, 6, 7) % 200, kind, order=order)
    affine = make_affine((1, 2, 3))
    size, parts = stream_image(Volume(array[::-1], affine))
    found = list(parts)
    assert len(found) > 3
    assert size == len(b"".join(found))
    image = nibabel.Nifti1Image.from_bytes(b"".join(found))
    assert image.get_data_dtype() == np.dtype(sent)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array[::-1])
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
