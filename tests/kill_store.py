"""Kill processes that change an adapter store at random moments, and look at what they leave.

python tests/kill_store.py 200 0      # 200 kills, seed 0
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.versions import Training, UsedLabel

ACTS = ("add", "publish", "reject", "roll back", "collect")
KEPT = 2
TICK = 0.001


def forked(act: Callable[[], object]) -> int:
    """Let a child process do something, and return its id; it ends with 0 if that went well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a child process; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def weights(value: float = 0.0, size: int = 16_384) -> Callable[[Path], None]:
    """What writes a file of weights."""
    return lambda path: save_file({"weight": np.full(size, value, np.float32)}, path)


def training(parent: int | None, **changes: object) -> Training:
    """What is said about a version that was trained from ``parent``."""
    label = UsedLabel("study-1", "final", "0" * 64)
    said = {"labels": (label,), "names": ("liver",), "metrics": {"liver": 0.9}, "encoder_hash": "1" * 64}
    return Training(**{"parent": parent, "parent_metrics": {} if parent is None else {"liver": 0.8}} | said | changes)


def kill_often(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill a process that changes a store, again and again, and check the store after each kill.

    Args:
        folder: of the store, not there yet.
        kills: how many.
        seed: of acts and moments.

    Returns:
        How many kills came in the midst of each act; "between" counts the others.

    Raises:
        AssertionError: something was lost, or cannot be loaded.
    """
    rng, store, digests = random.Random(seed), AdapterStore(folder), {}
    seconds = dict.fromkeys(ACTS, 0.02)
    _publish(store, digests)
    reader = forked(lambda: _read_for_ever(store))
    counts: Counter[str] = Counter()
    try:
        for _ in range(kills):
            before = store.current()
            told = _killed_worker(store, rng, seconds)
            counts[told[-1][1] if told[-1][0] == "begin" else "between"] += 1
            _check_current(store, told, before)
            _check_what_is_left(store, told, digests)
        assert os.waitpid(reader, os.WNOHANG) == (0, 0), "the reader found a version that cannot be loaded"
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
    return counts


def _publish(store: AdapterStore, digests: dict[int, str]) -> None:
    version = store.add(weights(), training(store.current()))
    digests[version.number] = version.manifest.adapter_sha256
    store.publish(version.number)
    assert store.current() == version.number


def _read_for_ever(store: AdapterStore) -> None:
    """Load the current version as a server does, which always must work."""
    while True:
        with store.lease_current() as (_, notice):
            assert notice is None, notice
        time.sleep(TICK)


def _work_for_ever(store: AdapterStore, seed: int, pipe: int) -> None:
    """Change the store, and tell about each act when it begins and when it is done: act, number, digest."""
    rng = random.Random(seed)

    def told(act: str, number: int | None, do: Callable[[], object]) -> object:
        os.write(pipe, f"begin\t{act}\t{number}\t{time.monotonic()}\n".encode())
        result = do()
        number = getattr(result, "number", number)
        os.write(pipe, f"done\t{act}\t{number}\t{time.monotonic()}\n".encode())
        return result

    while True:
        version = told("add", None, lambda: store.add(weights(rng.random()), training(store.current())))
        if rng.random() < 0.6:
            told("publish", version.number, lambda version=version: store.publish(version.number))
        else:
            told("reject", version.number, lambda version=version: store.reject(version.number, "the liver is worse"))
        earlier = [n for n in store.numbers() if store.version(n).status == "published" and n != store.current()]
        if earlier and rng.random() < 0.5:
            number = rng.choice(earlier)
            told("roll back", number, lambda number=number: store.roll_back(number))
        if rng.random() < 0.5:
            told("collect", None, lambda: store.collect(KEPT))


def _killed_worker(store: AdapterStore, rng: random.Random, seconds: dict[str, float]) -> list[list[str]]:
    """Let a process work until a random moment of a random act, kill it, and return what it told."""
    seed, act, share = rng.randrange(2**31), rng.choice(ACTS), rng.uniform(0, 1.2)
    reading, writing = os.pipe()
    worker = forked(lambda: _work_for_ever(store, seed, writing))
    os.close(writing)
    lines = []
    with os.fdopen(reading) as pipe:
        for line in pipe:
            lines.append(line.split("\t"))
            if lines[-1][:2] == ["begin", act]:
                break
        time.sleep(share * seconds[act])
        os.kill(worker, signal.SIGKILL)
        assert ended(worker) == -signal.SIGKILL, "the worker failed"
        lines += [line.split("\t") for line in pipe]
    for begin, done in zip(lines[::2], lines[1::2], strict=False):
        seconds[done[1]] += 0.2 * (float(done[3]) - float(begin[3]) - seconds[done[1]])
    return lines


def _check_what_is_left(store: AdapterStore, told: list[list[str]], digests: dict[int, str]) -> None:
    history = store.history.events()
    published = {event.number for event in history if event.act == "publish"}
    rejected = {event.number for event in history if event.act == "reject"}
    for state, act, number, _ in told:
        if state == "done" and act in ("publish", "reject"):
            assert int(number) in {"publish": published, "reject": rejected}[act], f"{act} {number} was forgotten"
    there = store.numbers()
    assert not set(sorted(published)[-KEPT:]) - set(there), "a published version was lost"
    for number in there:
        with store.lease(number) as version:
            digest = version.manifest.adapter_sha256
            assert digests.setdefault(number, digest) == digest, f"{number} was used twice"
    _publish(store, digests)
    assert not list(store.folder.glob(".*")), "something was left behind"
    recorded = store.history.events()
    assert recorded[: len(history)] == history, "history was changed"
    assert len((store.folder / "history.jsonl").read_text().splitlines()) == len(recorded) == len(set(recorded))


def _check_current(store: AdapterStore, told: list[list[str]], before: int) -> None:
    """The current version is the last one that was said to be, or the one that was about to be."""
    with store.lease_current() as (version, notice):
        assert notice is None, notice
    moves = [(state, int(number)) for state, act, number, _ in told if act in ("publish", "roll back")]
    done = [number for state, number in moves if state == "done"]
    possible = {done[-1] if done else before}
    if moves and moves[-1][0] == "begin":
        possible.add(moves[-1][1])
    assert version.number in possible, f"{version.number} is current instead of one of {possible}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        start = time.monotonic()
        counted = kill_often(Path(scratch) / "adapters", int(sys.argv[1]), int(sys.argv[2]))
        for act, number in counted.most_common():
            print(f"killed in the midst of {act}: {number}" if act in ACTS else f"killed between two acts: {number}")
        print(f"{counted.total()} kills in {time.monotonic() - start:.0f} s: every current version loadable, none lost")
