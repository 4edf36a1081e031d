"""Updates that are killed or have no room, memory or sound labels: nothing is lost, the next one works."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from kill_store import ended, forked
from small_memory import update_without_memory
from tiny_site import AFFINE, LEFT, SHAPE, TinySite, quick

from causal_sam.errors import CausalSamError, InputError
from causal_sam.site import accepted
from causal_sam.site import training as job_training
from causal_sam.site import update as updates
from causal_sam.site.accepted import DATA_STORE
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import TRAINING, UpdateError, is_running
from causal_sam.site.training import RESULT
from causal_sam.site.update import JOB, update
from causal_sam.site.versions import StoreError
from causal_sam.training.engine import CHECKPOINT, TrainingEngine

pytestmark = pytest.mark.slow

KILL_SCRIPT = Path(__file__).parents[2] / "kill_update.py"
# So little is learned that the next version is as good as the first one.
LATER = {"learning_rate": 1e-15, "adapter_rate": 1e-15, "epochs": 1}
MIB = 2**20
IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = TinySite(tmp_path_factory.mktemp("first"))
    tiny.accept(0)
    assert update(tiny.site(), quick()).status == "published"
    return tiny.store


@pytest.fixture
def tiny(first_version: Path, tmp_path: Path) -> TinySite:
    """Return a site with a version in use, and a label that is new."""
    site = TinySite(tmp_path)
    site.accept(0)
    site.accept(1)
    shutil.copytree(first_version, site.store)
    return site


@pytest.fixture
def small_disk(first_version: Path, tmp_path: Path) -> Iterator[TinySite]:
    """Return the same, with the adapter store on a small disk of its own."""
    if not IS_ROOT:
        pytest.skip("only root can mount a small disk")
    site = TinySite(tmp_path)
    site.accept(0)
    site.accept(1)
    site.store.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(site.store)]
    if subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        shutil.copytree(first_version, site.store, dirs_exist_ok=True)
        yield site
    finally:
        subprocess.run(["umount", "--lazy", str(site.store)], check=True)


def fill(folder: Path, room: int) -> Path:
    """Fill the disk of a folder but for some bytes."""
    path = folder / "filler"
    with path.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(MIB // 8))
    os.truncate(path, path.stat().st_size - room)
    return path


def assert_unharmed(tiny: TinySite, digests: dict[str, str]) -> None:
    assert AdapterStore(tiny.store).current() == 1
    with AdapterStore(tiny.store).lease_current() as (version, notice):
        assert (version.number, notice) == (1, None)
    assert tiny.digests() == digests
    assert not is_running(tiny.store)


def assert_next_works(tiny: TinySite, **changes: Any) -> None:
    outcome = update(tiny.site(), quick(**LATER | changes))
    assert outcome.status == "published", outcome
    training = AdapterStore(tiny.store).version(outcome.version).manifest.training
    assert {label.image for label in training.labels} == set(tiny.objects())


def assert_one_sentence(error: BaseException) -> None:
    text = str(error)
    assert "\n" not in text
    assert "Traceback" not in text
    assert text.endswith(".")


def before(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, do: Callable[[], object]) -> None:
    """Let something happen at just that moment."""
    function = getattr(where, name)

    def first(*arguments: Any, **named: Any) -> Any:
        do()
        return function(*arguments, **named)

    monkeypatch.setattr(where, name, first)


def test_updates_that_are_killed_in_each_phase() -> None:
    # In processes of its own, since those of the tests have trained already, and forks of them could hang.
    done = subprocess.run([sys.executable, str(KILL_SCRIPT), "4", "1"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "4 kills" in done.stdout
    assert "0 unloadable, 0 lost" in done.stdout


def test_a_full_disk_at_any_moment(small_disk: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, digests, steps = small_disk, small_disk.digests(), []
    moments = {
        (TrainingEngine, "save"): 65_536,  # the checkpoint
        (job_training, "_save_result"): 65_536,
        (AdapterStore, "add"): 65_536,
        (AdapterStore, "publish"): 0,
    }
    before(monkeypatch, job_training._Recorder, "step", lambda: steps.append(1))
    fill(tiny.store, 16_384)  # while labels are read
    for moment, room in moments.items():
        with pytest.raises((UpdateError, StoreError)) as caught:
            update(tiny.site(), quick(**LATER))
        assert_one_sentence(caught.value)
        assert "No space left on device" in str(caught.value)
        assert_unharmed(tiny, digests)
        (tiny.store / "filler").unlink()
        with monkeypatch.context() as patched:
            patched.setattr(job_training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0 if moment[1] == "save" else 1e9)
            before(patched, *moment, lambda room=room: fill(tiny.store, room))
            with pytest.raises((UpdateError, StoreError)) as caught:
                update(tiny.site(), quick(**LATER))
        assert_one_sentence(caught.value)
        assert "No space left on device" in str(caught.value), moment
        assert_unharmed(tiny, digests)
    (tiny.store / "filler").unlink()
    trained = len(steps)
    assert_next_works(tiny)
    assert len(steps) == trained  # it went on from what was trained


def test_files_that_may_not_become_large_enough(tiny: TinySite) -> None:
    digests = tiny.digests()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        with pytest.raises(UpdateError, match=r"cannot be written or read \(File too large\), so nothing was"):
            update(tiny.site(), quick(**LATER))

    assert ended(forked(limited)) == 0
    assert_unharmed(tiny, digests)
    assert_next_works(tiny)


def test_a_store_that_cannot_be_written(small_disk: TinySite) -> None:
    tiny, digests = small_disk, small_disk.digests()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny.store)], check=True)
    with pytest.raises(UpdateError, match=r"cannot be written or read \(Read-only file system\)") as caught:
        update(tiny.site(), quick(**LATER))
    assert_one_sentence(caught.value)
    subprocess.run(["mount", "-o", "remount,rw", str(tiny.store)], check=True)
    assert_unharmed(tiny, digests)
    assert_next_works(tiny)


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_store_that_may_not_be_written(tiny: TinySite) -> None:
    (tiny.store / TRAINING).chmod(0o500)
    with pytest.raises(UpdateError, match=r"cannot be written or read \(Permission denied\)"):
        update(tiny.site(), quick(**LATER))
    (tiny.store / TRAINING).chmod(0o700)
    assert_next_works(tiny)


def test_no_memory_to_train(tiny: TinySite) -> None:
    digests = tiny.digests()
    # Not a fork: this process has freed memory of the tests before, which would be enough to train in.
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone,
        pytest.raises(UpdateError, match=r"^There is not enough memory to train, so nothing was published: use a"),
    ):
        alone.submit(update_without_memory, tiny.site(), quick(**LATER | {"batch": 512})).result()
    assert_unharmed(tiny, digests)
    assert_next_works(tiny)


def test_one_of_two_processes_that_is_killed(tiny: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that need the most memory, the kernel kills one."""
    digests = tiny.digests()

    def run(*_: Any) -> None:
        raise updates.torch.multiprocessing.ProcessExitedException(
            "process 1 terminated with signal SIGKILL", 1, 1, -signal.SIGKILL, "SIGKILL"
        )

    # The kernel cannot be made to do this without harm to others, so what PyTorch says of it is put in its place.
    monkeypatch.setattr(updates.idist.Parallel, "__enter__", lambda self: self)
    monkeypatch.setattr(updates.idist.Parallel, "__exit__", lambda *_: None)
    monkeypatch.setattr(updates.idist.Parallel, "run", run)
    with pytest.raises(UpdateError, match="There is not enough memory to train"):
        update(tiny.site(), quick(**LATER), processes=2)
    assert_unharmed(tiny, digests)


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _drawn(value: int) -> np.ndarray:
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[5:20, 5:20] = value
    return label_map


