"""How many requests one client may have at a time, so that an impatient one does not take all threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from causal_sam.errors import InputError


class TooManyRequestsError(InputError):
    """The client has to wait for answers to its earlier requests."""

    status = 429


class ClientLimit:
    """Counts the requests that are being answered; for one thread, such as that of the event loop."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def admit(self, client: str, limit: int) -> Iterator[None]:
        """Count a request of ``client`` during the block.

        Raises:
            TooManyRequestsError: ``limit`` of its requests are being answered.
        """
        if self._open[client] >= limit:
            raise TooManyRequestsError(
                f"{limit} of your requests are being answered or wait already: wait for their answers, then ask again."
            )
        self._open[client] += 1
        try:
            yield
        finally:
            self._open -= Counter((client,))  # drops those that have none
