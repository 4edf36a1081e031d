"""Identity of the client: working masks belong to a client, and MONAI Label does not tell a task who its client is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class Priority(IntEnum):
    """Order in which requests are served."""

    CLICK = 0
    BATCH = 1
    BACKGROUND = 2


class Connection:
    """State of a client's connection, for several threads: open while the client waits for its answer."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []

    @property
    def is_closed(self) -> bool:
        """True if the client has closed the connection."""
        return self._closed.is_set()

    def close(self) -> None:
        """Record that the client has closed the connection."""
        with self._lock:
            self._closed.set()
            calls = list(self._calls)
        for call in calls:
            call()

    @contextmanager
    def on_close(self, call: Callable[[], object]) -> Iterator[None]:
        """Call ``call`` if the client closes the connection within the block; the caller looks before."""
        with self._lock:
            self._calls.append(call)
        try:
            yield
        finally:
            with self._lock:
                self._calls.remove(call)

    def __deepcopy__(self, memo: object) -> Connection:
        """MONAI Label copies requests with all they hold; there is but one connection."""
        return self


@dataclass(frozen=True)
class RequestContext:
    """The origin of a request.

    Attributes:
        name: key of the client's working masks.
        server_chose_image: the image's path was made by the server, for an upload or a session, and not by the client.
        connection: connection to the client; None if there is none.
        label_file: an uploaded label map, on disk for the time of the request; None without.
        priority: priority of its use of the model.
    """

    name: str
    server_chose_image: bool = False
    connection: Connection | None = None
    label_file: Path | None = None
    priority: Priority = Priority.CLICK


SERVER = RequestContext("server", priority=Priority.BATCH)
_asker: ContextVar[RequestContext] = ContextVar("causal_sam_asker", default=SERVER)


def identify(session_id: str | None, user: str | None, address: str | None, client_id: str | None) -> str:
    """Name the client: by its session, else by its authenticated user, else by its network address.

    Args:
        session_id: MONAI Label session of the request.
        user: name of the authenticated user; None when the server does not authenticate.
        address: network address of the peer.
        client_id: id that the client claims. Anyone can claim any, so it only tells clients of one address apart.
    """
    if session_id:
        return f"session {session_id}"
    if user:
        return f"user {user}"
    return f"address {address or 'unknown'}" + (f", client {client_id}" if client_id else "")


def current_context() -> RequestContext:
    """The origin of the request that is being answered; the server itself outside of any."""
    return _asker.get()


@contextmanager
def in_context(context: RequestContext) -> Iterator[None]:
    """Answer a request of ``context`` within the block, in this task and in the threads it starts."""
    token = _asker.set(context)
    try:
        yield
    finally:
        _asker.reset(token)
