"""Labels as DICOM SEG: accepted as the clients do it, read in the archive with highdicom, and taken up again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import highdicom
import nrrd
import numpy as np
import pydicom
import pytest
import requests
import SimpleITK as sitk
from integration.server import Server, read_nifti
from numpy.typing import NDArray

from causal_sam.imaging import Volume
from causal_sam.imaging.directions import RAS_LPS
from serving.data.label_set import ABDOMEN

from . import servers
from .conftest import ARTIFACTS, CT
from .series import (
    GEOMETRIES,
    INSIDE,
    SHAPE,
    TILTED,
    Segmentations,
    Series,
    read_segments,
    write_geometry,
    written_by_another,
)
from .studies import write_studies

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # the first test starts the servers

SECONDS = 120
VALUES = {name: value for value, name in enumerate(ABDOMEN, start=1)}


@pytest.fixture(scope="module")
def all_series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    """The series in the archive, by geometry; two more that one test has to itself."""
    folder = tmp_path_factory.mktemp("series")
    geometries = GEOMETRIES | {"tilted": TILTED, "foreign": GEOMETRIES["oblique"], "refused": GEOMETRIES["axial"]}
    return {name: write_geometry(folder / name, affine) for name, affine in geometries.items()}


@pytest.fixture(scope="module")
def archive(all_series: dict[str, Series], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an Orthanc that holds the series."""
    with servers.orthanc(tmp_path_factory.mktemp("orthanc")) as url:
        for series in all_series.values():
            servers.upload(url, series.folder)
        yield url


