"""Training in the process that MONAI Label starts for it, so that clients can read what has become of it.

They show the last line of what the process prints, and whether it failed. MONAI Label kills the process when somebody
stops the training, but not when the server itself is killed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from causal_sam.errors import CausalSamError

# MONAI Label reads no further line once the process has ended, and is behind by a few.
READING_SECONDS = 1.0
WATCH_SECONDS = 1.0


@contextmanager
def as_own_process() -> Iterator[None]:
    """Let a training be all that this process does: it ends with the server, and what is wrong is its last line."""
    threading.Thread(target=_end_with, args=(os.getppid(),), name="causal-sam-end-with-server", daemon=True).start()
    try:
        yield
    except CausalSamError as error:
        print(error, flush=True)
        time.sleep(READING_SECONDS)
        sys.exit(1)
    # It would print the result as JSON, behind the line for people.
    logging.getLogger("__main__").setLevel(logging.WARNING)
    time.sleep(READING_SECONDS)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended; nobody could stop it any more, and the next one goes on from it."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
