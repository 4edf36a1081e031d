"""Server processes for the tests: started on free ports, waited for, and ended with the test."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

MONAI_LABEL_START_SECONDS = 480  # importing torch and monai on a busy two-core machine takes most of it


def free_port() -> int:
    """A TCP port of the loopback interface that nothing uses, below those that the kernel gives to clients.

    Of those one would be taken now and then by a request of other tests before the server has started.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    command: Sequence[str],
    ready_url: str,
    log: Path,
    seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background until the block ends; the block begins when ``ready_url`` answers 200.

    Args:
        command: program and arguments.
        ready_url: what to ask.
        log: gets all that it prints.
        seconds: how long it may take to answer.
        environment: all of its variables; by default those of the tests.
        folder: where it is started.

    Yields:
        Its process.

    Raises:
        RuntimeError: it ended or did not answer in time; carries the end of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, ready_url, log, seconds)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    state = "ended" if process.poll() is not None else f"did not answer within {seconds:.0f} s"
    raise RuntimeError(f"{process.args[0]} {state}; its log ends with:\n{log.read_text(errors='replace')[-4000:]}")
