"""DICOM SEG of labels, in every geometry and script, and those that other programs write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from e2e.series import GEOMETRIES, SHAPE, Series, read_segments, write_geometry, written_by_another
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from skimage.color import lab2rgb
from unit.imaging.dicom_files import dataset, rewrite, write_enhanced

from causal_sam.errors import InputError
from causal_sam.export.dicom_seg import write_dicom_seg
from causal_sam.export.source_images import SourceImages
from causal_sam.imaging import Volume, read_volume, write_mask
from causal_sam.imaging.label_maps import read_label_map
from serving.data.dicom_seg import read_dicom_seg
from serving.data.incoming_labels import IncomingLabel

NAMES = {2: "spleen", 3: "Läsion (肝臓)", 7: "left kidney cyst"}


def labels(values: list[int]) -> NDArray[np.uint8]:
    """A label map (I, J, K) of single voxels, which leaves out some slices."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[3:26, 2:25, 2:7] = np.random.default_rng(1).choice([0, *values], (23, 23, 5))
    return label_map


def incoming(image: Volume, label_map: NDArray, names: dict[int, str] = NAMES, **more: Any) -> IncomingLabel:
    info = {"label_info": [{"name": name, "idx": value, **more} for value, name in names.items()]}
    return IncomingLabel(image, label_map, info)


def write(label: IncomingLabel, series: Path, frame: int = 0) -> highdicom.seg.Segmentation:
    return write_dicom_seg(label.segmented(), SourceImages.read(series, frame))


