"""Label maps written for other programs, in every geometry, and read back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from e2e.series import GEOMETRIES, Series, write_geometry
from numpy.typing import NDArray
from skimage.draw import polygon2mask
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.cli.export import Format
from causal_sam.errors import InputError
from causal_sam.export import FORMATS, SegmentedVolume, SourceImages, export_label_map
from causal_sam.export.rtstruct import polygons_of
from causal_sam.imaging import Volume, read_label_map, read_volume, write_mask
from causal_sam.imaging.overlap import dice

NAMES = {"left kidney": 2, "Läsion (肝臓)": 5}
DICOM_FORMATS = [name for name, format in FORMATS.items() if format.needs_series]
MIN_DICE = 0.99


def labels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A structure with a hole through several slices, and one in two parts that touch at a corner."""
    i, j, k = np.indices(shape)
    label_map = np.zeros(shape, np.uint8)
    label_map[(np.hypot(i - 12, j - 12) < 8) & (k > 0)] = 2
    label_map[(np.hypot(i - 11, j - 12) < 3) & (k > 2)] = 0
    label_map[22:24, 4:6, :] = label_map[24:26, 6:8, :] = 5
    return label_map


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_geometry(tmp_path_factory.mktemp("series") / "oblique", GEOMETRIES["oblique"])


@pytest.fixture(scope="module")
def segmented(series: Series) -> SegmentedVolume:
    image = read_volume(series.folder)
    return SegmentedVolume.from_names(image, labels(image.shape), NAMES)


@pytest.fixture
def export(series: Series, segmented: SegmentedVolume, tmp_path: Path):
    def write(format: str) -> Path:
        path = tmp_path / f"out{FORMATS[format].suffix}"
        return export_label_map(segmented, format, path, lambda: SourceImages.read(series.folder))

    return write


def filled(file: Path, image: Volume) -> dict[str, NDArray[np.bool_]]:
    """Masks (I, J, K) of an RTSTRUCT: the voxels whose middle lies inside of an odd number of contours."""
    header = pydicom.dcmread(file)
    to_voxels = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)
    masks = {}
    for structure, contours in zip(header.StructureSetROISequence, header.ROIContourSequence, strict=True):
        assert structure.ROINumber == contours.ReferencedROINumber
        mask = masks[structure.ROIName] = np.zeros(image.shape, bool)
        for contour in contours.ContourSequence:
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            assert len(points) == contour.NumberOfContourPoints
            voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            (axis,) = np.flatnonzero(np.ptp(voxels, axis=0) < 0.01)
            index = voxels[0, axis].round().astype(int)
            np.testing.assert_allclose(voxels[:, axis], index, atol=0.01)
            on_slice = np.moveaxis(mask, axis, 0)[index]
            on_slice ^= polygon2mask(on_slice.shape, np.delete(voxels, axis, axis=1))
    return masks


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_rtstruct_there_and_back_in_every_geometry(geometry: str, tmp_path: Path) -> None:
    series = write_geometry(tmp_path / "series", GEOMETRIES[geometry])
    image = read_volume(series.folder)
    label_map = labels(image.shape)
    segmented = SegmentedVolume.from_names(image, label_map, NAMES)
    sources = SourceImages.read(series.folder)
    export_label_map(segmented, "rtstruct", tmp_path / "a.dcm", lambda: sources)
    found = filled(tmp_path / "a.dcm", image)
    assert list(found) == list(NAMES)
    for name, value in NAMES.items():
        assert dice(found[name], label_map == value) >= MIN_DICE


def test_contours_name_the_image_that_they_lie_on(export, series: Series) -> None:
    header = pydicom.dcmread(export("rtstruct"))
    assert header.file_meta.TransferSyntaxUID.is_implicit_VR  # a contour may have more than 64 KB
    positions = {image.SOPInstanceUID: np.array(image.ImagePositionPatient, float) for image in series.images}
    normal = np.cross(*np.reshape(series.images[0].ImageOrientationPatient, (2, 3)).astype(float))
    for structure in header.ROIContourSequence:
        for contour in structure.ContourSequence:
            (image,) = contour.ContourImageSequence
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            assert np.abs((points - positions[image.ReferencedSOPInstanceUID]) @ normal).max() < 0.01
    (frame,) = header.ReferencedFrameOfReferenceSequence
    (referenced,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == series.uid
    assert len(referenced.ContourImageSequence) == len(series.images)
    assert header.PatientName == "Müller^Jürgen"


def test_long_names_are_cut_off_where_dicom_limits_them(series: Series, tmp_path: Path) -> None:
    image = read_volume(series.folder)
    name = "left\\right " + 30 * "very " + "large lesion"
    segmented = SegmentedVolume.from_names(image, (labels(image.shape) == 2).astype(np.uint8), {name: 1})
    for format, sequence, keyword in (
        ("rtstruct", "StructureSetROISequence", "ROIName"),
        ("dicom_seg", "SegmentSequence", "SegmentLabel"),
    ):
        path = export_label_map(segmented, format, tmp_path / "a.dcm", lambda: SourceImages.read(series.folder))
        (structure,) = pydicom.dcmread(path)[sequence]
        assert structure[keyword].value == name.replace("\\", "/")[:64].strip()


def test_a_part_with_holes_is_one_polygon() -> None:
    mask = np.zeros((12, 14), bool)
    mask[1:11, 1:13] = True
    mask[3:5, 3:6] = mask[7:9, 8:11] = False
    mask[0, 0] = True  # touches at a corner
    small, large = sorted(polygons_of(mask), key=len)
    assert len(small) == 4
    assert np.array_equal(polygon2mask(mask.shape, small) | polygon2mask(mask.shape, large), mask)


@pytest.mark.parametrize("format", ["nifti", "nrrd"])
def test_label_maps_there_and_back(format: str, export, segmented: SegmentedVolume) -> None:
    path = export(format)
    np.testing.assert_array_equal(read_label_map(path, segmented.image), segmented.label_map)


def test_a_segmentation_of_slicer_has_names_and_colours(export) -> None:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(export("nrrd")))
    reader.ReadImageInformation()
    header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    assert [header[f"Segment{number}_Name"] for number in (0, 1)] == list(NAMES)
    assert [int(header[f"Segment{number}_LabelValue"]) for number in (0, 1)] == list(NAMES.values())
    assert len(set(header["Segment0_Color"].split()) | set(header["Segment1_Color"].split())) > 3


