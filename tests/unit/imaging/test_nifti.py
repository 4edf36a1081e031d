"""NIfTI files lie where SimpleITK, and so the viewers, place them; what it refuses is refused in a sentence."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import inv_ornt_aff
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from causal_sam.errors import InputError
from causal_sam.imaging import MASK_EXTENSIONS, Volume, read_volume, write_mask

from .grids import ORIENTATIONS, SHAPE, make_affine, positions
from .nifti_files import nifti

ARRAY = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
AFFINE = make_affine((0.7, 1.3, 4.1), Rotation.from_euler("xyz", (12, -9, 24), degrees=True).as_matrix())
OTHER = make_affine((0.7, 1.3, 4.1), Rotation.from_euler("xyz", (-5, 8, 3), degrees=True).as_matrix())
OTHER[:3, 3] += (10, -4, 9)
SHEARED = AFFINE @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
CORNERS = np.array([[*corner, 1] for corner in itertools.product(*([0, size - 1] for size in SHAPE))]).T
NAN, INF = float("nan"), float("inf")


def itk_affine(path: Path) -> NDArray[np.float64] | None:
    """Where ITK places an image, RAS+; None if it refuses it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    size = reader.GetDimension()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(reader.GetDirection(), (size, size))[:3, :3] * reader.GetSpacing()[:3]
    lps[:3, 3] = reader.GetOrigin()[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def check_place(path: Path, note: object = "") -> None:
    """The file lies where ITK places it, or both refuse it."""
    expected = itk_affine(path)
    if expected is None:
        with pytest.raises(InputError, match=r"^a\.nii has no place in the patient: its sform is sheared or singular"):
            read_volume(path)
    else:
        distance = np.abs((read_volume(path).affine - expected) @ CORNERS).max()
        assert distance <= 1e-3, f"{note}: {distance} mm"


def test_every_orientation_with_every_form_lies_where_itk_places_it(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    codes = list(itertools.product((0, 1, 2), repeat=2))
    for orientation in ORIENTATIONS:
        turn = inv_ornt_aff(orientation, SHAPE)
        for qform, pair in itertools.product((AFFINE, OTHER), codes):
            path.write_bytes(nifti(ARRAY, AFFINE @ turn, qform @ turn, pair))
            check_place(path, (orientation.tolist(), pair))


@pytest.mark.parametrize(
    "fields",
    [
        *({"xyzt_units": unit} for unit in (0, 1, 2, 3, 7, 10, 26)),  # metre, millimetre, micron, and what is none
        *({"pixdim1": size} for size in (0, -0.7, NAN, INF)),
        *({"pixdim": (sign, 0.7, 1.3, 4.1, 0, 0, 0, 0)} for sign in (-1, 0, 0.5, 2, NAN)),
        {"pixdim": (1, -0.7, -1.3, -4.1, 1, 1, 1, 1)},
        {"quatern": (0.9, 0.9, 0.9)},
        {"srow": (0,) * 12},
        {"srow": (1e20, *AFFINE.ravel()[1:12])},
        {"raw_codes": (300, -7)},
        {"raw_codes": (-1, 1)},
        {"raw_codes": (7, 0)},
        {"sizeof_hdr": 0},
        {"bitpix": 8},
        {"extension": (1, 0, 0, 0, 10**9, 0)},
    ],
    ids=str,
)
def test_odd_headers_lie_where_itk_places_them(fields: dict, tmp_path: Path) -> None:
    for sform, qform, codes in itertools.product(
        (AFFINE, SHEARED), (AFFINE, OTHER), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]
    ):
        (tmp_path / "a.nii").write_bytes(nifti(ARRAY, sform, qform, codes, **fields))
        check_place(tmp_path / "a.nii", codes)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">f8"])
def test_voxels_are_those_of_itk(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    header = nibabel.Nifti1Header(endianness="big" if dtype[0] == ">" else "little")
    content = nibabel.Nifti1Image((ARRAY % 100).astype(dtype), AFFINE, header, dtype=dtype).to_bytes()
    for scale in (
        *((1, 0), (0, 0), (NAN, 0), (INF, 3), (0, 5)),
        *((1, NAN), (1, -INF), (2, -1024), (-1, 0), (1e-3, 0.5)),
    ):
        path.write_bytes(content[:112] + np.array(scale, f"{header.endianness}f4").tobytes() + content[120:])
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
        volume = read_volume(path)
        assert np.array_equal(volume.array, expected.astype(volume.array.dtype)), scale
        if scale[0] != 1e-3:
            assert np.array_equal(volume.array, expected), scale


@pytest.mark.parametrize("dim", [(4, *SHAPE, 0, 1, 1, 1), (4, *SHAPE, -1, 1, 1, 1), (7, *SHAPE, 1, 1, 1, 1)])
def test_axes_behind_the_third_of_no_size_count_as_one(dim: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti(ARRAY, AFFINE, dim=dim))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii"))).T, ARRAY)
    assert np.array_equal(read_volume(tmp_path / "a.nii").array, ARRAY)
    check_place(tmp_path / "a.nii")


def test_files_that_are_called_compressed_may_be_plain(tmp_path: Path) -> None:
    content = nifti(ARRAY, AFFINE, OTHER, (2, 1))
    for name, data in {"a.nii.gz": content, "b.nii.gz": gzip.compress(content), "C.NII.GZ": content}.items():
        (tmp_path / name).write_bytes(data)
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.array, ARRAY)
        np.testing.assert_allclose(volume.affine, OTHER, atol=1e-4)
    (tmp_path / "a.nii").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"^a\.nii is compressed: its name must end in \.nii\.gz\.$"):
        read_volume(tmp_path / "a.nii")


