"""Long work lets others have the model in between."""

from __future__ import annotations

import threading
from collections.abc import Callable


def taking_turns(computing: threading.Semaphore, check: Callable[[int], object]) -> Callable[[int], None]:
    """Return a check for work on one slice after the other that gives the model away for a moment between them.

    Args:
        computing: held by the caller.
        check: called with the number of slices done; what it raises ends the work.
    """

    def between_slices(done: int) -> None:
        check(done)
        # A volume of hundreds of slices must not keep the others waiting for the model until its end.
        computing.release()
        computing.acquire()

    return between_slices
