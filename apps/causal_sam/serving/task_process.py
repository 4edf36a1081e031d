"""Trainings, batches and scorings in the processes that MONAI Label starts for them: they end with the server.

Clients show the last line of what such a process prints, and whether it failed. MONAI Label kills it when somebody
stops the task, but not when the server itself ends, however that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
from monailabel.utils.async_tasks.utils import background_executors, stop_background_task

from causal_sam.errors import CausalSamError
from serving.end_with_server import SERVER

# MONAI Label reads no further line once the process has ended, and is behind by a few.
READING_SECONDS = 1.0
# In the units of nice(1).
NICENESS = 10

_waiting: set[asyncio.Task[None]] = set()


def end_tasks_with_server() -> None:
    """Let the tasks that this server starts end with it; call it from a coroutine of the server."""
    os.environ[SERVER] = str(os.getpid())
    task = asyncio.get_running_loop().create_task(_stop_in_the_end())
    _waiting.add(task)  # the loop alone does not keep it


async def _stop_in_the_end() -> None:
    """Stop all tasks when the loop ends; the interpreter would wait for those that run, and then start the queued."""
    try:
        await asyncio.Event().wait()
    finally:
        for method, executor in background_executors.items():
            executor.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(psutil.NoSuchProcess):
                stop_background_task(method)


def stand_back() -> None:
    """Let the server go first on the processors: for processes of one task each, which nobody waits for."""
    os.nice(NICENESS)


def train_as_own_process(train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Let a training be all that this process does: its last line says what became of it.

    Args:
        train: returns a ``message`` for people, beside what it likes.
    """
    try:
        result = train()
    except CausalSamError as error:
        say_last(str(error))
        sys.exit(1)
    say_last(result["message"])
    return result


def say_last(line: str) -> None:
    """Print the last line of this process, and wait until MONAI Label has read it."""
    # Repeat a line that the training has printed: MONAI Label has logged its calls of the scoring methods since then.
    print(line, flush=True)
    time.sleep(READING_SECONDS)
