"""DICOM series become the very grid that MONAI Label serves to its viewers, or are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    XRayAngiographicImageStorage,
)

from causal_sam.errors import InputError
from causal_sam.imaging import read_volume
from causal_sam.imaging.dicom_headers import ACQUISITION_TAGS

from .dicom_files import (
    CORONAL,
    OBLIQUE,
    PATIENT,
    SAGITTAL,
    SERIES,
    make_affine,
    rewrite,
    write_dicom,
    write_report,
    write_series,
)
from .grids import positions

SHAPE = (6, 5, 4)


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("directions", SERIES.values(), ids=SERIES)
@pytest.mark.parametrize("written_backwards", [False, True])
def test_a_series_is_the_grid_that_monai_label_makes_of_it(directions, written_backwards, array, tmp_path):
    from monailabel.datastore.utils.convert import dicom_to_nifti

    affine, stored = make_affine(directions), array
    if written_backwards:  # the first file is the last slice
        stored = array[:, :, ::-1]
        affine = affine @ np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1]])
    write_series(tmp_path / "series", stored, affine, names=["7", "b.dcm", "10.dcm", "A"])
    volume = read_volume(tmp_path / "series")
    assert np.array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, make_affine(directions), atol=1e-4)

    converted = Path(dicom_to_nifti(str(tmp_path / "series")))
    try:
        image = nibabel.load(converted)
        assert np.array_equal(np.asanyarray(image.dataobj), volume.array)
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-3)
    finally:
        converted.unlink()


def test_every_voxel_lies_where_its_own_file_says(array, tmp_path):
    files = write_series(tmp_path / "series", array, make_affine(OBLIQUE))
    volume = read_volume(tmp_path / "series")
    where = positions(volume.affine, volume.shape)
    for file in files:
        header = pydicom.dcmread(file)
        k = next(k for k in range(SHAPE[2]) if np.array_equal(volume.array[:, :, k].T, header.pixel_array))
        place = where[0, 0, k] * (-1, -1, 1)
        np.testing.assert_allclose(place, np.array(header.ImagePositionPatient, float), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (2, -1000), (0.5, -3.25)])
def test_stored_values_become_hounsfield_units(dtype, slope, intercept, array, tmp_path):
    stored = (array + 1000).astype(dtype)
    write_series(tmp_path / "series", stored, make_affine(), RescaleSlope=slope, RescaleIntercept=intercept)
    assert np.array_equal(read_volume(tmp_path / "series").array, stored * float(slope) + intercept)


def test_each_slice_has_its_own_slope(array, tmp_path):
    """As in PET: the type of the first slice must not round the others."""
    slopes = (1, 0.5, 0.25, 2)
    for k, slope in enumerate(slopes):
        affine = make_affine()
        affine[:3, 3] = (affine @ [0, 0, k, 1])[:3]
        elements = {"Modality": "PT", "RescaleSlope": slope, "RescaleIntercept": 0}
        write_series(tmp_path / "series", array[:, :, k : k + 1], affine, names=[f"{k}.dcm"], **elements)
    volume = read_volume(tmp_path / "series")
    assert np.array_equal(volume.array, array * np.array(slopes))
    assert volume.modality == "PT"


def test_one_file_and_a_folder_of_one_file(array, tmp_path):
    (file,) = write_series(tmp_path / "series", array[:, :, :1], make_affine(SAGITTAL), Modality="MR")
    for path in (file, tmp_path / "series"):
        volume = read_volume(path)
        assert volume.modality == "MR"
        assert volume.source == path
        assert np.array_equal(volume.array, array[:, :, :1])
        np.testing.assert_allclose(volume.affine, make_affine(SAGITTAL), atol=1e-4)


def test_a_file_without_extension_and_without_geometry(array, tmp_path):
    write_dicom(tmp_path / "IM000001", array[:, :, 0].T, Modality="DX")
    volume = read_volume(tmp_path / "IM000001")
    assert volume.modality == "DX"
    assert np.array_equal(volume.array, array[:, :, :1])
    assert volume.spacing == (1, 1, 1)


RADIOGRAPHS = [
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForPresentation,
    XRayAngiographicImageStorage,
]
SPACINGS = {
    "in the patient": ({"PixelSpacing": [1.5, 0.75]}, (0.75, 1.5)),
    "on the detector": ({"ImagerPixelSpacing": [0.3, 0.2]}, (0.2, 0.3)),
    "calibrated": ({"PixelSpacing": [1.5, 0.75], "ImagerPixelSpacing": [0.3, 0.2]}, (0.75, 1.5)),
    "of the film": ({"NominalScannedPixelSpacing": [0.3, 0.2]}, (0.2, 0.3)),
    "not valid": ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.3, 0.2]}, (0.2, 0.3)),
    "not given": ({}, (1.0, 1.0)),
}


@pytest.mark.parametrize("kind", RADIOGRAPHS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("elements", "spacing"), SPACINGS.values(), ids=SPACINGS)
def test_radiographs_without_orientation(kind, elements, spacing, array, tmp_path):
    write_dicom(tmp_path / "x.dcm", array[:, :, 0].T, Modality="DX", SOPClassUID=kind, **elements)
    volume = read_volume(tmp_path / "x.dcm")
    assert np.array_equal(volume.array, array[:, :, :1])
    np.testing.assert_allclose(volume.affine, np.diag([-spacing[0], -spacing[1], 1.0, 1.0]))


def test_monochrome_1_is_turned_to_bright_on_dark(array, tmp_path):
    stored = (array[:, :, 0].T + 1000).astype(np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11}
    write_dicom(tmp_path / "x.dcm", stored, Modality="CR", PhotometricInterpretation="MONOCHROME1", **bits)
    assert np.array_equal(read_volume(tmp_path / "x.dcm").array[:, :, 0].T, 4095 - stored)


def write_times(folder, array, affine, instance):
    """One file for each slice and point in time, numbered by ``instance(k, t)``."""
    for t in range(array.shape[3]):
        files = write_series(folder, array[..., t], affine, names=[f"{k}-{t}" for k in range(array.shape[2])])
        for k, file in enumerate(files):
            rewrite(file, lambda header, k=k, t=t: setattr(header, "InstanceNumber", instance(k, t)))


@pytest.mark.parametrize("directions", SERIES.values(), ids=SERIES)
@pytest.mark.parametrize("instance", [lambda k, t: 1 + k + 4 * t, lambda k, t: 1 + t + 3 * (3 - k)])
def test_a_series_of_several_points_in_time(directions, instance, array, tmp_path):
    array = np.stack([array, array + 1, array + 2], axis=-1)
    write_times(tmp_path / "series", array, make_affine(directions), instance)
    for t in range(3):
        volume = read_volume(tmp_path / "series", t)
        assert (volume.frame, volume.frames) == (t, 3)
        assert np.array_equal(volume.array, array[..., t])
        np.testing.assert_allclose(volume.affine, make_affine(directions), atol=1e-4)
    with pytest.raises(InputError, match=r"^series has 3 frames: frame must be in 0\.\.2, not 3\.$"):
        read_volume(tmp_path / "series", 3)


def test_a_series_with_a_point_in_time_missing_somewhere(array, tmp_path):
    write_times(tmp_path / "series", np.stack([array, array], axis=-1), make_affine(), lambda k, t: 1 + k + 4 * t)
    (tmp_path / "series" / "1-1").unlink()
    assert "several slices at the same place (300.00 mm" in refusal(tmp_path / "series")


def test_only_acquisition_tags_leave_the_header(array, tmp_path):
    write_series(
        tmp_path / "series",
        array,
        make_affine(),
        KVP="120",
        Manufacturer="Maker",
        ConvolutionKernel=["B30f", "3"],
        MagneticFieldStrength="",
        ProtocolName="abdomen Jane Doe",
    )
    volume = read_volume(tmp_path / "series")
    assert dict(volume.tags) == {
        "KVP": 120.0,
        "Manufacturer": "Maker",
        "ConvolutionKernel": "B30f\\3",
        "SliceThickness": 4.0,
    }
    assert not set(PATIENT) & set(ACQUISITION_TAGS)
    assert not any(secret in repr(volume.tags) for secret in (*PATIENT.values(), "Jane"))


@pytest.mark.parametrize("keyword", ACQUISITION_TAGS)
def test_acquisition_tags_are_of_the_device_and_not_of_the_person(keyword):
    """Groups 0018 (acquisition) and the maker of the machine; the patient is in 0010, dates and names are in 0008."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag >> 16 == 0x0018 or keyword in ("Manufacturer", "ManufacturerModelName")
    assert pydicom.datadict.dictionary_VR(tag) not in ("PN", "DA", "DT", "TM", "UI")


