"""The background worker: order, cancelling, and never in the way."""

from __future__ import annotations

import threading

import pytest

from causal_sam.prompting.prefetch import MAX_PENDING, PrefetchWorker

SECONDS = 30


@pytest.fixture
def worker():
    worker = PrefetchWorker()
    yield worker
    worker.close()


class Blocker:
    """A task that says that it runs and ends when it is told to."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> None:
        self.running.set()
        assert self.go_on.wait(SECONDS)


def test_runs_in_order_in_a_daemon_thread_that_ends(worker):
    seen = []
    worker.submit("a", [lambda n=n: seen.append((n, threading.current_thread().daemon)) for n in range(3)])
    assert worker.wait(SECONDS)
    assert seen == [(0, True), (1, True), (2, True)]
    worker.submit("a", [lambda: seen.append("again")])
    assert worker.wait(SECONDS)
    assert seen[-1] == "again"


def test_latest_request_first(worker):
    seen, blocker = [], Blocker()
    worker.submit("a", [blocker])
    assert blocker.running.wait(SECONDS)
    worker.submit("a", [lambda: seen.append("old 1"), lambda: seen.append("old 2")])
    worker.submit("b", [lambda: seen.append("new 1"), lambda: seen.append("new 2")])
    blocker.go_on.set()
    assert worker.wait(SECONDS)
    assert seen == ["new 1", "new 2", "old 1", "old 2"]


def test_cancel_takes_only_the_owners_tasks(worker):
    seen, blocker = [], Blocker()
    worker.submit("a", [blocker, lambda: seen.append("a")])
    worker.submit("b", [lambda: seen.append("b")])
    assert blocker.running.wait(SECONDS)
    worker.cancel("a")
    blocker.go_on.set()
    assert worker.wait(SECONDS)
    assert "a" not in seen


def test_nothing_begins_while_a_request_runs(worker):
    seen, blocker, checked = [], Blocker(), threading.Event()
    worker.submit("a", [blocker, lambda: seen.append(checked.is_set())])
    assert blocker.running.wait(SECONDS)
    with worker.foreground(), worker.foreground():
        blocker.go_on.set()
        assert not worker.wait(0.1)
        assert seen == []
        checked.set()
    assert worker.wait(SECONDS)
    assert seen == [True]


def test_cancelled_during_a_request_ends_the_thread(worker):
    with worker.foreground():
        worker.submit("a", [lambda: None])
        worker.cancel("a")
        assert worker.wait(SECONDS)


def test_failure_does_not_stop_the_rest(worker, caplog):
    seen = []
    worker.submit("a", [lambda: 1 / 0, lambda: seen.append("next")])
    assert worker.wait(SECONDS)
    assert seen == ["next"]
    assert "ZeroDivisionError" in caplog.text


def test_what_extensions_raise_ends_no_thread_for_which_others_wait(worker):
    class Panic(BaseException):
        """As extensions in Rust raise it."""

    def panic() -> None:
        raise Panic

    seen = []
    worker.submit("a", [panic, lambda: seen.append("next")])
    assert worker.wait(SECONDS)
    assert seen == ["next"]


def test_a_thread_that_cannot_be_started_is_not_waited_for(worker, monkeypatch):
    def fail(self) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            worker.submit("a", [lambda: None])
    worker.submit("a", [lambda: None])
    assert worker.wait(SECONDS)


def test_oldest_of_too_many_are_dropped(worker):
    seen, blocker = [], Blocker()
    worker.submit("a", [blocker])
    assert blocker.running.wait(SECONDS)
    for number in range(MAX_PENDING + 5):
        worker.submit("a", [lambda number=number: seen.append(number)])
    blocker.go_on.set()
    assert worker.wait(SECONDS)
    assert seen == list(range(MAX_PENDING + 4, 4, -1))


def test_close_waits_for_the_running_task_and_drops_the_rest():
    worker, blocker, seen = PrefetchWorker(), Blocker(), []
    worker.submit("a", [blocker, lambda: seen.append("dropped")])
    assert blocker.running.wait(SECONDS)
    threading.Timer(0.05, blocker.go_on.set).start()
    worker.close()
    assert worker.wait(0)
    assert seen == []
