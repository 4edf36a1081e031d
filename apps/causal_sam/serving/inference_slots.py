"""Queue for the model: a limited number of requests at a time, people before batches before background work."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.requests.clients import Connection, Priority, current_context
from serving.requests.errors import ClientGoneError

# A request that so many later ones have overtaken is next, whatever its priority: slots are given for one slice of long
# work at a time, so this costs people a fraction of a second and keeps batches and background work going.
MAX_OVERTAKEN = 32


class _Ticket:
    """One request in the queue, or with a slot."""

    def __init__(self, client: str, priority: Priority) -> None:
        self.client, self.priority = client, priority
        self.number = 0
        self.overtaken = 0
        self.is_granted = False


class InferenceSlots:
    """A fair queue for the model.

    A free slot goes to the waiting request of the highest priority; among these, to a client that holds fewer slots
    than the others; among these, to the one that came first. It is handed over directly: a request that gives its slot
    away and asks again stands behind those that waited. A client that closes its connection leaves the queue at once.

    Args:
        count: number of requests that use the model at a time. More would slow each other down and take more memory.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._numbers = itertools.count()
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(
        self, on_slice: Callable[[int], object] = lambda done: None, priority: Priority | None = None
    ) -> Iterator[Callable[[int], None]]:
        """Wait for a slot and hold it during the block.

        Args:
            on_slice: called between the slices of long work with the number of slices done; what it raises ends the
                work.
            priority: place in the queue; by default that of the current request.

        Yields:
            Callback for between the slices of long work: it calls ``on_slice`` and lets others of the same or a higher
            priority use the slot before it goes on.

        Raises:
            ClientGoneError: the client closed its connection while its request waited.
        """
        context = current_context()
        ticket = _Ticket(context.name, context.priority if priority is None else priority)

        def yield_slot(done: int) -> None:
            on_slice(done)
            with self._changed:
                if any(other.priority <= ticket.priority or _is_due(other) for other in self._waiting):
                    self._release(ticket)
                    self._acquire(ticket)

        with self._changed:
            self._acquire(ticket)
        try:
            yield yield_slot
        finally:
            with self._changed:
                if ticket.is_granted:
                    self._release(ticket)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a slot."""
        with self._changed:
            return len(self._waiting)

    def _acquire(self, ticket: _Ticket) -> None:
        connection = current_context().connection or Connection()
        ticket.number, ticket.overtaken = next(self._numbers), 0
        self._waiting.append(ticket)
        if not connection.is_closed:
            self._grant()
        with connection.on_close(self._wake):
            self._changed.wait_for(lambda: ticket.is_granted or connection.is_closed)
        if not ticket.is_granted:
            self._waiting.remove(ticket)
            raise ClientGoneError("The client went away while its request waited; nothing was changed.")

    def _release(self, ticket: _Ticket) -> None:
        ticket.is_granted = False
        self._held -= Counter((ticket.client,))  # drops those that hold none
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        """Give free slots to the first of those that wait."""
        while self._free and self._waiting:
            first = min(self._waiting, key=self._order)
            self._waiting.remove(first)
            for other in self._waiting:
                other.overtaken += other.number < first.number
            first.is_granted = True
            self._held[first.client] += 1
            self._free -= 1
            self._changed.notify_all()

    def _order(self, ticket: _Ticket) -> tuple[bool, int, int, int]:
        if _is_due(ticket):
            return False, 0, 0, ticket.number
        return True, ticket.priority, self._held[ticket.client], ticket.number

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class TimedSlots:
    """The slots of one request, with the time that it held them.

    Args:
        slots: queue of all requests.

    Attributes:
        seconds: time so far that the request used the model; waiting for a slot does not count.
    """

    def __init__(self, slots: InferenceSlots) -> None:
        self._slots = slots
        self.seconds = 0.0

    @contextmanager
    def hold(self, on_slice: Callable[[int], object] = lambda done: None) -> Iterator[Callable[[int], None]]:
        """Do the same as `InferenceSlots.hold`."""
        with self._slots.hold(on_slice) as yield_slot:
            begin = time.perf_counter()
            try:
                yield yield_slot
            finally:
                self.seconds += time.perf_counter() - begin


def _is_due(ticket: _Ticket) -> bool:
    return ticket.overtaken >= MAX_OVERTAKEN
