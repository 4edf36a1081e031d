"""Files are read voxel by voxel and at the place that ITK, and so the viewers, give them; broken ones say so."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from PIL import Image

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import Volume, read_volume

from .grids import ORIENTATIONS, SHAPE, make_affine, positions, reorient, to_itk, volumes

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def array() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, make_affine((1.0, 2.0, 3.0)) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("extension", ["nii.gz", "nrrd", "mha"])
@settings(max_examples=30)
@given(volume=volumes())
def test_files_of_itk(extension, volume, tmp_path_factory):
    path = tmp_path_factory.mktemp("itk") / f"image.{extension}"
    sitk.WriteImage(to_itk(volume), str(path))
    again = read_volume(path)
    assert np.array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=2e-3)
    assert again.source == path


def test_nifti_in_every_orientation(array, tmp_path):
    for orientation in ORIENTATIONS:
        volume = reorient(Volume(array, make_affine((1.0, 2.0, 3.0))), orientation)
        again = read_volume(write_nifti(tmp_path / "a.nii", volume.array, volume.affine))
        assert np.array_equal(again.array, volume.array)
        np.testing.assert_allclose(again.affine, volume.affine, atol=1e-3)


def test_nifti_without_any_form_lies_where_itk_puts_it(array, tmp_path):
    image = nibabel.Nifti1Image(array, None)
    image.header.set_zooms((1.0, 2.0, 3.0))
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    itk = sitk.ReadImage(str(tmp_path / "a.nii"))
    for voxel in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6)]:
        place = positions(volume.affine, SHAPE)[voxel]
        assert place * (-1, -1, 1) == pytest.approx(itk.TransformIndexToPhysicalPoint(voxel))


def test_nifti_of_integers_with_a_slope(array, tmp_path):
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert nibabel.load(tmp_path / "a.nii.gz").dataobj.slope == 0.5
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array * 0.5 - 1024)
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).T)


def test_flat_nifti_and_trailing_axes(array, tmp_path):
    assert read_volume(write_nifti(tmp_path / "a.nii", array[:, :, 0])).shape == (5, 6, 1)
    assert read_volume(write_nifti(tmp_path / "b.nii", array[..., None])).shape == SHAPE
    nibabel.save(nibabel.Nifti1Image(array[:, :, 0], None), tmp_path / "c.nii")
    assert read_volume(tmp_path / "c.nii").shape == (5, 6, 1)


def test_nan_is_kept(tmp_path):
    array = np.ones(SHAPE, np.float32)
    array[0, 0, 0] = np.nan
    again = read_volume(write_nifti(tmp_path / "a.nii.gz", array)).array
    assert np.isnan(again[0, 0, 0])
    assert np.isnan(again).sum() == 1


@pytest.mark.parametrize(
    ("values", "modality"),
    [
        *(((-1024, 60), "CT"), ((0, 900), ""), ((-3, 3), "")),
        *(((-150, 240), ""), ((np.nan, -1000), "CT"), ((-np.inf, 5), "")),
    ],
)
def test_modality_is_guessed_from_air(values, modality, tmp_path):
    array = np.resize(np.array(values, np.float32), SHAPE)
    for extension in ("nii.gz", "nrrd", "mha"):
        path = tmp_path / f"a.{extension}"
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        assert read_volume(path).modality == modality, extension


def test_a_single_wrong_voxel_makes_no_ct(tmp_path):
    array = np.full((20, 20, 20), 100, np.int16)
    array[0, 0, 0] = -1000
    assert read_volume(write_nifti(tmp_path / "a.nii", array)).modality == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(dtype, tmp_path):
    rows = np.arange(24, dtype=dtype).reshape(4, 6) * (10 if dtype == np.uint8 else 1000)
    Image.fromarray(rows).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.shape == (6, 4, 1)
    assert np.array_equal(volume.array[:, :, 0].T, rows)
    assert volume.affine.tolist() == np.diag([-1.0, -1.0, 1.0, 1.0]).tolist()


def test_grey_saved_as_colour_is_grey(tmp_path):
    rows = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for mode in ("RGB", "RGBA"):
        Image.fromarray(rows).convert(mode).save(tmp_path / "a.png")
        assert np.array_equal(read_volume(tmp_path / "a.png").array[:, :, 0].T, rows)
    palette = Image.fromarray(rows).convert("P")
    palette.putpalette([255 - n // 3 for n in range(768)])
    palette.save(tmp_path / "b.png")
    assert np.array_equal(read_volume(tmp_path / "b.png").array[:, :, 0].T, 255 - rows)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4, 5, 2, 3), np.float32),
        np.zeros((3, 4, 5), np.complex64),
        np.full((3, 4, 5), np.nan, np.float32),
    ],
    ids=["vectors in time", "complex", "all NaN"],
)
@pytest.mark.filterwarnings("error")
def test_nifti_that_is_no_volume(array, tmp_path):
    path = write_nifti(tmp_path / "case.nii", array)
    with pytest.raises(InputError, match=r"case\.nii"):
        read_volume(path)


@pytest.mark.parametrize("extension", ["nrrd", "mha"])
@pytest.mark.parametrize(("shape", "vectors"), [((6, 5, 4, 3, 2), False), ((5, 4, 3, 2, 3), True)])
def test_itk_files_that_are_no_volume(extension, shape, vectors, tmp_path):
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros(shape, np.uint8), isVector=vectors), str(tmp_path / f"a.{extension}")
    )
    with pytest.raises(InputError, match="must be a 2D or 3D image, or frames of one, with one number for each voxel"):
        read_volume(tmp_path / f"a.{extension}")


def test_complex_numbers_are_not_two_frames(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.full(SHAPE, 1 + 2j, np.complex64)), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match=r"a\.nrrd must be real numbers"):
        read_volume(tmp_path / "a.nrrd")


def test_an_affine_that_cannot_be_inverted(array, tmp_path):
    path = write_nifti(tmp_path / "a.nii", array)
    content = bytearray(path.read_bytes())
    content[280:328] = struct.pack("<12f", *[0.0] * 12)  # srow_x, srow_y, srow_z
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii has no place in the patient: its sform is sheared or singular"):
        read_volume(path)


@pytest.mark.parametrize("extension", ["nii", "nii.gz", "nrrd", "mha", "png", "jpg", "dcm", "unknown"])
def test_broken_files(extension, tmp_path):
    path = tmp_path / f"case.{extension}"
    for content in (b"", b"no image " * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"^case\.\S+ is not a readable") as error:
            read_volume(path)
        assert error.value.status == 422
        assert str(tmp_path) not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("extension", ["nii", "nii.gz", "nrrd", "mha", "png"])
def test_files_that_were_cut_off(extension, tmp_path):
    path = tmp_path / f"case.{extension}"
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64) if extension == "png" else (8, 40, 30), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(image), str(path))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"case\.\S+ is not a readable") as error:
        read_volume(path)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(("position", "value"), [(42, struct.pack("<3h", 900, 900, 900)), (70, struct.pack("<h", 999))])
def test_nifti_headers_that_lie(position, value, array, tmp_path):
    path = write_nifti(tmp_path / "a.nii", array)
    content = bytearray(path.read_bytes())
    content[position : position + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii is not a readable NIfTI file"):
        read_volume(path)


def test_what_does_not_exist(tmp_path):
    with pytest.raises(NotFoundError, match=r"no file or folder case\.nii") as error:
        read_volume(tmp_path / "case.nii")
    assert error.value.status == 404


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real images of shared/data are not here")
def test_real_images_and_their_labels_share_a_grid():
    cases = {case["image"]: case for case in json.loads((SHARED_DATA / "cases.json").read_text())}
    wanted = [case for case in cases.values() if case["set"] in ("abdomen", "radiomics")]
    assert len(wanted) == 3
    for case in wanted:
        image, label = read_volume(SHARED_DATA / case["image"]), read_volume(SHARED_DATA / case["label"])
        assert image.shape == label.shape
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-2)
        assert image.modality == ("CT" if case["modality"] == "CT" else "")
