"""Whether the server has been told to end: answers that go on until other work ends must not hold it up."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_is_ending = threading.Event()


def notice_shutdown() -> None:
    """Notice the signals that end the server, before the server does; elsewhere than in its main thread do nothing."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        server = signal.getsignal(number)
        if callable(server):
            signal.signal(number, _told_as_well(server))


def is_ending() -> bool:
    """Return True once the server has been told to end."""
    return _is_ending.is_set()


def _told_as_well(server: Any) -> Any:
    def told(number: int, frame: FrameType | None) -> None:
        _is_ending.set()
        server(number, frame)

    return told