def test_other_files_in_the_folder_are_left_out(array, tmp_path):
    folder = tmp_path / "series"
    write_series(folder, array, make_affine())
    write_report(folder / "report.dcm")
    (folder / "readme.txt").write_text("scanned on a Monday")
    (folder / ".DS_Store").write_bytes(b"\0\1")
    (folder / "more").mkdir()
    write_series(folder / "more", array, make_affine(), SeriesInstanceUID="1.9")
    assert np.array_equal(read_volume(folder).array, array)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_volume(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path.parent) not in message
    assert not any(secret in message for secret in PATIENT.values())
    return message


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_slice(missing, array, tmp_path):
    files = write_series(tmp_path / "series", array, make_affine())
    files[missing].unlink()
    assert "series is not evenly spaced: 8.00 mm" in refusal(tmp_path / "series")


def test_a_folder_without_dicom(tmp_path):
    (tmp_path / "series").mkdir()
    assert refusal(tmp_path / "series") == "The folder series holds no DICOM image."
    (tmp_path / "series" / "readme.txt").write_text("nothing here")
    assert "no DICOM image" in refusal(tmp_path / "series")
    write_report(tmp_path / "series" / "report.dcm")
    assert "no DICOM image" in refusal(tmp_path / "series")


def test_two_series_in_a_folder(array, tmp_path):
    write_series(tmp_path / "series", array, make_affine())
    write_series(tmp_path / "series", array, make_affine(), names=list("abcd"), SeriesInstanceUID="1.9")
    assert "holds 2 DICOM series" in refusal(tmp_path / "series")


