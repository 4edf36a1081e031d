"""Importing this module restarts the server process if its threads would spin while they wait for each other."""

from __future__ import annotations

import os
import sys

VARIABLE = "OMP_WAIT_POLICY"


def _restart_to_wait_passively() -> None:
    """Replace this process by the same command, with threads that do not spin while they wait for each other.

    The threads of PyTorch read how to wait when it is imported, which MONAI Label does before it loads an app; nothing
    can change it later. Spinning makes the server many times slower where the machine has other work. This does nothing
    where somebody has chosen a policy, as `causal-sam serve` does, or in another process than that of
    ``monailabel start_server``. It listens nowhere yet, and keeps its id.
    """
    is_server = "start_server" in sys.orig_argv and "monailabel.main" in sys.orig_argv
    if is_server and not os.environ.get(VARIABLE):
        sys.stdout.flush()
        sys.stderr.flush()
        environment = {**os.environ, VARIABLE: "PASSIVE"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


_restart_to_wait_passively()
