"""Progress of commands that work through cases: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def case_progress(
    total: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[float, str], None]]:
    """Show how far a command is, on standard error.

    Where nobody watches a terminal, a line such as ``case 3/12 · liver · click 2/5 · 00:41`` appears for each case, and
    every ten seconds; the time is that since the start.

    Args:
        total: number of cases.
        console: where to show it.
        clock: seconds.

    Yields:
        Callback for progress: number of cases done, a fraction within a case, and a text for the next task.
    """
    console = console or Console(stderr=True)
    if console.is_terminal:
        columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda done, text: bar.update(task, completed=done, description=text)
        return
    begin = clock()
    shown: tuple[int, float] | None = None

    def line(done: float, text: str) -> None:
        nonlocal shown
        now, case = clock(), min(int(done) + 1, total)
        if shown is None or case != shown[0] or now - shown[1] >= SECONDS_BETWEEN_LINES:
            shown = case, now
            minutes, seconds = divmod(int(now - begin), 60)
            console.out(f"case {case}/{total} · {text} · {minutes:02}:{seconds:02}", highlight=False)

    yield line
