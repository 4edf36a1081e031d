"""The data store of a folder: kills, other servers and full disks lose nothing, and names stay with their bytes."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import stat
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from filelock import FileLock
from kill_store import ended, forked
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException
from shared_store import IMAGES, SHAPE, make_images, named, opened, save, saved_pair

from causal_sam.errors import InputError
from causal_sam.site.accepted import accepted_labels, read_accepted
from causal_sam.site.label_files import pending_path
from serving.data import folder_index
from serving.data.folder_index import LockedError, ReadOnlyError
from serving.data.folder_store import FolderStore
from serving.data.label_set import RESERVED

KILLS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path / "studies")


def index(folder: Path) -> dict:
    return json.loads((folder / "datastore_v2.json").read_text())


def test_two_servers_on_one_folder_lose_no_label(folder: Path) -> None:
    _save_by_two(folder, seconds=4)


@pytest.mark.slow
def test_two_servers_on_one_folder_lose_no_label_in_a_minute(folder: Path) -> None:
    _save_by_two(folder, seconds=60)


def _save_by_two(folder: Path, seconds: float) -> None:
    pipes = [os.pipe() for _ in range(2)]
    savers = [forked(partial(_save_for_seconds, folder, seconds, seed, pipe[1])) for seed, pipe in enumerate(pipes)]
    for _, writing in pipes:
        os.close(writing)
    store, reads, end = opened(folder), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for image_id, entry in store.objects().items():
            for tag in entry.labels:
                saved_pair(store, image_id, tag)
                reads += 1
        (folder / f"other{reads}.nii.gz").write_bytes(b"")  # what others put there is listed meanwhile
    answered = {}
    for saver, (reading, _) in zip(savers, pipes, strict=True):
        with os.fdopen(reading) as pipe:
            answered |= {tuple(line.split("\t")[:2]): int(line.split("\t")[2]) for line in pipe}
        assert ended(saver) == 0
    assert len(answered) > 10
    assert reads > 10
    for server in (store, opened(folder)):  # the one that ran on, and one that starts
        for (image_id, tag), value in answered.items():
            assert saved_pair(server, image_id, tag) == (value, f"structure {value}")


def _save_for_seconds(folder: Path, seconds: float, seed: int, pipe: int) -> None:
    """Save labels of the images that the other one saves too, each under tags of its own."""
    store, rng, end = opened(folder), random.Random(seed), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as elsewhere, os.fdopen(pipe, "w", buffering=1) as told:
        while time.monotonic() < end:
            image, tag, value = (
                f"case{rng.randrange(IMAGES)}",
                f"reader {seed}{rng.randrange(3)}",
                rng.randrange(1, 250),
            )
            store.save_label(image, str(save(Path(elsewhere) / "label.nii.gz", value)), tag, named(value))
            told.write(f"{image}\t{tag}\t{value}\n")


def test_threads_lose_no_label_and_readers_get_pairs(folder: Path, tmp_path: Path) -> None:
    store, stop = opened(folder), threading.Event()

    def read() -> int:
        pairs = 0
        while not stop.is_set():
            for label in accepted_labels(folder):  # as a training process does
                try:
                    _, structures = read_accepted(label)
                except InputError as error:
                    assert "saved again since" in str(error)  # noqa: PT017
                    continue
                ((name, mask),) = structures.items()
                with label.label.open("rb"):
                    assert mask.all()
                assert name == label.info["label_info"][0]["name"]
                pairs += 1
            for image_id in store.get_labeled_images():
                saved_pair(store, image_id)
        return pairs

    def accept(number: int) -> None:
        path = tmp_path / f"label{number}.nii.gz"
        for value in range(1, 7):
            store.save_label(f"case{number}", str(save(path, value)), "final", named(value))

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read) for _ in range(2)]
        list(pool.map(accept, range(6)))
        stop.set()
        assert all(reader.result() for reader in readers)
    assert {saved_pair(opened(folder), f"case{number}") for number in range(6)} == {(6, "structure 6")}


@pytest.mark.parametrize("kills", [KILLS, pytest.param(150, marks=pytest.mark.slow)])
def test_labels_outlive_servers_that_are_killed(folder: Path, tmp_path: Path, kills: int) -> None:
    rng, saved, kept = random.Random(0), {}, set()
    for kill in range(kills):
        reading, writing = os.pipe()
        child = forked(lambda seed=kill, pipe=writing: _save_for_ever(folder, tmp_path, seed, pipe))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            lines = [pipe.readline()]
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            assert ended(child) == -signal.SIGKILL, "the child failed"
            lines += pipe.readlines()
        answered = {}
        for line in lines:
            done, image_id, value = line.split("\t")
            if done == "done":
                answered[image_id] = {int(value)}
            else:  # was begun: it may have been saved
                answered.setdefault(image_id, saved.get(image_id, set())).add(int(value))
        saved |= answered
        store = opened(folder)  # as a server that starts again
        finished = {line.split("\t")[1] for line in lines if line.startswith("done")}
        assert finished | kept <= set(store.get_labeled_images())
        kept |= finished
        for image_id in store.get_labeled_images():
            value, name = saved_pair(store, image_id)
            assert value in saved[image_id]
            assert name == f"structure {value}"
            saved[image_id] = {value}
    assert not [path for path in folder.rglob("*.part") if path.parent.name == "final"], "something was left behind"
    assert len(saved) > 3


def _save_for_ever(folder: Path, elsewhere: Path, seed: int, pipe: int) -> None:
    store, rng = opened(folder), random.Random(seed)
    while True:
        image_id, value = f"case{rng.randrange(IMAGES)}", rng.randrange(1, 250)
        path = save(elsewhere / "label.nii.gz", value)
        os.write(pipe, f"begin\t{image_id}\t{value}\n".encode())
        store.save_label(image_id, str(path), "final", named(value))
        os.write(pipe, f"done\t{image_id}\t{value}\n".encode())


def test_a_save_that_was_killed_between_names_and_bytes_is_finished(folder: Path, tmp_path: Path) -> None:
    store = opened(folder)
    store.save_label("case1", str(save(tmp_path / "a.nii.gz", 1)), "final", named(1))
    path = Path(store.get_label_uri("case1", "final"))
    before = path.read_bytes()
    store.save_label("case1", str(save(tmp_path / "a.nii.gz", 2)), "final", named(2))
    path.replace(pending_path(path))
    path.write_bytes(before)  # the index has the names of 2, the file is that of 1
    ((label,), _) = accepted_labels(folder), None
    _, structures = read_accepted(label)  # a training process that starts now
    assert list(structures) == ["structure 2"]
    assert saved_pair(store, "case1") == (2, "structure 2")
    assert saved_pair(opened(folder), "case1") == (2, "structure 2")
    assert not pending_path(path).exists()
    pending_path(path).write_bytes(b"of a save that was killed before the index named it")
    assert saved_pair(opened(folder), "case1") == (2, "structure 2")
    assert not pending_path(path).exists()


def test_a_full_disk_leaves_everything_as_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(folder)
    store.save_label("case0", str(save(tmp_path / "a.nii.gz", 1)), "final", named(1))
    before = (folder / "datastore_v2.json").read_bytes()
    label, calls = save(tmp_path / "b.nii.gz", 2), []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")

    # A disk cannot be filled at just this moment, so writing fails as it would.
    monkeypatch.setattr(os, "fsync", full)
    for failing in (1, 2):  # noqa: B007 (`full` looks at it)
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            store.save_label("case0", str(label), "final", named(2))
        assert (folder / "datastore_v2.json").read_bytes() == before
        assert saved_pair(store, "case0") == (1, "structure 1")
        assert not list(folder.rglob("*.part"))


def test_links_and_permissions_stay(folder: Path, tmp_path: Path) -> None:
    folder.chmod(0o750)
    store = opened(folder)
    path, real = folder / "datastore_v2.json", tmp_path / "real.json"
    path.rename(real)
    path.symlink_to(real)
    real.chmod(0o660)
    store.set_description("here")
    assert path.is_symlink()
    assert json.loads(real.read_text())["description"] == "here"
    assert stat.S_IMODE(real.stat().st_mode) == 0o660
    store.add_image("new", str(save(tmp_path / "new.nii.gz", 1)), {})
    assert stat.S_IMODE((folder / "new.nii.gz").stat().st_mode) == 0o640  # as the folder
    outside = save(tmp_path / "outside.nii.gz", 3)
    (folder / "linked.nii.gz").symlink_to(outside)
    assert "linked" in store.list_images()
    store.remove_image("linked")
    assert outside.exists()
    assert not (folder / "linked.nii.gz").is_symlink()


def test_an_image_that_is_sent_again_keeps_its_labels_and_their_names(folder: Path, tmp_path: Path) -> None:
    store = opened(folder)
    path = str(save(tmp_path / "label.nii.gz", 5))
    for tag in ("final", "original"):
        store.save_label("case1", path, tag, named(5))
    other = tmp_path / "other.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), other)  # on another grid, too
    for image in (save(tmp_path / "again.nii.gz", 9), other):
        assert store.add_image("case1", str(image), {"user": "someone"}) == "case1"
        for server in (store, opened(folder)):
            server.refresh()
            assert server.get_image_info("case1")["user"] == "someone"
            assert Path(server.get_image_uri("case1")).read_bytes() == image.read_bytes()
            for tag in ("final", "original"):
                assert saved_pair(server, "case1", tag) == (5, "structure 5")
    assert sorted(store.list_images()) == sorted(f"case{n}" for n in range(IMAGES))  # the old file is gone
    (label,) = accepted_labels(folder)
    with pytest.raises(InputError, match="is not on the grid of its image"):
        read_accepted(label)


def test_names_come_back_with_the_very_bytes_they_were_for(folder: Path, tmp_path: Path) -> None:
    store = opened(folder)
    store.save_label("case1", str(save(tmp_path / "label.nii.gz", 5)), "final", named(5))
    image, label = folder / "case1.nii.gz", folder / "labels" / "final" / "case1.nii.gz"
    for path, entry in ((image, "list_images"), (label, "get_labeled_images")):
        aside = tmp_path / "aside"
        path.rename(aside)
        assert "case1" not in getattr(store, entry)()
        assert "case1" not in getattr(opened(folder), entry)()
        assert "vanished" not in store.json()
        aside.rename(path)
        assert saved_pair(store, "case1") == (5, "structure 5")
        assert saved_pair(opened(folder), "case1") == (5, "structure 5")
    label.rename(tmp_path / "aside")
    assert store.get_labeled_images() == []
    save(label, 6)  # another one appears
    assert store.get_labeled_images() == ["case1"]
    assert store.get_label_info("case1", "final").keys() == {"name", "ts"}
    (folder / "labels" / "second reader").mkdir()
    save(folder / "labels" / "second reader" / "case2.nii.gz", 1)
    assert store.get_label_info("case2", "second reader").keys() == {"name", "ts"}
    with pytest.raises(InputError, match="nothing says for certain which structures its values 6 are"):
        read_accepted(accepted_labels(folder)[0])
    store.remove_image("case1")
    save(image, 1)
    save(label, 5)
    assert store.get_label_info("case1", "final").keys() == {"name", "ts"}  # what was deleted is forgotten


def test_what_two_servers_do_is_seen_by_both(folder: Path, tmp_path: Path) -> None:
    one, other = opened(folder), opened(folder, watches=False)
    path = str(save(tmp_path / "label.nii.gz", 1))
    for n, store in enumerate((one, other, one, other)):
        store.save_label(f"case{n}", path, "final", named(1))
        for server in (one, other):
            assert server.get_labeled_images() == [f"case{m}" for m in range(n + 1)]
    one.remove_label("case0", "final")
    other.remove_image("case1")
    one.update_image_info("case2", {"strategy": {"first": {"ts": 1}}})
    other.update_label_info("case2", "final", {"reader": "B"})
    one.set_name("ours")
    for server in (one, other, opened(folder)):
        assert server.get_labeled_images() == ["case2", "case3"]
        assert "case1" not in server.list_images()
        assert server.get_image_info("case2")["strategy"] == {"first": {"ts": 1}}
        assert server.get_label_info("case2", "final")["reader"] == "B"
        assert saved_pair(server, "case2") == (1, "structure 1")
        assert server.name() == "ours"
    with pytest.raises(LabelNotFoundException):
        other.remove_label("case0", "final")
    for act in (one.remove_image, lambda image: one.save_label(image, path, "final", named(1))):
        with pytest.raises(ImageNotFoundException):
            act("case1")


def test_plain_monai_label_reads_what_is_saved(folder: Path, tmp_path: Path) -> None:
    store = opened(folder)
    for image_id in ("case0", "case1"):
        store.save_label(image_id, str(save(tmp_path / "label.nii.gz", 7)), "final", named(7))
    (folder / "case0.nii.gz").rename(tmp_path / "case0.nii.gz")
    store.refresh()
    plain = LocalDatastore(str(folder), extensions=["*.nii.gz"], auto_reload=False)
    assert plain.get_labeled_images() == ["case1"]
    assert plain.get_label_info("case1", "final")["label_info"] == named(7)["label_info"]
    path = Path(plain.get_label_uri("case1", "final"))
    assert path == folder / "labels" / "final" / "case1.nii.gz"
    assert np.asarray(nibabel.load(path).dataobj).max() == 7
    plain.save_label("case2", str(path), "final", {"label_info": [{"name": "structure 7", "idx": 7}]})
    assert saved_pair(store, "case2") == (7, "structure 7")


def test_what_could_not_be_read_again_is_refused(folder: Path, tmp_path: Path) -> None:
    store = opened(folder)
    path = str(save(tmp_path / "label.nii.gz", 1))
    nested: list = []
    for _ in range(3000):
        nested = [nested]
    refused = [
        {"note": "\ud800"},
        {"\udfff": 1},
        {"a": float("nan")},
        {"a": [float("-inf")]},
        {"a": 10**5000},
        {"a": nested},
        {"a": "x" * 2**21},
        {"label_info": [{"name": "liver", "idx": 10**400}]},
        {"label_info": [{"name": "liver", "idx": "1" * 5000}]},
        *({"label_info": [{"name": "liver", "idx": idx}]} for idx in (-1, 1.5, True, None, "x", [], 70_000)),
        *({"label_info": [{"name": name, "idx": 1}]} for name in ("result_1", "a\nb", "\u202eab", "x" * 201)),
        *({"label_names": {name: 1}} for name in RESERVED - {"background"}),
        {"params": {"label_names": {"result_mask": 1}}},
    ]
    before = (folder / "datastore_v2.json").read_bytes()
    for info in refused:
        with pytest.raises(InputError) as caught:
            store.save_label("case0", path, "final", info)
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable(), info
    for info in ({"a": "\ud800"}, {"a": 10**5000}):
        with pytest.raises(InputError):
            store.update_image_info("case0", info)
        with pytest.raises(InputError):
            store.add_image("new", str(folder / "case0.nii.gz"), info)
    for tag in ("../../x", "/tmp/x", "a/b", ".", "..", "", " ", "a\0b", "x" * 300, "\ud800"):
        if tag:
            with pytest.raises(InputError):
                store.save_label("case0", path, tag, named(1))
    for image_id in ("../x", "/tmp/x", "a/b", "..", ".hidden", "a\0b", "x" * 300, "\ud800"):
        with pytest.raises(InputError):
            store.add_image(image_id, path, {})
    for name in ("label.txt", "label", "label.nii.gz.exe"):
        with pytest.raises(InputError):
            store.add_image("new", str(tmp_path / name), {})
    assert (folder / "datastore_v2.json").read_bytes() == before
    assert not list(folder.rglob("*.part"))
    store.save_label(
        "case0", path, "final", {"label_info": [{"name": "background", "idx": 0}, *named(1)["label_info"]]}
    )
    store.update_label_info("case0", "final", {"checksum": "SHA256:0", "name": "x"})  # these are the server's to say
    assert saved_pair(opened(folder), "case0") == (1, "structure 1")


def test_what_is_no_image_is_refused_and_the_one_before_stays(folder: Path, tmp_path: Path) -> None:
    opened(folder).save_label("case0", str(save(tmp_path / "label.nii.gz", 1)), "final", named(1))
    store = FolderStore(str(folder), extensions=["*.nii.gz", "*.nii", "*.nrrd"], max_voxels=SHAPE[0] * SHAPE[1] * 8)
    whole = save(tmp_path / "whole.nii.gz", 1).read_bytes()
    unpacked = gzip.decompress(whole)
    large = tmp_path / "large.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((*SHAPE[:2], 9), np.uint8), np.eye(4)), large)
    bad = {
        "junk.nii.gz": b"junk" * 100,
        "cut.nii.gz": whole[: len(whole) // 2],
        "packed.nii.gz": gzip.compress(b"junk" * 100),
        "cut.nii": unpacked[:-10],
        "header.nii": unpacked[:348],
        "large.nii.gz": large.read_bytes(),
        "junk.nrrd": b"junk" * 100,
    }
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        for image_id in ("case0", "new", ""):
            with pytest.raises(InputError) as caught:
                store.add_image(image_id, str(tmp_path / name), {})
            assert caught.value.status == (413 if name == "large.nii.gz" else 422)
            assert str(caught.value).startswith("The image ")
            assert str(caught.value).endswith((".", ")")), str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert set(store.list_images()) == {f"case{number}" for number in range(IMAGES)}
    assert store.add_image("case0", str(save(tmp_path / "whole.nii", 2)), {}) == "case0"


def test_a_folder_that_cannot_be_written_is_served_and_says_so(folder: Path, tmp_path: Path) -> None:
    opened(folder).save_label("case0", str(save(tmp_path / "label.nii.gz", 1)), "final", named(1))
    tmp_path.chmod(0o755)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    save(tmp_path / "label.nii.gz", 2).chmod(0o644)

    def serve() -> None:
        if os.getuid() == 0:
            for change, nobody in ((os.setgroups, []), (os.setgid, 65534), (os.setuid, 65534)):
                change(nobody)  # root may write everywhere
        assert not os.access(folder, os.W_OK)
        store = opened(folder)
        assert len(store.list_images()) == IMAGES
        assert saved_pair(store, "case0") == (1, "structure 1")
        for act in (
            lambda: store.save_label("case0", str(tmp_path / "label.nii.gz"), "final", named(2)),
            lambda: store.add_image("new", str(tmp_path / "label.nii.gz"), {}),
            lambda: store.remove_label("case0", "final"),
            lambda: store.remove_image("case0"),
            lambda: store.update_image_info("case0", {}),
        ):
            try:
                act()
            except ReadOnlyError as error:
                assert "cannot be written" in str(error)  # noqa: PT017
            else:
                raise AssertionError("it was written")
        (label,) = accepted_labels(folder)
        assert label.image_id == "case0"
        assert list(read_accepted(label)[1]) == ["structure 1"]

    # The folders above belong to root alone; the child only needs to pass through them.
    opened_up = [parent for parent in tmp_path.parents if not parent.stat().st_mode & stat.S_IXOTH]
    for parent in opened_up:
        parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    try:
        assert ended(forked(serve)) == 0
    finally:
        for parent in opened_up:
            parent.chmod(parent.stat().st_mode & ~stat.S_IXOTH)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_folder_that_somebody_keeps_locked_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_index, "LOCK_SECONDS", 0.05)
    store = opened(folder)
    lock = FileLock(folder / ".lock")
    with lock:
        failed = []
        thread = threading.Thread(target=lambda: failed.append(_failure(lambda: store.set_name("x"))))
        thread.start()
        thread.join()
        assert len(store.list_images()) == IMAGES  # reading needs no lock
    assert isinstance(failed[0], LockedError)
    assert failed[0].status == 503


def _failure(act) -> Exception | None:
    try:
        act()
    except Exception as error:
        return error
    return None


def test_a_label_is_checked_against_its_image(folder: Path, tmp_path: Path) -> None:
    store = opened(folder)
    store.save_label("case0", str(save(tmp_path / "good.nii.gz", 1)), "final", named(1))
    junk, shifted = tmp_path / "junk.nii.gz", tmp_path / "shifted.nii.gz"
    junk.write_bytes(b"junk!")
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([1, 1, 1.2, 1])), shifted)
    for path in (junk, shifted):
        with pytest.raises(InputError):
            store.save_label("case0", str(path), "final", named(1))
    raw = tmp_path / "label.bin"
    raw.write_bytes(bytes([3]) * int(np.prod(SHAPE)))
    assert saved_pair(store, "case0") == (1, "structure 1")
    store.save_label("case0", str(raw), "final", named(3))
    assert saved_pair(store, "case0") == (3, "structure 3")


def test_a_folder_store_replaces_every_method_that_changes_the_index() -> None:
    # Those of MONAI Label write what they have in memory, without looking at what is on disk.
    theirs = {"_init_from_datastore_file", "_update_datastore_file", "_reconcile_datastore"}
    for name, method in vars(LocalDatastore).items():
        used = getattr(getattr(method, "__code__", None), "co_names", ())
        if theirs & set(used) and name not in theirs and not name.startswith(("_add_non", "_remove_non", "_on_", "__")):
            assert getattr(FolderStore, name) is not method, name
