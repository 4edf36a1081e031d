"""Importing this in the process of a training, batch or scoring lets it end soon after the server that started it."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import psutil

# Tells the processes of tasks who started them: the server may have ended before they can ask.
SERVER = "CAUSAL_SAM_SERVER_PID"
WATCH_SECONDS = 1.0


def _end_with_server() -> None:
    server = os.environ.get(SERVER)
    if server is not None and int(server) != os.getpid():
        threading.Thread(target=_end_with, args=(int(server),), name="causal-sam-end-with-server", daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process and its children when its parent has ended, for nobody could stop them any more."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)


_end_with_server()