def test_two_images_at_one_place(array, tmp_path):
    write_series(tmp_path / "series", array, make_affine())
    write_series(tmp_path / "series", array, make_affine(), names=list("abcd"))
    assert "several slices at the same place (300.00 mm" in refusal(tmp_path / "series")


def test_slices_that_are_not_parallel(array, tmp_path):
    write_series(tmp_path / "series", array, make_affine())
    write_series(tmp_path / "series", array[:, :, :1], make_affine(CORONAL), names=["scout.dcm"])
    assert "not parallel" in refusal(tmp_path / "series")


def test_slices_of_different_size(array, tmp_path):
    write_series(tmp_path / "series", array, make_affine())
    affine = make_affine()
    affine[:3, 3] = (affine @ [0, 0, 4, 1])[:3]
    write_series(tmp_path / "series", array[:, :4, :1], affine, names=["z.dcm"])
    assert "differ in size (4 x 6 and 5 x 6)" in refusal(tmp_path / "series")


def test_slices_that_do_not_say_where_they_lie(array, tmp_path):
    (tmp_path / "series").mkdir()
    for k in range(2):
        write_dicom(tmp_path / "series" / f"{k}.dcm", array[:, :, k].T)
    assert "0.dcm has no valid ImageOrientationPatient" in refusal(tmp_path / "series")


@pytest.mark.parametrize("slice_number", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"no DICOM", "is not DICOM: it is damaged"),
        (lambda content: b"", "is not DICOM: it is damaged"),
        (lambda content: content[:500], "ends before its pixels"),
        (lambda content: content[:-30], "cannot be decoded"),
    ],
    ids=["text", "empty", "cut in its header", "cut in its pixels"],
)
def test_a_damaged_slice(damage, message, slice_number, array, tmp_path):
    file = write_series(tmp_path / "series", array, make_affine())[slice_number]
    file.write_bytes(damage(file.read_bytes()))
    assert message in refusal(tmp_path / "series")


def test_a_damaged_position(array, tmp_path):
    file = write_series(tmp_path / "series", array, make_affine())[0]
    file.write_bytes(file.read_bytes().replace(b"300.0", b"30a.0"))
    assert "000.dcm has no valid ImagePositionPatient: it must be 3 numbers" in refusal(tmp_path / "series")


def test_what_holds_no_image(tmp_path):
    write_report(tmp_path / "report.dcm")
    assert "report.dcm is a DICOM object without an image." in refusal(tmp_path / "report.dcm")
