"""The server notices that it is told to end, and what would hold it up ends then."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import anyio
import pytest

from serving import shutdown
from serving.page.visits import progress_events


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the server's own handler of signals is told."""
    monkeypatch.setattr(shutdown, "_is_ending", threading.Event())
    told: list[int] = []
    former = {number: signal.signal(number, lambda n, _: told.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    yield told
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_is_noticed_and_the_server_hears_of_it(told: list[int], number: signal.Signals) -> None:
    shutdown.notice_shutdown()
    assert not shutdown.is_ending()
    os.kill(os.getpid(), number)
    assert shutdown.is_ending()
    assert told == [number]


def test_progress_is_sent_until_the_work_or_the_server_ends(told: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.page.visits.PROGRESS_SECONDS", 0.01)
    looked = 0

    def look() -> SimpleNamespace:
        nonlocal looked
        looked += 1
        if looked == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return SimpleNamespace(is_running=True, model_dump=lambda mode: {"looked": looked})

    async def events() -> list[str]:
        return [str(event) async for event in progress_events("training", look).body_iterator]

    shutdown.notice_shutdown()
    with ThreadPoolExecutor(1) as other:  # the browser of other tests keeps a running loop in this thread
        sent = other.submit(anyio.run, events).result(timeout=60)
    assert 3 <= len(sent) < 100  # the signal comes between two of them
    assert sent[0] == 'event: training\ndata: {"looked": 1}\n\n'
