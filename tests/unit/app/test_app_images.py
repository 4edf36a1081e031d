"""Finding images and saved labels, with MONAI Label's own local data store."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import read_volume
from causal_sam.imaging.label_names import names_in_info, values_by_name
from serving.data.folder_store import FolderStore
from serving.data.images import ForbiddenPathError, ImageFinder, VolumeCache, volume_key
from serving.data.saved_labels import SavedLabels

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    studies = tmp_path / "studies"
    (studies / "more").mkdir(parents=True)
    write(studies / "ct.nii.gz", np.arange(64, dtype=np.int16).reshape(4, 4, 4))
    write(studies / "more" / "other.nii.gz", np.ones((4, 4, 4), np.int16))
    write(tmp_path / "secret.nii.gz", np.ones((4, 4, 4), np.int16))
    (studies / "more" / "link.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    return FolderStore(str(studies), extensions=["*.nii.gz"], auto_reload=False)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return tmp_path / "studies"


def test_images_by_id_and_by_path(store: FolderStore, studies: Path) -> None:
    finder = ImageFinder(store, str(studies))
    assert finder.find("ct").image_id == "ct"
    assert finder.find("ct").path == studies.resolve() / "ct.nii.gz"
    for image in ("more/other.nii.gz", str(studies / "more" / "other.nii.gz")):
        assert finder.find(image).path == (studies / "more" / "other.nii.gz").resolve()
        assert finder.find(image).image_id is None


def test_an_id_that_is_also_a_file_here_is_the_id(
    store: FolderStore, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "ct").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert ImageFinder(store, str(studies)).find("ct").path.name == "ct.nii.gz"


@pytest.mark.parametrize("image", ["/etc/passwd", "/nowhere", "../secret.nii.gz", "more/link.nii.gz", ".", "more/.."])
def test_paths_that_lead_out_are_refused(store: FolderStore, studies: Path, image: str) -> None:
    with pytest.raises(ForbiddenPathError):
        ImageFinder(store, str(studies)).find(image)


@pytest.mark.parametrize("image", ["", "nobody", "more/nobody.nii.gz", "ct\0.nii.gz"])
def test_unknown_images(store: FolderStore, studies: Path, image: str) -> None:
    with pytest.raises(NotFoundError):
        ImageFinder(store, str(studies)).find(image)


def test_a_remote_store_has_no_folder_to_look_in(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        ImageFinder(store, "http://127.0.0.1:1/dicom-web").find(str(tmp_path / "secret.nii.gz"))


def test_volumes_are_read_once_until_the_file_changes(studies: Path, store: FolderStore) -> None:
    path = studies / "ct.nii.gz"
    cache = VolumeCache(10**6)
    first = cache.get(volume_key(path))
    assert cache.get(volume_key(path)) is first
    write(path, np.zeros((4, 4, 4), np.int16))
    os.utime(path, ns=(1, 1))
    assert cache.get(volume_key(path)) is not first
    small = VolumeCache(10)
    assert small.get(volume_key(path)) is not small.get(volume_key(path))


def test_frames_are_images_of_their_own(tmp_path: Path) -> None:
    array = np.arange(4 * 4 * 4 * 3, dtype=np.int16).reshape(4, 4, 4, 3)
    path = write(tmp_path / "cine.nii.gz", array)
    cache = VolumeCache(10**6)
    keys = [volume_key(path, frame) for frame in range(3)]
    assert len(set(keys)) == 3
    assert volume_key(path) == keys[0]
    volumes = [cache.get(key) for key in keys]
    for frame, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.array, array[..., frame])
        assert cache.get(keys[frame]) is volume
    with pytest.raises(InputError, match=r"frame must be in 0\.\.2, not 3"):
        cache.get(volume_key(path, 3))


def test_what_cannot_be_read(studies: Path, store: FolderStore) -> None:
    with pytest.raises(NotFoundError):
        volume_key(studies / "nobody.nii.gz")
    (studies / "broken.nii.gz").write_bytes(b"no image")
    cache = VolumeCache(10**6)
    for _ in range(2):
        with pytest.raises(InputError):
            cache.get(volume_key(studies / "broken.nii.gz"))


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({}, {}),
        ({"label_info": [{"name": "liver", "idx": 2}, {"name": "spleen", "id": 5}]}, {"liver": 2, "spleen": 5}),
        ({"label_info": [{"name": "liver"}, {"name": "spleen"}]}, {"liver": 1, "spleen": 2}),
        ({"label_names": ["liver", "spleen"]}, {"liver": 1, "spleen": 2}),
        ({"params": {"label_names": {"liver": 1, "background": 4}}}, {"liver": 1}),
        ({"label_info": "liver", "label_names": {"liver": "x", "": 1}, "params": []}, {}),
    ],
)
def test_names_in_all_forms(info: dict, names: dict[str, int]) -> None:
    assert names_in_info(info) == names


def test_values_that_slicer_renumbered() -> None:
    assert values_by_name({"liver": 2, "spleen": 3}, [2]) == {"liver": 2, "spleen": 3}
    # A segment before them was counted but not exported.
    assert values_by_name({"liver": 2, "spleen": 3}, [1, 2]) == {"liver": 1, "spleen": 2}


def named(**values: int) -> dict:
    return {"label_info": [{"name": name, "idx": value} for name, value in values.items()]}


def test_the_newest_saved_label_and_its_masks(store: FolderStore, studies: Path, tmp_path: Path) -> None:
    saved = SavedLabels(store)
    volume = read_volume(studies / "ct.nii.gz")
    assert saved.newest("ct") is None
    assert saved.newest(None) is None

    array = np.zeros((4, 4, 4), np.uint8)
    array[0] = 2
    by_server = {"params": {"label_names": {"liver": 1, "spleen": 2}}}
    store.save_label("ct", str(write(tmp_path / "a.nii.gz", array)), "original", by_server)
    first = saved.newest("ct")
    masks, is_whole = saved.masks(first, volume)
    assert is_whole
    assert set(masks) == {"spleen", "liver"}
    np.testing.assert_array_equal(masks["spleen"], array == 2)

    store.save_label("ct", str(write(tmp_path / "b.nii.gz", array)), "final", named(cyst=1, liver=2))
    second = saved.newest("ct")
    assert second.version != first.version
    masks, _ = saved.masks(second, volume)
    assert not masks["cyst"].any()  # named and without voxels: erased
    np.testing.assert_array_equal(masks["liver"], array == 2)

    store.save_label("ct", str(tmp_path / "b.nii.gz"), "final", named(spleen=2))
    assert saved.newest("ct").version != second.version  # the same voxels under another name
    assert set(saved.masks(second, volume)[0]) == {"spleen"}  # what is read has the names that it was saved with


def test_values_without_a_name_are_not_shown_under_one(
    store: FolderStore, studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved, volume = SavedLabels(store), read_volume(studies / "ct.nii.gz")
    path = write(tmp_path / "a.nii.gz", np.full((4, 4, 4), 2, np.uint8))
    store.save_label("ct", str(path), "final", {})
    assert saved.masks(saved.newest("ct"), volume) == ({}, False)
    assert "has no names for its values [2]" in caplog.text
    store.save_label("ct", str(path), "final", named(liver=2))
    Path(store.get_label_uri("ct", "final")).write_bytes(path.read_bytes() + b"more")  # by another program
    assert store.get_label_info("ct", "final").keys() == {"name", "ts"}
    assert saved.masks(saved.newest("ct"), volume) == ({}, False)


def test_a_label_of_one_frame_is_not_taken_for_another(store: FolderStore, studies: Path, tmp_path: Path) -> None:
    saved = SavedLabels(store)
    array = np.ones((4, 4, 4), np.uint8)
    path = write(tmp_path / "a.nii.gz", array)
    cine = write(studies / "cine.nii.gz", np.ones((4, 4, 4, 2), np.int16))
    store.refresh()
    store.save_label("cine", str(path), "original", {"params": {"label_names": {"liver": 1}, "frame": 1}})
    assert saved.newest("cine", 0) is None
    assert saved.newest("cine", None) == saved.newest("cine", 1)
    assert list(saved.masks(saved.newest("cine", 1), read_volume(cine, 1))[0]) == ["liver"]

    store.save_label("cine", str(path), "final", {"label_info": [{"name": "liver"}]})
    for frame in (0, 1):  # a client does not say which it was
        assert saved.newest("cine", frame).path.parent.name == "final"
    store.store_label("ct", cine, "final", named(liver=1))
    assert saved.masks(saved.newest("ct"), read_volume(studies / "ct.nii.gz")) == (
        {},
        False,
    )  # no label map has several frames


def test_labels_on_another_grid_or_unreadable_are_not_used(store: FolderStore, studies: Path, tmp_path: Path) -> None:
    saved = SavedLabels(store)
    volume = read_volume(studies / "ct.nii.gz")
    moved = AFFINE.copy()
    moved[0, 3] = 7.5
    store.store_label("ct", write(tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.uint8), moved), "final", named(liver=1))
    assert saved.masks(saved.newest("ct"), volume) == ({}, False)
    Path(store.get_label_uri("ct", "final")).write_bytes(b"no image")
    assert saved.masks(saved.newest("ct"), volume) == ({}, False)