def test_a_file_beside_it_of_the_same_name_is_not_read(tmp_path: Path) -> None:
    """ITK takes the voxels of ``a.nii`` for those of ``a.nii.gz``."""
    (tmp_path / "a.nii").write_bytes(nifti(ARRAY + np.int16(1)))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(ARRAY)))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").array, ARRAY)


def test_nifti_2_and_pairs_lie_where_the_same_header_lies_as_nifti_1(tmp_path: Path) -> None:
    forms = {"sform": AFFINE, "qform": OTHER}
    for codes in itertools.product((0, 1, 2), repeat=2):
        (tmp_path / "a.nii").write_bytes(nifti(ARRAY, **forms, codes=codes))
        expected = itk_affine(tmp_path / "a.nii")
        (tmp_path / "b.nii").write_bytes(nifti(ARRAY, **forms, codes=codes, kind=nibabel.Nifti2Image))
        pair = nibabel.Nifti1Pair(ARRAY, None)
        pair.set_sform(AFFINE, codes[0])
        pair.set_qform(OTHER, codes[1])
        nibabel.save(pair, tmp_path / "c.hdr")
        for name in ("b.nii", "c.hdr"):
            volume = read_volume(tmp_path / name)
            assert np.array_equal(volume.array, ARRAY)
            np.testing.assert_allclose(volume.affine, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        *(({"vox_offset": offset}, "vox_offset") for offset in (0, 100, -1)),
        *(({"vox_offset": offset}, "not a readable NIfTI file") for offset in (NAN, INF, 1e9)),
        *(({"dim1": size}, "has shape") for size in (0, -5)),
        *(({"dim0": count}, "has shape|not a readable NIfTI file") for count in (0, 1, -1, 8)),
        *(({"datatype": code}, "not a readable NIfTI file|real numbers") for code in (0, 1, 999)),
        ({"dim": (3, 30000, 30000, 30000, 1, 1, 1, 1)}, "."),
        ({"magic": b"abc"}, "not a readable NIfTI file"),
        ({"srow": (NAN,) * 12, "codes": (1, 0)}, "affine|place"),
        ({"intent_code": 3001}, "CIFTI"),
    ],
    ids=str,
)
def test_headers_that_cannot_be_right_are_refused(fields: dict, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.dconn.nii").write_bytes(nifti(ARRAY, AFFINE, **fields))
    with pytest.raises(InputError, match=rf"a\.dconn\.nii.*({sentence})|({sentence}).*a\.dconn\.nii") as error:
        read_volume(tmp_path / "a.dconn.nii")
    assert "\n" not in str(error.value)


def test_surfaces_are_refused(tmp_path: Path) -> None:
    axis = nibabel.cifti2.ScalarAxis(["x"])
    brain = nibabel.cifti2.BrainModelAxis.from_mask(np.ones(SHAPE), affine=AFFINE)
    image = nibabel.Cifti2Image(np.zeros((1, ARRAY.size), np.float32), (axis, brain))
    nibabel.save(image, tmp_path / "a.dscalar.nii")
    with pytest.raises(InputError, match=r"a\.dscalar\.nii holds values of surfaces or connections \(CIFTI\)"):
        read_volume(tmp_path / "a.dscalar.nii")
    surface = nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(np.zeros((4, 3), np.float32))])
    nibabel.save(surface, tmp_path / "a.surf.gii")
    with pytest.raises(InputError, match=r"a\.surf\.gii is not a readable image"):
        read_volume(tmp_path / "a.surf.gii")


def test_a_damaged_compressed_file_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 20), np.uint8)
    content = gzip.compress(nifti(noise, AFFINE))
    for position in (-8, -3, len(content) // 2):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (tmp_path / "a.nii.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.nii\.gz is not a readable NIfTI file"):
            read_volume(tmp_path / "a.nii.gz")


def test_a_file_that_goes_on_far_beyond_its_voxels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(ARRAY, AFFINE) + bytes(512)))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").array, ARRAY)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(nifti(ARRAY, AFFINE) + bytes(2**26)))
    with pytest.raises(InputError, match="it goes on far beyond its voxels"):
        read_volume(tmp_path / "bomb.nii.gz")


def test_masks_lie_where_itk_and_nibabel_see_the_image(tmp_path: Path) -> None:
    """In all orientations, also of an image whose axes are not quite perpendicular, as rounded headers have it."""
    mask = (ARRAY % 3).astype(np.uint8)
    rounded = AFFINE.copy()
    rounded[:3, :3] = (AFFINE[:3, :3] / (0.7, 1.3, 4.1)).round(4) * (0.7, 1.3, 4.1)
    for orientation, affine in itertools.product(ORIENTATIONS, (AFFINE, rounded)):
        image = Volume(ARRAY, affine @ inv_ornt_aff(orientation, SHAPE))
        for extension in MASK_EXTENSIONS:
            path = write_mask(mask, image, tmp_path / f"mask{extension}")
            assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, mask)
            found = [itk_affine(path), read_volume(path).affine]
            if extension != ".nrrd":
                found.append(nibabel.load(path).affine)
            for other in found:
                np.testing.assert_allclose(positions(other, SHAPE), positions(image.affine, SHAPE), atol=2e-3)


def test_a_sheared_grid_is_written_as_nrrd_alone(tmp_path: Path) -> None:
    image = Volume(ARRAY, SHEARED)
    for extension in (".nii", ".nii.gz"):
        with pytest.raises(InputError, match=r"NIfTI cannot hold .* sheared .*\.nrrd"):
            write_mask(ARRAY % 3, image, tmp_path / f"mask{extension}")
    written = write_mask(ARRAY % 3, image, tmp_path / "mask.nrrd")
    np.testing.assert_allclose(itk_affine(written), SHEARED, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nrrd"]