@pytest.fixture(scope="module")
def axial(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_geometry(tmp_path_factory.mktemp("series") / "axial", GEOMETRIES["axial"])


def seen_by_image(series: Series, label_map: NDArray, image: Volume) -> NDArray:
    """Put a label map in the order of the stored slices into the voxel order of the image."""
    index = np.moveaxis(np.indices(image.shape), 0, -1)
    to_stored = np.linalg.inv(series.affine) @ image.affine
    stored = np.rint(index @ to_stored[:3, :3].T + to_stored[:3, 3]).astype(int)
    return label_map[tuple(np.moveaxis(stored, -1, 0))]


def test_there_and_back_in_every_geometry(tmp_path: Path) -> None:
    for name, affine in GEOMETRIES.items():
        series = write_geometry(tmp_path / name, affine)
        image = read_volume(series.folder)
        label_map = labels(list(NAMES))
        path = tmp_path / f"{name}.dcm"
        write(incoming(image, seen_by_image(series, label_map, image)), series.folder).save_as(path)

        segmentation = highdicom.seg.segread(path)
        found = read_segments(segmentation, series)
        assert list(found) == list(NAMES.values())
        for value, segment in NAMES.items():
            np.testing.assert_array_equal(found[segment], label_map == value, err_msg=name)
        # Slices without voxels are left out.
        assert segmentation.NumberOfFrames == 3 * 5

        back, segments = read_dicom_seg(path, image)
        numbers = np.zeros(8, int)
        numbers[list(NAMES)] = 1, 2, 3
        np.testing.assert_array_equal(back, numbers[seen_by_image(series, label_map, image)], err_msg=name)
        assert segments == [{"name": segment, "idx": number} for number, segment in enumerate(NAMES.values(), start=1)]


def test_what_it_says(axial: Series) -> None:
    image = read_volume(axial.folder)
    made = write(incoming(image, labels(list(NAMES)), color=[200, 30, 60]), axial.folder)
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.PatientName == "Müller^Jürgen"
    assert made.SeriesDescription == made.Manufacturer == "Causal-SAM"
    spleen, lesion, cyst = made.SegmentSequence
    assert spleen.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert lesion.SegmentLabel == lesion.SegmentDescription == lesion.TrackingID == "Läsion (肝臓)"
    (region,) = cyst.AnatomicRegionSequence
    assert (region.CodeMeaning, region.AnatomicRegionModifierSequence[0].CodeMeaning) == ("Kidney", "Left")
    (algorithm,) = spleen.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "Causal-SAM"
    assert algorithm.AlgorithmVersion
    lightness, a, b = spleen.RecommendedDisplayCIELabValue
    rgb = lab2rgb([lightness * 100 / 65535, a * 255 / 65535 - 128, b * 255 / 65535 - 128]) * 255
    np.testing.assert_allclose(rgb, [200, 30, 60], atol=1.5)
    (referenced,) = made.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == axial.uid
    sources = {str(instance.ReferencedSOPInstanceUID) for instance in referenced.ReferencedInstanceSequence}
    assert sources == {str(header.SOPInstanceUID) for header in axial.images}
    # The same structure of the same image is the same one in the next version.
    again = write(incoming(image, labels(list(NAMES))), axial.folder)
    assert again.SegmentSequence[0].TrackingUID == spleen.TrackingUID != lesion.TrackingUID
    assert again.SOPInstanceUID != made.SOPInstanceUID


def test_names_of_any_script_and_length(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    names = {1: "Läsion", 2: "肝臓", 3: "a\\b", 4: "x" * 100, 5: "كبد", 6: "опухоль"}
    write(incoming(image, labels(list(names)), names), axial.folder).save_as(tmp_path / "a.dcm")
    found = [segment.SegmentLabel for segment in pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence]
    assert found == ["Läsion", "肝臓", "a/b", "x" * 64, "كبد", "опухоль"]
    _, segments = read_dicom_seg(tmp_path / "a.dcm", image)
    assert [segment["name"] for segment in segments] == ["Läsion", "肝臓", "a/b", "x" * 100, "كبد", "опухоль"]


def test_odd_colours_are_replaced(axial: Series) -> None:
    image = read_volume(axial.folder)
    for colour in ("red", [1, 2], [300, 0, 0], [-1, 0, 0], ["a", "b", "c"], None, [float("nan")] * 3):
        made = write(incoming(image, labels([2]), {2: "spleen"}, color=colour), axial.folder)
        assert len(made.SegmentSequence[0].RecommendedDisplayCIELabValue) == 3


def change_all(series: Series, change: Callable[[Dataset], None]) -> None:
    for file in series.folder.iterdir():
        rewrite(file, change)


def test_headers_that_lack_elements_or_have_odd_ones(tmp_path: Path) -> None:
    optional = ("AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "StudyDate")
    optional += ("StudyID", "StudyTime", "ReferringPhysicianName", "SliceThickness", "SpecificCharacterSet")

    def bare(header: Dataset) -> None:
        for keyword in optional:
            if keyword in header:
                del header[keyword]

    def odd(header: Dataset) -> None:
        header.PatientSex, header.SliceThickness = "U", None
        for keyword, value in (("PatientBirthDate", "unknown"), ("StudyTime", "noon"), ("StudyDate", "yesterday")):
            header[keyword] = pydicom.DataElement(keyword, "LO", value)

    for number, change in enumerate((bare, odd)):
        series = write_geometry(tmp_path / str(number), GEOMETRIES["oblique"])
        change_all(series, change)
        image = read_volume(series.folder)
        path = tmp_path / f"{number}.dcm"
        write(incoming(image, labels([2])), series.folder).save_as(path)
        assert read_dicom_seg(path, image)[0].any()


def test_what_cannot_have_a_segmentation_is_refused_in_a_sentence(tmp_path: Path, axial: Series) -> None:
    image = read_volume(axial.folder)
    with pytest.raises(InputError, match="no voxel"):
        write(incoming(image, labels([])), axial.folder)
    series = write_geometry(tmp_path / "series", GEOMETRIES["axial"])
    image = read_volume(series.folder)

    def without_reference(header: Dataset) -> None:
        del header.FrameOfReferenceUID

    (series.folder / "003.dcm").rename(tmp_path / "missing.dcm")
    with pytest.raises(InputError, match="series"):
        write(incoming(image, labels([2])), series.folder)
    (tmp_path / "missing.dcm").rename(series.folder / "003.dcm")
    change_all(series, without_reference)
    with pytest.raises(InputError, match=r"Frame [Oo]f Reference"):
        write(incoming(image, labels([2])), series.folder)


def test_an_enhanced_file_and_one_of_its_points_in_time(tmp_path: Path) -> None:
    folder = tmp_path / "enhanced"
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 100, (6, 5, 4, 2), dtype=np.int16)
    order = [(k, t) for k in range(4) for t in range(2)]
    series = {keyword: generate_uid() for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    write_enhanced(folder / "a.dcm", array, GEOMETRIES["oblique"], order=order, **series)
    image = read_volume(folder, 1)
    label_map = np.zeros(image.shape, np.uint8)
    label_map[2:4, 1:3, 1] = 2
    write(incoming(image, label_map), folder, 1).save_as(tmp_path / "a.dcm")
    made = highdicom.seg.segread(tmp_path / "a.dcm")
    (frame,) = made.PerFrameFunctionalGroupsSequence
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 4  # k = 1, t = 1
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "a.dcm", image)[0], label_map // 2)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)")
@pytest.mark.parametrize("geometry", ["axial", "oblique"])
def test_another_program_finds_no_error(geometry: str, tmp_path: Path) -> None:
    series = write_geometry(tmp_path / "series", GEOMETRIES[geometry])
    image = read_volume(series.folder)
    write(incoming(image, labels(list(NAMES))), series.folder).save_as(tmp_path / "a.dcm")
    said = subprocess.run(["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


@pytest.fixture(scope="module")
def dcmqi() -> str:
    """The folder of another program that reads and writes DICOM SEG."""
    found = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
    return str(Path(found).parent) if found else pytest.fail("needs dcmqi (pip install dcmqi)")


def test_dcmqi_reads_it_where_the_image_is(axial: Series, tmp_path: Path, dcmqi: str) -> None:
    image = read_volume(axial.folder)
    label_map = seen_by_image(axial, labels(list(NAMES)), image)
    write(incoming(image, label_map), axial.folder).save_as(tmp_path / "a.dcm")
    options = ["--inputDICOM", tmp_path / "a.dcm", "--outputDirectory", tmp_path, "--outputType", "nii"]
    subprocess.run([f"{dcmqi}/segimage2itkimage", *options], check=True, capture_output=True)
    for number, value in enumerate(NAMES, start=1):
        found = read_label_map(tmp_path / f"{number}.nii.gz", image)
        np.testing.assert_array_equal(found > 0, label_map == value)


def test_what_dcmqi_writes(axial: Series, tmp_path: Path, dcmqi: str) -> None:
    image = read_volume(axial.folder)
    label_map = seen_by_image(axial, labels([1, 2]), image)
    write_mask(label_map, image, tmp_path / "label.nii.gz")
    code = {"CodeValue": "85756007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Tissue"}
    attributes = [
        {
            "labelID": value,
            "SegmentLabel": name,
            "SegmentDescription": name,
            "SegmentAlgorithmType": "MANUAL",
            "SegmentedPropertyCategoryCodeSequence": code,
            "SegmentedPropertyTypeCodeSequence": code,
        }
        for value, name in ((1, "prostate"), (2, "Tumor"))
    ]
    described = {"SeriesNumber": "1", "InstanceNumber": "1", "ContentLabel": "A", "segmentAttributes": [attributes]}
    (tmp_path / "described.json").write_text(json.dumps(described))
    command = [f"{dcmqi}/itkimage2segimage", "--inputImageList", tmp_path / "label.nii.gz", "--outputDICOM"]
    command += [
        tmp_path / "a.dcm",
        "--inputDICOMDirectory",
        axial.folder,
        "--inputMetadata",
        tmp_path / "described.json",
    ]
    subprocess.run(command, check=True, capture_output=True)
    found, segments = read_dicom_seg(tmp_path / "a.dcm", image)
    np.testing.assert_array_equal(found, label_map)
    assert segments == [{"name": "prostate", "idx": 1}, {"name": "Tumor", "idx": 2}]


# --- Of other programs


def foreign(path: Path, segmentation: Dataset, change: Callable[[Dataset], None] = lambda header: None) -> Path:
    change(segmentation)
    segmentation.save_as(path)
    return path


def test_those_of_other_programs(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    label_map = labels([1, 2])
    masks = {"prostate": label_map == 1, "Tumor": label_map == 2}
    expected = seen_by_image(axial, label_map, image)

    def without_sources(header: Dataset) -> None:
        del header.ReferencedSeriesSequence
        for frame in header.PerFrameFunctionalGroupsSequence:
            del frame.DerivationImageSequence, frame.FrameContentSequence
        del header.DimensionIndexSequence

    def places_in_each_frame(header: Dataset) -> None:
        (shared,) = header.SharedFunctionalGroupsSequence
        for frame in header.PerFrameFunctionalGroupsSequence:
            frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
            frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
        header.SharedFunctionalGroupsSequence = []

    def rounded(header: Dataset) -> None:
        for frame in header.PerFrameFunctionalGroupsSequence:
            position = frame.PlanePositionSequence[0]
            position.ImagePositionPatient = [round(float(value), 2) for value in position.ImagePositionPatient]

    for number, change in enumerate((lambda header: None, without_sources, places_in_each_frame, rounded)):
        path = foreign(tmp_path / f"{number}.dcm", written_by_another(axial, masks), change)
        found, segments = read_dicom_seg(path, image)
        np.testing.assert_array_equal(found, expected)
        assert segments == [{"name": "prostate", "idx": 1}, {"name": "Tumor", "idx": 2}]

    with pytest.raises(InputError, match="Segments 1 and 2 of the DICOM SEG overlap"):
        read_dicom_seg(
            foreign(tmp_path / "o.dcm", written_by_another(axial, {"a": label_map > 0, "b": label_map > 1})), image
        )


def on_own_grid(axial: Series, planes: NDArray, affine: NDArray, kind: str = "BINARY", **options: Any) -> Dataset:
    """Make a DICOM SEG of (I, J, K) planes on a grid of its own; ``affine`` is RAS+ millimetre."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return written_by_another(
        axial,
        {"liver": planes},
        kind,
        pixel_measures=highdicom.PixelMeasuresSequence(spacing[1::-1], spacing[2]),
        plane_orientation=highdicom.PlaneOrientationSequence(
            "PATIENT", [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
        ),
        plane_positions=[
            highdicom.PlanePositionSequence("PATIENT", (lps @ [0, 0, k, 1])[:3]) for k in range(planes.shape[2])
        ],
        **options,
    )


def test_every_cut_and_direction_of_the_frames(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    expected = seen_by_image(axial, labels([1]), image)
    path = tmp_path / "a.dcm"
    first, last = (2, 1, 1), (27, 26, 8)
    part = expected[tuple(map(slice, first, last))]
    for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            turn = np.zeros((4, 4))
            turn[3, 3] = 1
            view = part.transpose(order)
            for axis, (source, flipped) in enumerate(zip(order, signs, strict=True)):
                turn[source, axis] = -1 if flipped else 1
                turn[source, 3] = last[source] - 1 if flipped else first[source]
                view = np.flip(view, axis) if flipped else view
            foreign(path, on_own_grid(axial, np.ascontiguousarray(view), image.affine @ turn))
            np.testing.assert_array_equal(read_dicom_seg(path, image)[0], expected, err_msg=f"{order} {signs}")


def test_other_grids_are_refused(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    label_map = labels([1])
    for change in (
        np.diag([2.0, 1, 1, 1]),
        np.diag([1.0, 1, 1.5, 1]),
        np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 6], [0, 0, 0, 1]]),
        np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 100, 0], [0, 0, 0, 1]]),
    ):
        path = foreign(tmp_path / "a.dcm", on_own_grid(axial, label_map, image.affine @ change))
        with pytest.raises(InputError, match=r"grid of its image|slices of the image|beyond the image"):
            read_dicom_seg(path, image)


def test_fractions_count_from_a_half(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    fractions = np.random.default_rng(0).uniform(0, 1, SHAPE).round(2)
    fractions[fractions == 0.5] = 0
    for options in ({}, {"max_fractional_value": 100}, {"transfer_syntax_uid": pydicom.uid.RLELossless}):
        path = foreign(tmp_path / "a.dcm", on_own_grid(axial, fractions, image.affine, "FRACTIONAL", **options))
        np.testing.assert_array_equal(read_dicom_seg(path, image)[0], fractions > 0.5, err_msg=str(options))


def test_a_label_map_as_newer_programs_write_it(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    label_map = labels([1, 2])
    fractional = on_own_grid(axial, (label_map > 0).astype(float), image.affine, "FRACTIONAL")

    def as_label_map(header: Dataset) -> None:
        header.SegmentationType = "LABELMAP"
        del header.SegmentationFractionalType, header.MaximumFractionalValue
        header.SegmentSequence.append(dataset(SegmentNumber=2, SegmentLabel="spleen"))
        shown = [k for k in range(SHAPE[2]) if label_map[:, :, k].any()]
        header.PixelData = label_map[:, :, shown].tobytes(order="F")
        for frame in header.PerFrameFunctionalGroupsSequence:
            del frame.SegmentIdentificationSequence

    path = foreign(tmp_path / "a.dcm", fractional, as_label_map)
    found, segments = read_dicom_seg(path, image)
    np.testing.assert_array_equal(found, label_map)
    assert [segment["name"] for segment in segments] == ["liver", "spleen"]


def test_damaged_ones_are_refused_in_a_sentence(axial: Series, tmp_path: Path) -> None:
    image = read_volume(axial.folder)
    path = foreign(tmp_path / "a.dcm", on_own_grid(axial, labels([1]), image.affine))
    whole = path.read_bytes()

    def remove(keyword: str) -> Callable[[Dataset], None]:
        return lambda header: header.__delitem__(keyword)

    for content in (b"", b"junk", whole[:500], whole[: len(whole) // 2], whole[:-600]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="DICOM SEG"):
            read_dicom_seg(path, image)
    for keyword in ("SegmentationType", "Rows", "PerFrameFunctionalGroupsSequence", "SegmentSequence", "PixelData"):
        foreign(path, on_own_grid(axial, labels([1]), image.affine), remove(keyword))
        with pytest.raises(InputError, match="DICOM SEG"):
            read_dicom_seg(path, image)