NAMED = {"label_info": [{"name": LEFT, "idx": 1}]}
# Fault of a label -> end of the sentence about it.
FAULTS: dict[str, tuple[Callable[[TinySite, str], object], str]] = {
    "label cut off": (lambda t, i: _cut(t.labels / f"{i}.nii.gz"), "is not a readable NIfTI file"),
    "label of zeros": (lambda t, i: _overwrite(t.labels / f"{i}.nii.gz", bytes(500)), "is not a readable NIfTI file"),
    "image cut off": (lambda t, i: _cut(t.data / f"{i}.nii.gz"), "is not a readable NIfTI file"),
    "other grid": (
        lambda t, i: t.save(i, _drawn(1), NAMED, affine=AFFINE @ np.diag([1.5, 1.5, 1.0, 1.0])),
        "is not on the grid of its image",
    ),
    "unknown value": (lambda t, i: t.save(i, _drawn(9), NAMED), "nothing says for certain"),
    "no names": (lambda t, i: t.save(i, _drawn(1), {}), "nothing says for certain which structures its values 1 are"),
    "empty": (lambda t, i: t.save(i, _drawn(0), NAMED), "is empty."),
    "image deleted": (lambda t, i: (t.data / f"{i}.nii.gz").unlink(), "was deleted."),
    "label deleted": (lambda t, i: (t.labels / f"{i}.nii.gz").unlink(), "cannot be read: No such file or directory."),
}


