"""The data store on disk: whole after any kill, and watched as before by those who share it."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from kill_store import ended, forked
from monailabel.datastore import local
from monailabel.datastore.local import LocalDatastore

from serving import safe_datastore

NAMES = [f"structure {n}" for n in range(200)]  # enough that writing takes a while
KILLS = 12


@pytest.fixture(autouse=True)
def safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalDatastore, "_update_datastore_file", LocalDatastore._update_datastore_file)
    monkeypatch.setattr(local, "shutil", local.shutil)
    safe_datastore.install_safe_datastore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    studies = tmp_path / "studies"
    studies.mkdir()
    for n in range(4):
        _save(studies / f"case{n}.nii.gz", n)
    return studies


@pytest.fixture
def watched(folder: Path) -> Iterator[Callable[[], LocalDatastore]]:
    """Makes data stores that watch the folder, as the server's does."""
    made = []

    def make() -> LocalDatastore:
        made.append(_open(folder, auto_reload=True))
        return made[-1]

    yield make
    for store in made:
        store._observer.stop()
        store._observer.join()


def _save(path: Path, value: int) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.full((40, 40, 20), value, np.uint8), np.eye(4)), path)
    return path


def _open(folder: Path, auto_reload: bool = False) -> LocalDatastore:
    return LocalDatastore(str(folder), extensions=("*.nii.gz",), auto_reload=auto_reload)


def _names(store: LocalDatastore, image_id: str) -> list[str]:
    return [entry["name"] for entry in store.get_label_info(image_id, "final").get("label_info", [])]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it was waited for in vain"
        time.sleep(0.05)


def _save_for_ever(folder: Path, elsewhere: Path, seed: int, pipe: int) -> None:
    """Accept one label after the other, and tell about each that is accepted."""
    store, rng = _open(folder), random.Random(seed)
    while True:
        image, value = f"case{rng.randrange(4)}", rng.randrange(1, 200)
        path = _save(elsewhere / "label.nii.gz", value)
        store.save_label(image, str(path), "final", {"label_info": [{"name": name} for name in NAMES], "value": value})
        os.write(pipe, f"{image}\t{value}\n".encode())


def test_labels_outlive_a_server_that_is_killed(folder: Path, tmp_path: Path) -> None:
    rng, saved = random.Random(0), {}
    for kill in range(KILLS):
        reading, writing = os.pipe()
        child = forked(lambda seed=kill, pipe=writing: _save_for_ever(folder, tmp_path, seed, pipe))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            lines = [pipe.readline()]
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            assert ended(child) == -signal.SIGKILL, "the child failed"
            lines += pipe.readlines()
        saved |= dict.fromkeys(line.split("\t")[0] for line in lines)
        store = _open(folder)  # as a server that starts again
        assert set(saved) <= set(store.get_labeled_images())
        for image in saved:
            assert _names(store, image) == NAMES
            label = np.asarray(nibabel.load(store.get_label_uri(image, "final")).dataobj)
            assert label.min() == label.max() > 0  # whole
    assert sorted(saved) == [f"case{n}" for n in range(4)]
    _save(tmp_path / "label.nii.gz", 1)
    for image in saved:  # what a killed one left is put away
        store.save_label(image, str(tmp_path / "label.nii.gz"), "final", {})
    assert not list(folder.rglob("*.part"))


def test_a_full_disk_leaves_the_list_as_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _open(folder)
    before = (folder / "datastore_v2.json").read_bytes()
    # A disk cannot be filled at just this moment, so writing fails as it would.
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        store.save_label("case0", str(_save(tmp_path / "label.nii.gz", 1)), "final", {})
    assert (folder / "datastore_v2.json").read_bytes() == before
    assert not list(folder.rglob("*.part"))


def test_a_store_that_watches_sees_each_label_once(
    folder: Path, tmp_path: Path, watched: Callable[[], LocalDatastore]
) -> None:
    store = watched()
    path = str(_save(tmp_path / "label.nii.gz", 1))
    for n in range(4):
        for _ in range(2):
            store.save_label(f"case{n}", path, "final", {"label_info": [{"name": f"label {n}"}]})
    time.sleep(1)  # for events that would come late
    assert sorted(store.list_images()) == sorted(store.get_labeled_images()) == [f"case{n}" for n in range(4)]
    assert [_names(store, f"case{n}") for n in range(4)] == [[f"label {n}"] for n in range(4)]
    on_disk = json.loads((folder / "datastore_v2.json").read_text())["objects"]
    assert on_disk == store.json()["objects"]
    _save(folder / "case9.nii.gz", 9)  # what others put there is found as before
    _until(lambda: "case9" in store.list_images())
    (folder / "labels" / "final" / "case0.nii.gz").unlink()
    _until(lambda: "case0" not in store.get_labeled_images())


def test_who_shares_the_folder_sees_what_another_one_writes(
    folder: Path, tmp_path: Path, watched: Callable[[], LocalDatastore]
) -> None:
    one, other = watched(), watched()
    path = str(_save(tmp_path / "label.nii.gz", 1))
    for n, store in enumerate((one, other, one, other)):
        store.save_label(f"case{n}", path, "final", {"label_info": [{"name": f"label {n}"}]})
        _until(lambda n=n: all(_names(each, f"case{n}") == [f"label {n}"] for each in (one, other)))
    assert len(_open(folder).get_labeled_images()) == 4


def test_links_and_permissions_stay(folder: Path, tmp_path: Path) -> None:
    store = _open(folder)
    path, real = folder / "datastore_v2.json", tmp_path / "real.json"
    path.rename(real)
    path.symlink_to(real)
    real.chmod(0o660)
    store.set_description("here")
    assert path.is_symlink()
    assert json.loads(real.read_text())["description"] == "here"
    assert stat.S_IMODE(real.stat().st_mode) == 0o660
