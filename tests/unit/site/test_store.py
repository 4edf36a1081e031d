"""The adapter store: versions never change, one of them is current, and no kill, race or full disk spoils that."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kill_store import ended, forked, kill_often, training, weights
from safetensors import SafetensorError

from causal_sam.errors import InputError, NotFoundError
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.versions import Comparison, ConflictError, DamagedVersionError, StoreError, Training, UsedLabel


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def published(store: AdapterStore, **changes: object) -> int:
    """Add a version to those that are there, and publish it."""
    version = store.add(weights(time.monotonic()), training(store.current(), **changes))
    store.publish(version.number)
    return version.number


def cut_off(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])


def leftovers(store: AdapterStore) -> list[str]:
    return [path.name for path in store.folder.glob(".*")]


def test_a_version_is_added_and_published(store: AdapterStore) -> None:
    assert (store.current(), store.numbers(), store.history.events()) == (None, [], [])
    said = Training(
        parent=None,
        encoder_hash="1" * 64,
        labels=(UsedLabel("Fall-Ü", "final", "2" * 64),),
        names=("liver", "spleen"),
        metrics={"liver": 0.9, "spleen": 1},
        config={"rank": 8, "lad": {"adversary": 0.05}},
    )
    version = store.add(weights(), said)
    assert (version.number, version.status, store.current()) == (1, "candidate", None)
    assert version.manifest.training == said
    assert set(version.manifest.packages) >= {"causal-sam", "torch"}
    assert version.manifest.time.endswith("+00:00")
    store.publish(1)
    assert store.current() == 1
    assert (store.folder / "current").read_text().startswith('{"act": "publish", "number": 1')
    with AdapterStore(store.folder).lease_current() as (leased, notice):
        assert (leased.number, leased.status, notice) == (1, "published", None)
        assert leased.adapter == store.folder / "v0001" / "adapter.safetensors"
    assert [(event.act, event.number, event.before) for event in store.history.events()] == [("publish", 1, None)]
    for name in ("adapter.safetensors", "manifest.json"):
        assert not (store.folder / "v0001" / name).stat().st_mode & 0o222
    assert leftovers(store) == []


def test_a_store_of_an_earlier_release_is_read(store: AdapterStore) -> None:
    """Its files as they were written then, byte for byte but for the weights."""
    folder, time_added = store.folder / "v0001", "2026-01-02T03:04:05.678901+00:00"
    folder.mkdir(parents=True)
    weights()(folder / "adapter.safetensors")
    digest = hashlib.sha256((folder / "adapter.safetensors").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(
        f"""{{
 "number": 1,
 "training": {{
  "parent": null,
  "encoder_hash": "1f",
  "labels": [
   {{
    "image": "case00",
    "tag": "final",
    "sha256": "2e"
   }}
  ],
  "names": [
   "liver"
  ],
  "metrics": {{
   "liver": 0.9
  }},
  "parent_metrics": {{}},
  "config": {{
   "epochs": 30
  }}
 }},
 "adapter_sha256": "{digest}",
 "time": "{time_added}",
 "packages": {{
  "torch": "2.5.1"
 }}
}}"""
    )
    (folder / "lease").touch()
    act = f'{{"act": "publish", "number": 1, "time": "{time_added}", "before": null, "reason": null}}\n'
    (store.folder / "current").write_text(act)
    (store.folder / "history.jsonl").write_text(act)
    with store.lease_current() as (version, notice):
        assert (version.number, version.status, notice) == (1, "published", None)
    said = version.manifest.training
    assert said == Training(
        None, "1f", (UsedLabel("case00", "final", "2e"),), ("liver",), {"liver": 0.9}, {}, {"epochs": 30}
    )
    assert (version.manifest.time, version.manifest.packages) == (time_added, {"torch": "2.5.1"})
    assert published(store) == 2
    assert (store.folder / "history.jsonl").read_text().startswith(act)


def test_another_store_object_sees_every_change_at_once(store: AdapterStore) -> None:
    server = AdapterStore(store.folder)
    for number in range(1, 6):
        assert published(store) == number
        assert server.current() == number
    store.roll_back(2)
    assert server.current() == 2


def test_rejected_versions_stay_with_their_reason(store: AdapterStore) -> None:
    published(store)
    store.add(weights(), training(1))
    store.reject(2, "The liver fell by 0.04.")
    version = store.version(2)
    assert (version.status, version.reason, store.current()) == ("rejected", "The liver fell by 0.04.", 1)
    for act in (store.publish, lambda number: store.reject(number, "again")):
        with pytest.raises(InputError, match=r"v0002 was rejected before: The liver fell"):
            act(2)
    with pytest.raises(InputError, match="never published"):
        store.roll_back(2)
    for act in (store.publish, lambda number: store.reject(number, "late")):
        with pytest.raises(InputError, match="v0001 was published before: roll back to it"):
            act(1)


def test_rolling_back_is_recorded_and_training_goes_on_from_there(store: AdapterStore) -> None:
    for _ in range(3):
        published(store)
    store.roll_back(1)
    assert store.current() == 1
    with pytest.raises(InputError, match="v0001 is current already"):
        store.roll_back(1)
    assert published(store) == 4
    store.roll_back(3)
    acts = [(event.act, event.number, event.before) for event in store.history.events()]
    assert acts[3:] == [("roll back", 1, 3), ("publish", 4, 1), ("roll back", 3, 4)]


def test_versions_that_are_not_there_are_said(store: AdapterStore) -> None:
    with pytest.raises(NotFoundError, match="There are no versions in"), store.lease(1):
        pass
    with pytest.raises(NotFoundError, match="No version was published in"), store.lease_current():
        pass
    published(store)
    for act in (store.version, store.publish, store.roll_back):
        with pytest.raises(NotFoundError, match=r"There is no version v0009 in .*: choose one of v0001"):
            act(9)


def test_what_json_cannot_hold_is_said_before_anything_is_written(store: AdapterStore) -> None:
    for changes in (
        {"metrics": {"liver": float("nan")}},
        {"metrics": {"liver": np.float32(0.5)}},
        {"config": {"path": Path()}},
        {"names": "liver"},
    ):
        with pytest.raises(InputError, match="must be what JSON can hold"):
            store.add(weights(), training(None, **changes))
    assert not store.folder.exists()


@pytest.mark.parametrize(
    ("write", "error", "sentence"),
    [
        (lambda path: None, StoreError, "no file of weights"),
        (lambda path: path.write_bytes(b"nonsense"), StoreError, "no file of weights .*: write it as safetensors"),
        (lambda path: 1 / 0, ZeroDivisionError, "division by zero"),
    ],
)
def test_a_failed_training_leaves_nothing(
    store: AdapterStore, write: Callable[[Path], object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        store.add(write, training(None))
    assert (store.numbers(), leftovers(store)) == ([], [])
    assert published(store) == 1


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("adapter.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1]), "was changed .wrong SHA-256"),
        ("adapter.safetensors", Path.unlink, "adapter.safetensors cannot be read"),
        ("manifest.json", lambda path: path.write_text(path.read_text()[:100]), "manifest.json is cut off"),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace("true", "")[1:]), "cut off"),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace(': "', ": 1e9", 1)), "cut off"),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace("3", "7", 1)), "is that of v0007"),
        ("manifest.json", Path.unlink, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_version_is_said_and_the_one_before_is_used(
    store: AdapterStore, name: str, damage: Callable[[Path], object], sentence: str
) -> None:
    for _ in range(3):
        published(store)
    path = store.folder / "v0003" / name
    path.chmod(0o644)
    damage(path)
    with pytest.raises(DamagedVersionError, match=sentence), store.lease(3):
        pass
    with store.lease_current() as (version, notice):
        assert version.number == 2
    assert "v0003 is damaged" in notice
    assert notice.endswith("Until then v0002 is used, which it was trained from.")
    assert store.current() == 3  # as long as nobody says otherwise
    store.roll_back(2)
    with store.lease_current() as (version, notice):
        assert (version.number, notice) == (2, None)
    with pytest.raises(DamagedVersionError):
        store.roll_back(3)


def test_ancestors_are_those_that_were_trained_from_not_those_that_were_current(store: AdapterStore) -> None:
    for _ in range(3):
        published(store)
    store.roll_back(1)
    published(store)
    cut_off(store.folder / "v0004" / "adapter.safetensors")
    with store.lease_current() as (version, _):
        assert version.number == 1
    shutil.rmtree(store.folder / "v0001")
    with pytest.raises(DamagedVersionError, match="None of those that it was trained from"), store.lease_current():
        pass


def test_damaged_weights_are_not_published(store: AdapterStore) -> None:
    store.add(weights(), training(None))
    cut_off(store.folder / "v0001" / "adapter.safetensors")
    with pytest.raises(DamagedVersionError):
        store.publish(1)
    assert (store.current(), store.version(1).status) == (None, "candidate")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"act": "publ'), cut_off])
def test_a_lost_current_is_taken_from_history(store: AdapterStore, damage: Callable[[Path], object]) -> None:
    published(store)
    published(store)
    store.add(weights(), training(2))
    store.reject(3, "worse")
    damage(store.folder / "current")
    assert store.current() == 2
    with store.lease_current() as (version, notice):
        assert version.number == 2
    assert "is lost or damaged, so the last entry of history.jsonl counts" in notice
    store.add(weights(), training(2))  # any change puts it right
    with store.lease_current() as (version, notice):
        assert (version.number, notice) == (2, None)
    assert len(store.history.events()) == 3


def test_a_damaged_line_of_history_costs_that_line_alone(store: AdapterStore) -> None:
    for _ in range(3):
        published(store)
    path = store.folder / "history.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:40], lines[2][:40]]))
    assert [event.number for event in store.history.events()] == [1, 3]
    assert published(store) == 4
    assert [event.number for event in store.history.events()] == [1, 3, 4]
    assert [store.version(number).status for number in store.numbers()] == [
        "published",
        "candidate",
        "published",
        "published",
    ]


def test_a_store_that_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="make room there, or make it writable"):
        AdapterStore(tmp_path / "file").add(weights(), training(None))
    (tmp_path / "store" / "current").mkdir(parents=True)
    with pytest.raises(StoreError, match="current cannot be read"):
        AdapterStore(tmp_path / "store").current()


def test_versions_are_compared(store: AdapterStore) -> None:
    one, two, corrected = (UsedLabel(image, "final", digest) for image, digest in (("a", "1"), ("b", "2"), ("a", "3")))
    published(store, labels=(one,), names=("liver", "kidney"), metrics={"liver": 0.8, "kidney": 0.6})
    published(
        store,
        labels=(corrected, two),
        names=("liver", "spleen"),
        metrics={"liver": 0.9, "spleen": 0.7},
        parent_metrics={"liver": 0.75},
    )
    published(store, metrics={"liver": 0.95}, parent_metrics={"liver": 0.85})

    def compare(first: int, second: int) -> Comparison:
        return Comparison.between(store.version(first), store.version(second))

    comparison = compare(1, 2)
    # Those of the parent were measured again, on the same cases.
    assert comparison.metrics == {"liver": (0.75, 0.9), "spleen": (None, 0.7)}
    assert (comparison.names_gained, comparison.names_lost) == (("spleen",), ("kidney",))
    assert (comparison.labels_gained, comparison.labels_lost) == ((corrected, two), (one,))
    assert comparison.same_cases
    assert compare(2, 1).metrics == {"liver": (0.9, 0.75), "spleen": (0.7, None)}
    assert compare(2, 2).same_cases
    far = compare(1, 3)
    assert (far.same_cases, far.metrics["liver"]) == (False, (0.8, 0.95))


def test_collecting_keeps_the_newest_what_is_current_and_where_it_came_from(store: AdapterStore) -> None:
    for _ in range(4):
        published(store)
    for number in (5, 6, 7):
        store.add(weights(), training(4))
        store.reject(number, "worse")
    store.add(weights(), training(4))
    assert store.collect(2) == [1, 2, 5, 6]
    assert store.collect(2) == []
    store.roll_back(3)
    for _ in range(3):
        published(store)
    store.roll_back(3)
    # 9, 10 and 11 came from 3; what 3 came from is not there any more.
    assert store.collect(1) == [4, 7, 9, 10]
    assert store.numbers() == [3, 8, 11]
    assert store.version(3).status == "published"
    assert published(store) == 12
    cut_off(store.folder / "v0012" / "adapter.safetensors")
    store.collect(1)
    with store.lease_current() as (version, _):
        assert version.number == 3
    with pytest.raises(InputError, match="At least 1 version"):
        store.collect(0)


def test_the_nearest_ancestor_that_stays_is_a_sound_one(store: AdapterStore) -> None:
    for _ in range(4):
        published(store)
    cut_off(store.folder / "v0003" / "adapter.safetensors")
    assert store.collect(1) == [1, 3]


def test_numbers_are_not_used_again(store: AdapterStore) -> None:
    published(store)
    for number in (2, 3):
        store.add(weights(), training(1))
        store.reject(number, "worse")
    shutil.rmtree(store.folder / "v0003")
    assert published(store) == 4


def test_another_process_keeps_a_version_by_its_lease(store: AdapterStore) -> None:
    for _ in range(4):
        published(store)
    reading, writing = os.pipe()

    def hold() -> None:
        with store.lease(1), AdapterStore(store.folder).lease(1):
            os.write(writing, b"x")
            time.sleep(60)

    holder = forked(hold)
    assert os.read(reading, 1) == b"x"
    assert store.collect(1) == [2]
    os.kill(holder, signal.SIGKILL)
    assert ended(holder) == -signal.SIGKILL
    assert store.collect(1) == [1]
    with pytest.raises(NotFoundError), store.lease(1):
        pass


def test_whoever_waits_for_a_version_that_is_removed_does_not_get_it(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        published(store)
    opened = os.open

    def open_late(path: Path, *arguments: int) -> int:
        file = opened(path, *arguments)
        if Path(path).parent.name == "v0001":
            monkeypatch.undo()
            assert AdapterStore(store.folder).collect(1) == [1]
        return file

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(NotFoundError), store.lease(1):
        pass


def test_a_version_that_is_replaced_and_removed_while_it_is_opened_is_no_damage(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store)
    lease = AdapterStore.lease

    def lease_late(self: AdapterStore, number: int) -> object:
        if number == 1:
            monkeypatch.undo()
            for _ in range(3):
                published(store)
            store.collect(1)
        return lease(self, number)

    monkeypatch.setattr(AdapterStore, "lease", lease_late)
    with store.lease_current() as (version, notice):
        assert (version.number, notice) == (4, None)


def test_of_two_publishers_one_wins_and_the_other_says_so(store: AdapterStore) -> None:
    published(store)
    waiting, go = os.pipe()
    reading, writing = os.pipe()

    def compete() -> None:
        os.close(go)
        version = store.add(weights(os.getpid()), training(1))
        os.read(waiting, 1)
        try:
            store.publish(version.number)
            os.write(writing, b"won\n")
        except ConflictError as error:
            os.write(writing, f"{error}\n".encode())

    both = [forked(compete), forked(compete)]
    while len(store.numbers()) < 3:
        time.sleep(0.01)
    os.close(go)
    assert [ended(child) for child in both] == [0, 0]
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = sorted(pipe.read().splitlines())
    winner = store.current()
    loser = 5 - winner
    assert said == [
        f"v000{loser} was trained from v0001, but v000{winner} is current now, so it was not published: train again "
        f"from v000{winner}.",
        "won",
    ]
    assert [store.version(number).status for number in (winner, loser)] == ["published", "rejected"]
    assert store.version(loser).reason == said[0]


def test_many_processes_add_at_once(store: AdapterStore) -> None:
    children = [forked(lambda: [store.add(weights(), training(None)) for _ in range(5)]) for _ in range(4)]
    assert [ended(child) for child in children] == [0] * 4
    assert store.numbers() == list(range(1, 21))
    assert leftovers(store) == []


def killed_at(step: int) -> None:
    """Have this process killed just before the step-th time that it changes a file or a lock."""
    count = 0
    changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & changing
        if opens or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "fcntl.flock"):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@pytest.mark.parametrize(
    ("act", "steps"),
    [
        (lambda store: store.add(weights(), training(2)), 10),
        (lambda store: store.publish(3), 5),
        (lambda store: store.reject(3, "worse"), 3),
        (lambda store: store.roll_back(1), 5),
        (lambda store: store.collect(1), 8),
    ],
    ids=["add", "publish", "reject", "roll back", "collect"],
)
def test_a_kill_before_any_step_leaves_a_whole_store(
    tmp_path: Path, act: Callable[[AdapterStore], object], steps: int
) -> None:
    template = AdapterStore(tmp_path / "template")
    published(template, names=("spleen",))
    published(template)
    template.add(weights(), training(2))
    template.add(weights(), training(2))
    for step in range(1, 100):
        store = AdapterStore(tmp_path / str(step))
        shutil.copytree(template.folder, store.folder)
        code = ended(forked(lambda step=step, store=store: (killed_at(step), act(store))))
        before = store.history.events()
        with store.lease_current() as (version, notice):
            assert notice is None
        assert version.number == [event for event in before if event.act != "reject"][-1].number
        for number in store.numbers():
            with store.lease(number):
                pass
        assert {1, 2} <= {event.number for event in before if event.act == "publish"}
        last = published(store)
        assert last > 4
        assert store.history.events()[: len(before)] == before
        assert leftovers(store) == []
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert steps < step < 99


def test_a_full_disk_is_said_and_changes_nothing(store: AdapterStore) -> None:
    published(store)
    store.add(weights(), training(1))

    def limited(size: int, act: Callable[[], object]) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        with pytest.raises(StoreError, match=r"cannot be written .*: make room there"):
            act()

    before = sorted(path.relative_to(store.folder) for path in store.folder.rglob("*"))
    pointer = (store.folder / "current").read_bytes()
    for size, act in (
        (2000, lambda: store.add(weights(), training(1))),
        (2000, lambda: store.add(weights(size=100), training(1, config={"much": "x" * 5000}))),
        (50, lambda: store.publish(2)),
        (150, lambda: store.reject(2, "worse")),
    ):
        assert ended(forked(lambda size=size, act=act: limited(size, act))) == 0
        assert sorted(path.relative_to(store.folder) for path in store.folder.rglob("*")) == before
        assert (store.folder / "current").read_bytes() == pointer
    assert store.version(2).status == "candidate"
    store.publish(2)
    assert store.current() == 2


def test_what_was_published_on_a_disk_that_was_full_right_after_is_recorded_later(store: AdapterStore) -> None:
    published(store)
    store.add(weights(), training(1))

    def publish() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))  # enough for `current`, not for two entries of history
        store.publish(2)

    assert ended(forked(publish)) == 0
    assert len((store.folder / "history.jsonl").read_text().splitlines()) == 1
    assert [event.number for event in store.history.events()] == [1, 2]
    assert store.version(2).status == "published"
    published(store)
    recorded = [json.loads(line)["number"] for line in (store.folder / "history.jsonl").read_text().splitlines()]
    assert recorded == [1, 2, 3]


def test_a_writer_that_safetensors_fails_for_is_said(store: AdapterStore) -> None:
    def fail(path: Path) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    with pytest.raises(StoreError, match="No space left on device"):
        store.add(fail, training(None))


def test_kills_at_random_moments(store: AdapterStore) -> None:
    counts = kill_often(store.folder, kills=25, seed=0)
    assert counts.total() == 25
    assert counts["between"] < 20