def test_labels_that_cannot_be_used_are_left_out_and_the_others_learnt(tiny: TinySite) -> None:
    bad = {tiny.accept(10 + n): fault for n, fault in enumerate(FAULTS)}
    for image_id, fault in bad.items():
        FAULTS[fault][0](tiny, image_id)
    digests = tiny.digests()
    outcome = update(tiny.site(), quick(**LATER))
    assert (outcome.status, outcome.version) == ("published", 2)
    assert {skip.image_id for skip in outcome.skipped} == set(bad)
    for skip in outcome.skipped:
        assert FAULTS[bad[skip.image_id]][1] in skip.why
        assert skip.image_id in skip.why
        assert skip.why.endswith(".")
        assert skip.why in outcome.message
    training = AdapterStore(tiny.store).version(2).manifest.training
    assert {label.image for label in training.labels} == {"case00", "case01"}
    assert training.config["skipped"].keys() == bad.keys()
    assert tiny.digests() == digests


def test_labels_of_which_none_can_be_used(tiny: TinySite) -> None:
    FAULTS["empty"][0](tiny, "case01")
    outcome = update(tiny.site(), quick(**LATER))
    assert outcome.status == "nothing"
    assert outcome.message.startswith("None of the new labels can be learned from. The first of them: The label of ")
    assert len(outcome.skipped) == 1
    assert AdapterStore(tiny.store).current() == 1


def test_a_study_that_is_deleted_while_it_is_learnt(tiny: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.accept(2)
    path = tiny.data / "case02.nii.gz"
    with monkeypatch.context() as patched:
        before(patched, updates, "train", path.unlink)
        assert update(tiny.site(), quick(**LATER)).status == "published"  # it was read before
    tiny.accept(3)
    outcome = update(tiny.site(), quick(**LATER))
    assert outcome.status == "published"
    assert [skip.why for skip in outcome.skipped] == ["The image of case02 was deleted."]
    assert "case02" not in {label.image for label in AdapterStore(tiny.store).version(3).manifest.training.labels}


def test_a_study_that_is_deleted_between_a_kill_and_the_next_update(
    tiny: TinySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.accept(2)
    monkeypatch.setattr(job_training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    child = forked(lambda: update(tiny.site(), quick(**LATER | {"epochs": 100})))
    while not (tiny.store / TRAINING / JOB / CHECKPOINT).exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the update ended"
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    (tiny.data / "case02.nii.gz").unlink()
    outcome = update(tiny.site(), quick(**LATER))
    assert outcome.status == "published"
    assert {label.image for label in AdapterStore(tiny.store).version(2).manifest.training.labels} == {
        "case00",
        "case01",
    }
    assert not (tiny.store / TRAINING / JOB).exists()


def test_a_data_store_that_cannot_be_used(tiny: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.data / DATA_STORE
    whole = path.read_bytes()
    monkeypatch.setattr(accepted, "LOCK_SECONDS", 0.05)
    faults = {
        "is locked: try again": lambda: None,
        "is damaged: restore it": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "is no data store of MONAI Label": path.unlink,
    }
    for sentence, damage in faults.items():
        damage()
        lock = FileLock(tiny.data / accepted.LOCK) if "locked" in sentence else nullcontext()
        with lock, pytest.raises(InputError, match=sentence) as caught:
            update(tiny.site(), quick(**LATER))
        assert_one_sentence(caught.value)
        assert AdapterStore(tiny.store).current() == 1
    path.write_bytes(whole)
    assert_next_works(tiny)


def test_a_version_in_use_that_is_damaged_is_said_to_be(tiny: TinySite) -> None:
    adapter = AdapterStore(tiny.store).version(1).adapter
    whole = adapter.read_bytes()
    adapter.chmod(0o600)
    _cut(adapter)
    with pytest.raises(
        CausalSamError, match=r"is damaged, its adapter.safetensors is cut off or was changed"
    ) as caught:
        update(tiny.site(), quick(**LATER))
    assert_one_sentence(caught.value)
    adapter.write_bytes(whole)
    assert_next_works(tiny)


def test_what_was_trained_is_used_though_the_disk_was_full_afterwards(
    small_disk: TinySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        before(patched, updates, "draw_update", lambda: fill(small_disk.store, 12_288))
        outcome = update(small_disk.site(), quick(**LATER))
    assert outcome.status == "published"  # without pictures
    assert AdapterStore(small_disk.store).current() == 2
    assert not (small_disk.store / TRAINING / JOB / RESULT).exists()