def test_the_table_of_measurements(export, segmented: SegmentedVolume) -> None:
    table = pd.read_csv(export("csv")).set_index("label")
    assert list(table.index) == list(NAMES)
    inside = segmented.image.array[segmented.label_map == 2]
    row = table.loc["left kidney"]
    assert row["voxels"] == inside.size
    assert row["volume_ml"] == pytest.approx(inside.size * segmented.image.voxel_ml, abs=0.001)
    assert row["mean"] == pytest.approx(inside.mean(), abs=0.001)
    assert (row["min"], row["max"]) == (inside.min(), inside.max())


def test_a_report_measures_the_segments_that_come_with_it(export, segmented: SegmentedVolume, tmp_path: Path) -> None:
    ZipFile(export("dicom_sr")).extractall(tmp_path)
    segmentation, report = (pydicom.dcmread(tmp_path / name) for name in ("segmentation.dcm", "report.dcm"))
    said = str(report)
    assert said.count(segmentation.SOPInstanceUID) >= len(NAMES)
    volume = (segmented.label_map == 2).sum() * segmented.image.voxel_ml
    assert f"'{volume:.3f}'".rstrip("0'") in said
    assert "Läsion (肝臓)" in said


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)")
@pytest.mark.parametrize("format", DICOM_FORMATS)
def test_another_program_finds_no_error(format: str, export, tmp_path: Path) -> None:
    path = export(format)
    if path.suffix == ".zip":
        ZipFile(path).extractall(tmp_path)
        path = tmp_path / "report.dcm"
    said = subprocess.run(["dciodvfy", path], capture_output=True, check=False).stderr.decode(errors="replace")
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_writes_every_format(
    format: str, series: Series, segmented: SegmentedVolume, tmp_path: Path
) -> None:
    mask = write_mask(segmented.label_map, segmented.image, tmp_path / "mask.nii.gz")
    output = tmp_path / f"out{FORMATS[format].suffix}"
    arguments = ["export", str(series.folder), str(mask), "-o", str(output), "--format", format]
    arguments += [f"--label={value}={name}" for name, value in NAMES.items()]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert output.stat().st_size > 0
    assert not list(tmp_path.glob(".part*"))


def test_the_command_offers_all_formats() -> None:
    assert [format.value for format in Format] == list(FORMATS)


def test_what_cannot_be_exported_is_refused_in_a_sentence(segmented: SegmentedVolume, tmp_path: Path) -> None:
    for format, file, sentence in (
        ("rtstruct", "a.dcm", "needs an image that is a DICOM series; nifti, nrrd, csv do not"),
        ("dicom", "a.dcm", "There is no export format 'dicom'"),
        ("nifti", "a.nrrd", "ends in .nii.gz"),
        ("csv", "missing/a.csv", "does not exist"),
    ):
        with pytest.raises(InputError, match=sentence):
            export_label_map(segmented, format, tmp_path / file, None)
    with pytest.raises(InputError, match="no voxel"):
        SegmentedVolume.from_names(segmented.image, np.zeros_like(segmented.label_map), NAMES)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_nothing_among_the_images_of_a_series(
    series: Series, segmented: SegmentedVolume, tmp_path: Path
) -> None:
    mask = write_mask(segmented.label_map, segmented.image, tmp_path / "mask.nii.gz")
    output = series.folder / "seg.dcm"
    result = CliRunner().invoke(app, ["export", str(series.folder), str(mask), "-o", str(output), "--format", "nifti"])
    assert result.exit_code != 0
    assert "would count as one" in " ".join(result.output.split())
    assert not output.exists()
