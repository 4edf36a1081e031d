"""The store of a DICOMweb server: series fetched whole, labels that go to the archive, and archives that fail."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from e2e.series import GEOMETRIES, SHAPE, Series, write_geometry
from unit.app.dicom_archive import StubArchive, stub_archive
from unit.imaging.dicom_files import rewrite

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import Volume, read_volume, write_mask
from serving.data import archive as archive_module
from serving.data import dicomweb_store
from serving.data.archive import ArchiveError, describe_failure
from serving.data.dicomweb_store import DicomWebStore


@pytest.fixture
def archive() -> Iterator[StubArchive]:
    with stub_archive() as running:
        yield running


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return write_geometry(tmp_path / "series", GEOMETRIES["axial"])


def open_store(archive: StubArchive, tmp_path: Path) -> DicomWebStore:
    """Open a store as a server does when it starts."""
    return DicomWebStore(DICOMwebClient(archive.url), {"Modality": "CT"}, str(tmp_path / "cache"))


@pytest.fixture
def store(archive: StubArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DicomWebStore:
    # Each use of a series asks the archive.
    monkeypatch.setattr(dicomweb_store, "COMPARED_SECONDS", 0.0)
    return open_store(archive, tmp_path)


def fetch(store: DicomWebStore, series: Series) -> Volume:
    return read_volume(Path(store.get_image_uri(series.uid)))


def slices(series: Series) -> list[Path]:
    return sorted(series.folder.iterdir())


def whole(series: Series) -> Volume:
    return read_volume(series.folder)


def save_label(store: DicomWebStore, series: Series, tmp_path: Path, tag: str = "final") -> None:
    image = fetch(store, series)
    label = np.zeros(image.shape, np.uint8)
    label[3:6, 4:8, 1:3] = 1
    path = write_mask(label, image, tmp_path / "label.nii.gz")
    store.save_label(series.uid, str(path), tag, {"label_info": [{"name": "liver", "idx": 1}]})


def test_half_a_series_becomes_whole_when_the_archive_has_the_rest(
    archive: StubArchive, series: Series, store: DicomWebStore
) -> None:
    archive.add(*slices(series)[:4])
    half = fetch(store, series)
    assert half.shape[2] == 4
    archive.add(*slices(series)[4:])
    found = fetch(store, series)
    np.testing.assert_array_equal(found.array, whole(series).array)
    np.testing.assert_allclose(found.affine, whole(series).affine, atol=1e-4)
    # Nothing of it is left lying, and it is not fetched again.
    names = sorted(path.name for path in Path(store._datastore_path).iterdir() if series.uid in path.name)
    assert names == [f".{series.uid}.lock", series.uid, f"{series.uid}.nii.gz"]
    before = len(archive.requests)
    fetch(store, series)
    assert not any("/studies/" in request and request.endswith(series.uid) for request in archive.requests[before:])


def test_instances_that_were_replaced_or_removed_are_fetched_again(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path
) -> None:
    archive.add(*slices(series))
    fetch(store, series)
    first = next(iter(archive.files))

    def brighter(header: pydicom.Dataset) -> None:
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{first}.1"
        header.PixelData = b"\1" * len(header.PixelData)

    rewrite(slices(series)[0], brighter)
    del archive.files[first]
    archive.add(slices(series)[0])
    np.testing.assert_array_equal(fetch(store, series).array, whole(series).array)
    last = slices(series)[-1]
    del archive.files[str(pydicom.dcmread(last).SOPInstanceUID)]
    last.rename(tmp_path / "last")
    np.testing.assert_array_equal(fetch(store, series).array, whole(series).array)


def test_an_archive_that_lists_only_some_instances_is_not_asked_for_all_again(
    archive: StubArchive, series: Series, store: DicomWebStore
) -> None:
    archive.add(*slices(series))
    archive.listed = 3
    first = Path(store.get_image_uri(series.uid)).stat()
    assert Path(store.get_image_uri(series.uid)).stat().st_mtime_ns == first.st_mtime_ns


def test_a_series_is_checked_again_only_after_a_while(archive: StubArchive, series: Series, tmp_path: Path) -> None:
    store = open_store(archive, tmp_path)
    archive.add(*slices(series))
    fetch(store, series)
    asked = len(archive.requests)
    fetch(store, series)
    assert len(archive.requests) == asked


def test_a_label_of_the_half_series_is_kept(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path
) -> None:
    archive.add(*slices(series)[:4])
    save_label(store, series, tmp_path)
    kept = read_volume(Path(store.get_label_uri(series.uid, "final")))
    archive.add(*slices(series)[4:])
    fetch(store, series)
    again = read_volume(Path(store.get_label_uri(series.uid, "final")))
    np.testing.assert_array_equal(again.array, kept.array)
    np.testing.assert_array_equal(again.affine, kept.affine)
    assert store.get_label_info(series.uid, "final")["label_info"] == [{"name": "liver", "idx": 1}]


@pytest.mark.parametrize("failure", ["short", "cut off", "killed"])
def test_a_download_that_ends_early_leaves_nothing_half(
    archive: StubArchive, series: Series, store: DicomWebStore, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    archive.add(*slices(series))
    with monkeypatch.context() as patch:
        if failure == "short":
            archive.sent = 3
        elif failure == "cut off":
            archive.cut_off = True
        else:

            def die(*arguments: object, **options: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(Path, "rename", die)
        with pytest.raises((ArchiveError, requests.RequestException, KeyboardInterrupt)) as caught:
            fetch(store, series)
        if failure == "short":
            assert str(caught.value).startswith("The server that holds the images sent 3 of the 8 images")
            assert caught.value.status == 502
    assert not Path(store._datastore_path, series.uid).exists()
    archive.sent, archive.cut_off = None, False
    np.testing.assert_array_equal(fetch(store, series).array, whole(series).array)


def test_a_server_that_was_killed_between_fetching_and_converting_converts_anew(
    archive: StubArchive, series: Series, store: DicomWebStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add(*slices(series)[:4])
    fetch(store, series)
    archive.add(*slices(series)[4:])
    with monkeypatch.context() as patch:

        def die(*arguments: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(dicomweb_store, "write_image", die)
        with pytest.raises(KeyboardInterrupt):
            fetch(store, series)
    np.testing.assert_array_equal(fetch(store, series).array, whole(series).array)


def test_many_who_ask_for_one_series_wait_for_one_download(
    archive: StubArchive, series: Series, tmp_path: Path
) -> None:
    archive.add(*slices(series))
    stores = [open_store(archive, tmp_path) for _ in range(2)]  # as of two servers
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda store=store: found.append(int(fetch(store, series).array.sum())))
        for store in stores * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [int(whole(series).array.sum())] * 6
    assert sum(request.endswith(f"/series/{series.uid}") for request in archive.requests) == 1


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        ({"status": 503}, 502, "answers 503"),
        ({"status": 401}, 502, "answers 401"),
        ({"status": 429}, 502, "answers 429"),
        ({"wait": 4.0}, 504, "does not answer in time"),
        ({"body": b"<html>Please sign in</html>"}, 502, "does not answer as it should"),
        (None, 502, "cannot be reached"),
    ],
)
def test_a_failing_archive_is_said_at_once_and_what_was_fetched_is_used(
    series: Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: dict | None,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(dicomweb_store, "COMPARED_SECONDS", 0.0)
    if failure is not None and "wait" in failure:
        monkeypatch.setattr(archive_module, "QUERY_SECONDS", 1.0)
    other = write_geometry(tmp_path / "other", GEOMETRIES["oblique"])
    with stub_archive() as archive:
        store = open_store(archive, tmp_path)
        archive.add(*slices(series))
        image = fetch(store, series)
        for name, value in (failure or {}).items():
            setattr(archive, name, value)
        if failure is not None:
            _fails_well(store, archive, series, other, image, status, words)
            # Once, not again and again.
            assert sum("series?" in request for request in archive.requests[-4:]) <= 4
    if failure is None:
        _fails_well(store, archive, series, other, image, status, words)
    assert f"Series {series.uid} is used as it was fetched" in caplog.text


def _fails_well(
    store: DicomWebStore, archive: StubArchive, series: Series, other: Series, image: Volume, status: int, words: str
) -> None:
    before = len(archive.requests)
    with pytest.raises(requests.RequestException) as caught:
        fetch(store, other)
    assert len(archive.requests) <= before + 1
    said = describe_failure(caught.value)
    assert (said[0], words in said[1]) == (status, True), said
    with pytest.raises(requests.RequestException):
        store.list_images()
    np.testing.assert_array_equal(fetch(store, series).array, image.array)


@pytest.mark.parametrize("failure", [{"status": 503}, {"failing_store": True}])
def test_a_label_that_the_archive_refuses_leaves_the_accepted_one(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path, failure: dict
) -> None:
    archive.add(*slices(series))
    save_label(store, series, tmp_path)
    path = Path(store.get_label_uri(series.uid, "final"))
    content, info = path.read_bytes(), store.get_label_info(series.uid, "final")
    for name, value in failure.items():
        setattr(archive, name, value)
    with pytest.raises((requests.HTTPError, ArchiveError)):
        save_label(store, series, tmp_path)
    assert path.read_bytes() == content
    assert store.get_label_info(series.uid, "final") == info


def test_a_label_is_stored_in_the_archive_and_comes_back(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path
) -> None:
    archive.add(*slices(series))
    save_label(store, series, tmp_path)
    saved = read_volume(Path(store.get_label_uri(series.uid, "final")))
    body = archive.stored[-1].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
    (tmp_path / "seg.dcm").write_bytes(body)
    archive.add(tmp_path / "seg.dcm")
    # Another server, which has not seen it.
    fresh = open_store(archive, tmp_path / "elsewhere")
    fresh.take_accepted()
    np.testing.assert_array_equal(read_volume(Path(fresh.get_label_uri(series.uid, "final"))).array, saved.array)
    info = fresh.get_label_info(series.uid, "final")
    assert info["label_info"] == [{"name": "liver", "idx": 1}]
    assert info["SeriesInstanceUID"] == str(pydicom.dcmread(io.BytesIO(body)).SeriesInstanceUID)


def test_labels_that_the_archive_does_not_list_are_kept(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path
) -> None:
    archive.add(*slices(series))
    save_label(store, series, tmp_path)
    assert [pair["image"] for pair in store.datalist()] == [store.get_image_uri(series.uid)]
    assert Path(store.get_label_uri(series.uid, "final")).is_file()


def test_what_is_no_series_of_the_archive_is_said(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path
) -> None:
    archive.add(*slices(series))
    for image_id in ("1.2.3", "../x", "/etc", "", "1" * 65, "1.2/..", "a.b", "1..2"):
        with pytest.raises(NotFoundError, match="no series"):
            store.get_image_uri(image_id)
    fetch(store, series)
    archive.files.clear()
    with pytest.raises(NotFoundError, match="no series"):
        store.get_image_uri(series.uid)


def test_a_series_that_is_no_even_stack_is_refused_and_leaves_no_image(
    archive: StubArchive, series: Series, store: DicomWebStore
) -> None:
    archive.add(*(file for number, file in enumerate(slices(series)) if number != 3))
    with pytest.raises(InputError):
        store.get_image_uri(series.uid)
    assert not Path(store._datastore_path, f"{series.uid}.nii.gz").exists()
    archive.add(slices(series)[3])
    assert fetch(store, series).shape == SHAPE


def test_labels_that_are_none_of_the_image_leave_the_accepted_one(
    archive: StubArchive, series: Series, store: DicomWebStore, tmp_path: Path
) -> None:
    archive.add(*slices(series))
    save_label(store, series, tmp_path)
    path = Path(store.get_label_uri(series.uid, "final"))
    content, stored = path.read_bytes(), len(archive.stored)
    bad = tmp_path / "bad.nii.gz"
    moved = Volume(np.ones(SHAPE, np.uint8), np.eye(4))
    for write in (
        lambda: bad.write_bytes(b"junk!"),
        lambda: bad.write_bytes(b""),
        lambda: write_mask(moved.array, moved, bad),
    ):
        write()
        for tag in ("final", "original", "mine"):
            with pytest.raises(InputError):
                store.save_label(series.uid, str(bad), tag, {})
    assert (path.read_bytes(), len(archive.stored)) == (content, stored)
    assert json.loads(Path(store._datastore_path, "datastore_v2.json").read_text())


def test_series_have_titles_as_far_as_the_archive_says_it(
    archive: StubArchive, series: Series, store: DicomWebStore
) -> None:
    archive.add(*slices(series))
    header = pydicom.dcmread(slices(series)[0], stop_before_pixels=True)
    title = store.titles()[series.uid]
    known = [str(header.get(key) or "") for key in ("PatientID", "SeriesDescription", "StudyDate")]
    assert title == " · ".join(filter(None, known))
    assert title
