"""Training in the process that MONAI Label starts for it, so that clients can read what has become of it.

They show the last line of what the process prints, and whether it failed. MONAI Label kills the process when somebody
stops the training, but not when the server itself is killed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from causal_sam.errors import CausalSamError

# MONAI Label reads no further line once the process has ended, and is behind by a few.
READING_SECONDS = 1.0
WATCH_SECONDS = 1.0
# In the units of nice(1).
NICENESS = 10


def stand_back() -> None:
    """Let the server go first on the processors: for processes of one task each, which nobody waits for."""
    os.nice(NICENESS)


def train_as_own_process(train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Let a training be all that this process does: it ends with the server, and its last line says what became of it.

    Args:
        train: returns a ``message`` for people, beside what it likes.
    """
    threading.Thread(target=_end_with, args=(os.getppid(),), name="causal-sam-end-with-server", daemon=True).start()
    try:
        result = train()
    except CausalSamError as error:
        say_last(str(error))
        sys.exit(1)
    say_last(result["message"])
    return result


def say_last(line: str) -> None:
    """Print the last line of this process, and wait until MONAI Label has read it."""
    # Again, if the training has told it: MONAI Label logs what it did with the scoring methods since then.
    print(line, flush=True)
    time.sleep(READING_SECONDS)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended; nobody could stop it any more, and the next one goes on from it."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