@pytest.fixture(scope="module")
def server(archive: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The MONAI Label server on that Orthanc."""
    folder = tmp_path_factory.mktemp("monailabel")
    with servers.monai_label(f"{archive}/dicom-web", folder) as url:
        yield Server(url, folder, folder / "monailabel.log")


@pytest.fixture(scope="module")
def segmentations(archive: str) -> Segmentations:
    return Segmentations(archive)


def inside(server: Server, series: Series) -> list[int]:
    """The voxel in the bright block, in the image that clients get."""
    voxel = np.linalg.inv(grid(server, series)) @ series.affine @ [*INSIDE, 1]
    return voxel[:3].round().astype(int).tolist()


def click(server: Server, series: Series, label: str) -> Volume:
    """Click on the bright block as OHIF does, for its slice alone; return the mask that it gets."""
    params = {"label": label, "foreground": [inside(server, series)], "background": [], "extent": "slice"}
    params |= {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    response = server.post(params, image=series.uid, output="image")
    assert response.status_code == 200, response.text
    content = BytesIO(response.content)
    header = nrrd.read_header(content)
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = header["space directions"].T, header["space origin"]
    return Volume(nrrd.read_data(header, content), RAS_LPS @ lps)


def grid(server: Server, series: Series) -> NDArray[np.float64]:
    """Affine of the image that clients get of a series."""
    response = requests.get(f"{server.url}/datastore/image", params={"image": series.uid}, timeout=SECONDS)
    return read_nifti(response.content).affine


def save_as_ohif(
    server: Server, series: Series, label_map: NDArray[np.integer], names: dict[str, int] = VALUES
) -> requests.Response:
    """Save a label as the client code of OHIF's panel does: the bytes of its segmentation, without a tag."""
    params = json.dumps({"label_info": [{"name": name, "idx": value} for name, value in names.items()]})
    return requests.put(
        f"{server.url}/datastore/label",
        params={"image": series.uid},
        files={"params": (None, params), "label": ("label.bin", label_map.tobytes(order="F"))},
        timeout=SECONDS,
    )


def save_as_slicer(server: Server, series: Series, label: Volume, names: dict[str, int], folder: Path) -> None:
    """Save a label as Slicer's plug-in does: a NIfTI file that ITK wrote, with the names of all segments."""
    image = sitk.GetImageFromArray(label.array.T)
    lps = RAS_LPS @ label.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    sitk.WriteImage(image, str(folder / "label.nii.gz"))
    info = [{"name": name, "idx": value} for name, value in names.items()]
    server.client("slicer").save_label(series.uid, str(folder / "label.nii.gz"), params={"label_info": info})


def random_labels(values: list[int]) -> NDArray[np.uint8]:
    """A label map (I, J, K) of single voxels, which leaves out some slices."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[3:26, 2:25, 2:7] = np.random.default_rng(1).choice([0, *values], (23, 23, 5))
    return label_map


def download_label(server: Server, series: Series) -> Volume:
    """The server's own copy of an accepted label."""
    query = {"label": series.uid, "tag": "final"}
    response = requests.get(f"{server.url}/datastore/label", params=query, timeout=SECONDS)
    assert response.status_code == 200, response.text
    image = read_nifti(response.content)
    return Volume(np.asarray(image.dataobj), image.affine)


def forget_label(server: Server, series: Series) -> None:
    """Delete the server's own copy of a label; the archive keeps its own."""
    query = {"id": series.uid, "tag": "final"}
    requests.delete(f"{server.url}/datastore/label", params=query, timeout=SECONDS).raise_for_status()
    for _ in range(100):  # the store notices it by watching the folder
        if "final" not in labels_of(server, series):
            return
        time.sleep(0.1)
    raise AssertionError("the label is still there")


def labels_of(server: Server, series: Series) -> dict[str, dict]:
    """What the server knows about the labels of a series, by tag."""
    objects = requests.get(f"{server.url}/datastore/", params={"output": "all"}, timeout=SECONDS).json()["objects"]
    return objects[series.uid]["labels"]


def take_from_archive(server: Server, series: Series) -> dict:
    """List the labels for training, for which MONAI Label looks into the archive; return what it knows of one."""
    response = requests.get(f"{server.url}/datastore/", params={"output": "train"}, timeout=SECONDS)
    assert response.status_code == 200, response.text
    assert any(series.uid in pair["label"] for pair in response.json())
    return labels_of(server, series)["final"]["info"]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_click_accepted_in_ohif(
    server: Server, segmentations: Segmentations, all_series: dict[str, Series], geometry: str
) -> None:
    series = all_series[geometry]
    mask = click(server, series, "left kidney")
    assert series.place(mask)[INSIDE]
    label_map = mask.array * np.uint8(VALUES["left kidney"])
    response = save_as_ohif(server, series, label_map)
    assert response.status_code == 200, response.text

    (segmentation,) = segmentations.of(series)
    ((name, found),) = read_segments(segmentation, series).items()
    assert name == "left kidney"
    np.testing.assert_array_equal(found, series.place(mask) > 0)

    (segment,) = segmentation.SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "Causal-SAM")
    image = series.images[0]
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDescription"):
        assert segmentation[keyword].value == image[keyword].value
    assert segmentation.SeriesDescription == "Causal-SAM"
    assert "ClinicalTrialSeriesID" not in segmentation


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_labels_accepted_in_slicer_come_back_as_the_working_mask(
    server: Server, segmentations: Segmentations, all_series: dict[str, Series], geometry: str, tmp_path: Path
) -> None:
    series = all_series[geometry]
    # Slicer counts the segments that it has, with or without voxels.
    names = {"liver": 1, "spleen": 2, "Läsion (肝臓)": 3, "left kidney": 4, "liver lesion": 5}
    label = Volume(random_labels([2, 3, 5]), grid(server, series))
    known = {str(each.SOPInstanceUID) for each in segmentations.of(series)}
    save_as_slicer(server, series, label, names, tmp_path)

    (segmentation,) = [each for each in segmentations.of(series) if str(each.SOPInstanceUID) not in known]
    found = read_segments(segmentation, series)
    assert list(found) == ["spleen", "Läsion (肝臓)", "liver lesion"]
    placed = series.place(label)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, placed == names[name], err_msg=name)
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for segment in segmentation.SegmentSequence]
    assert kinds == ["Spleen", "Tissue", "Lesion"]
    assert segmentation.SegmentSequence[2].AnatomicRegionSequence[0].CodeMeaning == "Liver"

    # As for a server that has not seen the label: its own copy is gone, the archive's comes back.
    forget_label(server, series)
    info = take_from_archive(server, series)
    assert info["label_info"] == [{"name": name, "idx": number} for number, name in enumerate(found, start=1)]
    assert info["SeriesInstanceUID"] == segmentation.SeriesInstanceUID
    back = download_label(server, series)
    np.testing.assert_allclose(back.affine, label.affine, atol=1e-4)
    np.testing.assert_array_equal(back.array, np.array([0, 0, 1, 2, 0, 3])[label.array])

    # A client that clicks on one label gets the others as they were accepted.
    points = {"label": "stomach", "stomach": [inside(server, series)], "background": [], "extent": "slice"}
    answer, params = server.slicer(points, model="causal_sam_multilabel", image=series.uid, client_id=geometry)
    stomach = answer == params["label_names"]["stomach"]
    assert stomach.any()
    spleen = answer == params["label_names"]["spleen"]
    np.testing.assert_array_equal(spleen, (label.array == names["spleen"]) & ~stomach)


def test_a_result_that_nobody_accepted_stays_out_of_the_archive(
    server: Server, segmentations: Segmentations, all_series: dict[str, Series]
) -> None:
    """As batch inference saves them."""
    series = all_series["refused"]
    params = {"label": "pancreas", "foreground": [inside(server, series)], "save_label": True}
    response = server.post({**params, "label_tag": "final"}, image=series.uid)
    assert response.status_code == 422, response.text
    response = server.post(params, image=series.uid)
    assert response.status_code == 200, response.text
    (entry,) = labels_of(server, series)["original"]["info"]["label_info"]
    assert entry["name"] == "pancreas"
    assert segmentations.of(series) == []


