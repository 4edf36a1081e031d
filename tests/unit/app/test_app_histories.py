"""Sessions of clients: what is kept for whom, how much, for how long, and through a restart."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_sam.imaging import PackedMask
from causal_sam.prompting.history import CHAIN_FILE, History, Step, StepKind
from causal_sam.prompting.label_state import LabelState
from serving.keyed_locks import KeyedLocks
from serving.requests.clients import SERVER, RequestContext, current_context, identify, in_context
from serving.sessions import histories
from serving.sessions.histories import HistoryStore, Owner

SHAPE = (8, 8, 8)


def click(store: HistoryStore, key: object, mask: np.ndarray | None = None, owner: Owner | None = None) -> None:
    """Add a step to a history."""
    if mask is None:
        mask = np.zeros(SHAPE, bool)
        mask[2, 2, 3:5] = True
    with store.open(key, SHAPE, owner or Owner()) as opened:
        labels = {"liver": LabelState(PackedMask.pack(mask))}
        opened.history = opened.history.then(Step(StepKind.PROMPTS, "liver", labels))


def steps(store: HistoryStore, key: object) -> int:
    with store.open(key, SHAPE) as opened:
        return opened.history.position


def test_histories_are_kept_by_key_within_a_number_and_a_size(tmp_path: Path) -> None:
    few = HistoryStore(None, 10**6, max_count=2)
    for key in "abc":
        click(few, key)
    assert len(few) == 2
    assert steps(few, "c") == 1
    assert steps(few, "a") == 0  # used the longest time ago
    noise = np.random.default_rng(0).random((64, 64, 64)) < 0.5
    small = HistoryStore(tmp_path, 60_000)
    for key in "abc":
        with small.open(key, noise.shape) as opened:
            labels = {"liver": LabelState(PackedMask.pack(noise))}
            opened.history = opened.history.then(Step(StepKind.PROMPTS, "liver", labels))
    assert len(small) == 1
    for key in "abc":  # memory is limited, and the disk has the others
        with small.open(key, noise.shape) as opened:
            np.testing.assert_array_equal(opened.history.head.labels["liver"].mask.unpack(), noise)


def test_a_failure_keeps_the_history_as_it_was(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path, 10**6)
    click(store, "a")

    def fail() -> None:
        with store.open("a", SHAPE) as opened:
            opened.history = History()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert steps(store, "a") == steps(HistoryStore(tmp_path, 10**6), "a") == 1


def test_a_restart_loses_nothing_and_strangers_read_nothing(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "sessions", 10**6)
    key = (("/studies/Jane Doe.nii.gz", 0, ()), "user jane")
    click(store, key)
    click(store, key)
    click(store, None)
    again = HistoryStore(tmp_path / "sessions", 10**6)
    with again.open(key, SHAPE) as opened:
        opened.history = opened.history.undone()
    assert steps(HistoryStore(tmp_path / "sessions", 10**6), key) == 1
    (folder,) = (tmp_path / "sessions").iterdir()
    assert "jane" not in folder.name.lower()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "sessions", folder)} == {0o700}


def test_the_last_step_counts_whichever_server_of_the_folder_made_it(tmp_path: Path) -> None:
    one, two = HistoryStore(tmp_path, 10**6), HistoryStore(tmp_path, 10**6)
    for number, store in enumerate((one, two, one, one, two)):
        assert steps(store, "a") == number
        click(store, "a")
    assert steps(one, "a") == steps(HistoryStore(tmp_path, 10**6), "a") == 5


def test_old_sessions_leave_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HistoryStore(tmp_path, 10**6, max_count=3)

    def folders() -> int:
        return len(list(tmp_path.iterdir()))

    for number in range(5):
        click(store, number)
    assert folders() == 3
    old = time.time() - histories.EXPIRY_SECONDS - 60
    for path in tmp_path.glob(f"*/{CHAIN_FILE}"):
        os.utime(path, (old, old))
    assert steps(HistoryStore(tmp_path, 10**6), 4) == 0
    assert folders() == 0
    click(store, "new")
    assert folders() == 1
    monkeypatch.setattr(histories, "MAX_DISK_BYTES", 1)
    click(store, "newer")
    assert folders() == 1
    assert steps(HistoryStore(tmp_path, 10**6), "newer") == 1


def test_who_works_on_an_image_is_known_as_long_as_the_session_is_kept(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path, 10**6, max_count=2)
    for name in ("ann", "ben"):
        click(store, name, owner=Owner("ct", name))
    assert store.in_work()["ct"].keys() == HistoryStore(tmp_path, 10**6).in_work()["ct"].keys() == {"ann", "ben"}
    old = time.time() - histories.EXPIRY_SECONDS - 60
    for path in tmp_path.glob(f"*/{CHAIN_FILE}"):
        os.utime(path, (old, old))
    click(store, "cat", owner=Owner("mr", "cat"))  # a new session removes those that expired
    assert store.in_work().keys() == {"mr"}


def test_where_nothing_can_be_written_requests_are_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    store = HistoryStore(tmp_path / "file", 10**6)
    with caplog.at_level(logging.WARNING):
        click(store, "a")
    assert "will not survive a restart" in caplog.text
    assert steps(store, "a") == 1


def test_one_key_is_worked_on_by_one_thread_while_others_go_on() -> None:
    locks = KeyedLocks()
    inside, counted = [], []

    def work(number: int) -> None:
        with locks.hold("same"):
            inside.append(number)
            with locks.hold(number):  # another key, held by nobody
                counted.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert counted == [1] * 200
    assert not locks._locks

    began = threading.Event()
    with locks.hold("a"), ThreadPoolExecutor(1) as pool:

        def other() -> None:
            with locks.hold("b"):
                began.set()

        pool.submit(other).result(timeout=10)
    assert began.is_set()


@given(st.text(), st.text(), st.text(), st.text())
def test_who_asks(session: str, user: str, address: str, client_id: str) -> None:
    name = identify(session, user, address, client_id)
    if session:
        assert name == identify(session, "someone", "elsewhere", "else")
    elif user:
        assert name == identify("", user, "elsewhere", "else")
    else:
        assert address in name or not address
        assert name != identify("", "", address, client_id + "x")


def test_the_asker_is_known_within_the_request_only() -> None:
    assert current_context() is SERVER
    with in_context(RequestContext("address 1")):
        assert current_context().name == "address 1"
    assert current_context() is SERVER


def test_who_works_on_which_image_is_known_through_a_restart(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path, 10**6)
    with store.open("looked at", SHAPE, Owner("mr", "ann")):
        pass
    with store.open("worked on", SHAPE, Owner("ct", "ann")) as opened:
        labels = {"liver": LabelState(PackedMask.pack(np.ones(SHAPE, bool)))}
        opened.history = opened.history.then(Step(StepKind.PROMPTS, "liver", labels))
    for each in (store, HistoryStore(tmp_path, 10**6)):
        assert {image: list(clients) for image, clients in each.in_work().items()} == {"ct": ["ann"]}
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / histories.OWNER_FILE).write_text("{")
    assert HistoryStore(tmp_path, 10**6).in_work().keys() == {"ct"}
