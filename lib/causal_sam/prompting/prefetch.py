"""A user who clicked a slice looks at its neighbours next: work for them is done in the background meanwhile."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

logger = logging.getLogger(__name__)

Task = Callable[[], object]
MAX_PENDING = 32


class PrefetchWorker:
    """Runs tasks one at a time in a daemon thread, the latest request first.

    No task is begun while a foreground request runs, so a request competes with at most the one task that was already
    running when it came. The thread ends when there is nothing to do and is started again when there is.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending: deque[tuple[Hashable, Task]] = deque()
        self._thread: threading.Thread | None = None
        self._foreground = 0
        _workers.add(self)

    def submit(self, owner: Hashable, tasks: Sequence[Task]) -> None:
        """Put ``tasks`` before everything that waits, in the given order; the oldest of too many are dropped.

        Args:
            owner: key by which `cancel` finds the tasks.
            tasks: called without arguments; their results are ignored and their exceptions logged.
        """
        if not tasks:
            return
        with self._changed:
            self._pending.extendleft((owner, task) for task in reversed(tasks))
            while len(self._pending) > MAX_PENDING:
                self._pending.pop()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="causal-sam-prefetch", daemon=True)
                thread.start()  # which may fail, and then none runs
                self._thread = thread

    def cancel(self, owner: Hashable) -> None:
        """Forget the tasks of ``owner`` that have not begun."""
        with self._changed:
            self._pending = deque(item for item in self._pending if item[0] != owner)
            self._changed.notify_all()

    @contextmanager
    def foreground(self) -> Iterator[None]:
        """Hold back tasks that have not begun while a request is answered."""
        with self._changed:
            self._foreground += 1
        try:
            yield
        finally:
            with self._changed:
                self._foreground -= 1
                self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; return False if ``timeout`` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def close(self) -> None:
        """Forget all tasks and wait for the one that runs."""
        with self._changed:
            self._pending.clear()
            self._changed.notify_all()
        self.wait()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._foreground or not self._pending)
                if not self._pending:
                    self._thread = None
                    self._changed.notify_all()
                    return
                _, task = self._pending.popleft()
            try:
                task()
            except BaseException:  # some extensions raise no Exception; if the thread died of it, `wait` would not end
                logger.warning("Prefetching failed; the work is done again when it is needed.", exc_info=True)
            del task  # a task holds its volume, which must not outlive the queue


_workers: weakref.WeakSet[PrefetchWorker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Let no thread be inside the tensor library while the interpreter is taken down."""
    for worker in list(_workers):
        worker.close()