def test_what_cannot_be_stored_is_refused_in_one_sentence(
    server: Server, segmentations: Segmentations, all_series: dict[str, Series]
) -> None:
    series, tilted = all_series["refused"], all_series["tilted"]
    before = len(segmentations.of(series))
    label_map = random_labels([1])
    unknown = replace(series, uid="1.2.3")
    for sent, image, status, sentence in (
        (np.zeros_like(label_map), series, 422, "no voxel"),
        (label_map.astype(np.uint16), series, 422, "one byte for each of the 7168 voxels"),
        (label_map, tilted, 422, "tilted gantry"),
        (label_map, unknown, 404, "no series 1.2.3"),
    ):
        response = save_as_ohif(server, image, sent)
        assert (response.status_code, sentence in response.json()["detail"]) == (status, True), response.text
    assert len(segmentations.of(series)) == before
    assert segmentations.of(tilted) == []


def test_the_newest_label_of_another_workstation_counts(
    server: Server, segmentations: Segmentations, all_series: dict[str, Series]
) -> None:
    series = all_series["foreign"]
    label_map = random_labels([1, 2])
    masks = {"prostate": label_map == 1, "Tumor": label_map == 2}
    newer = written_by_another(series, masks)
    older = written_by_another(series, {"old": label_map > 0})
    older.ContentDate = "20200202"
    overlapping = written_by_another(series, {"a": label_map > 0, "b": label_map > 1})
    overlapping.ContentDate = "20990101"
    for segmentation in (newer, older, overlapping):
        segmentations.store(segmentation)

    info = take_from_archive(server, series)
    assert info["label_info"] == [{"name": "prostate", "idx": 1}, {"name": "Tumor", "idx": 2}]
    np.testing.assert_array_equal(series.place(download_label(server, series)), label_map)
    assert f"{overlapping.SeriesInstanceUID} is not used" in server.log.read_text()

    # Listed again, it is not written again: clients would lose the clicks since.
    again = take_from_archive(server, series)
    assert again == info


def test_an_inference_is_answered_as_dicom_seg(
    server: Server, segmentations: Segmentations, all_series: dict[str, Series]
) -> None:
    series = all_series["oblique"]
    before = len(segmentations.of(series))
    params = {"label": "pancreas", "foreground": [inside(server, series)], "extent": "slice", "reset": True}
    response = server.post(params, image=series.uid, output="dicom_seg")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/dicom"
    found = read_segments(highdicom.seg.segread(BytesIO(response.content)), series)
    assert list(found) == ["pancreas"]
    assert found["pancreas"][INSIDE]
    assert len(segmentations.of(series)) == before  # it is for the client alone
    upload = {"file": ("a.nii.gz", b"voxels")}
    response = server.post(params, image="", output="dicom_seg", files=upload)
    assert (response.status_code, "needs image" in response.json()["detail"]) == (422, True), response.text


def test_ohif_shows_a_label_of_the_archive_where_the_organs_are(
    server: Server, archive: str, browser: Browser, tmp_path: Path
) -> None:
    from .ohif import Viewer  # needs playwright

    study = write_studies(tmp_path, [CT])[CT]
    servers.upload(archive, study.dicom)
    uid = str(pydicom.dcmread(next(study.dicom.rglob("*.dcm"))).SeriesInstanceUID)
    names = {name: number for number, name in enumerate(study.organs, start=1)}
    label_map = sum(mask * np.uint8(names[name]) for name, mask in study.organs.items())
    series = Series(uid, study.dicom, np.eye(4), [])
    shown = {f"{name} (肝)": value for name, value in names.items()}
    response = save_as_ohif(server, series, label_map.astype(np.uint8), shown)
    assert response.status_code == 200, response.text

    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
    viewer = Viewer(page)
    viewer.load_segmentation(server.url, study.study_uid)
    viewer.screenshot(ARTIFACTS / "dicom_seg.png")
    found = viewer.segmentation()
    page.context.close()
    assert list(found.segments) == list(shown)
    for name, mask in study.organs.items():
        np.testing.assert_array_equal(found.mask(f"{name} (肝)"), mask, err_msg=name)


def test_the_rest_of_a_series_that_arrives_later_is_fetched(server: Server, archive: str, tmp_path: Path) -> None:
    series = write_geometry(tmp_path / "late", GEOMETRIES["axial"])
    late = tmp_path / "not yet"
    late.mkdir()
    for file in sorted(series.folder.iterdir())[5:]:
        file.rename(late / file.name)
    servers.upload(archive, series.folder)
    points = {"label": "liver", "foreground": [[10, 17, 3]], "background": [], "extent": "slice"}
    answer, _ = server.slicer(points, image=series.uid)
    assert answer.shape[2] == 5
    servers.upload(archive, late)
    for _ in range(60):  # what was compared a short time ago counts as the same
        answer, _ = server.slicer(points, image=series.uid)
        if answer.shape[2] == SHAPE[2]:
            break
        time.sleep(1)
    assert answer.shape == SHAPE
