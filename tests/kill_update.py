"""Kill updates that learn from accepted labels at random moments, and look at what they leave.

python tests/kill_update.py 60 0      # 60 kills, seed 0
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kill_store import ended, forked
from tiny_site import PLACES, TinySite, quick

from causal_sam.site import training as job_training
from causal_sam.site import update as updates
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import TRAINING, UpdateConfig, is_running

PHASES = ("reading", "training", "writing", "publishing", "measuring")
CASES = 2
# The labels that were learned first do not change, so each version is as good as the last one and is published.
LATER = {"learning_rate": 1e-15, "adapter_rate": 1e-15, "epochs": 1}


def kill_often(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill an update, again and again, and check data store and adapter store after each kill.

    Args:
        folder: of both, not there yet.
        kills: how many; the phases take turns.
        seed: of the moments.

    Returns:
        How many kills came in each phase; "between" counts the others.

    Raises:
        AssertionError: something was lost, cannot be loaded, or the next update does not work.
    """
    rng, tiny = random.Random(seed), TinySite(folder)
    store = AdapterStore(tiny.store)
    seconds = dict(zip(PHASES, (0.3, 1.0, 0.02, 0.005, 0.3), strict=True))
    for number in range(CASES):
        tiny.accept(number)
    _let_it_end(tiny, quick())
    counts: Counter[str] = Counter()
    for kill in range(kills):
        # Saved anew with the names the other way round, so that there is something to learn each time.
        places = list(PLACES) if (kill // CASES) % 2 else list(reversed(PLACES))
        tiny.accept(kill % CASES, {place: place for place in places})
        before, digests = store.current(), tiny.digests()
        told = _killed_update(tiny, rng, PHASES[kill % len(PHASES)], seconds)
        phase = told[-1][1] if told and told[-1][0] == "begin" else "between"
        counts[phase] += 1
        _check(tiny, store, digests, before, told)
        _let_it_end(tiny, quick(**LATER))
        _check_next(tiny, store, digests, before)
    return counts


def _let_it_end(tiny: TinySite, config: UpdateConfig) -> None:
    assert ended(forked(lambda: updates.update(tiny.site(), config))) == 0, "an update failed"


def _update_and_tell(tiny: TinySite, pipe: int) -> None:
    """Run an update that tells when each phase begins and when it is done: state, phase, time."""

    def telling(phase: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any, **named: Any) -> Any:
            os.write(pipe, f"begin\t{phase}\t{time.monotonic()}\n".encode())
            result = do(*arguments, **named)
            os.write(pipe, f"done\t{phase}\t{time.monotonic()}\n".encode())
            return result

        return told

    job_training.SECONDS_BETWEEN_CHECKPOINTS = 0.0  # so that they are hit too
    updates.prepare = telling("reading", updates.prepare)
    updates.train = telling("training", updates.train)
    updates.measure = telling("measuring", updates.measure)
    AdapterStore.add = telling("writing", AdapterStore.add)
    AdapterStore.publish = telling("publishing", AdapterStore.publish)
    updates.update(tiny.site(), quick(**LATER))


def _killed_update(tiny: TinySite, rng: random.Random, phase: str, seconds: dict[str, float]) -> list[list[str]]:
    """Let an update work until a random moment of a phase, kill it, and return what it told."""
    share = rng.uniform(0, 1.1)
    reading, writing = os.pipe()

    def work() -> None:
        os.setpgid(0, 0)
        _update_and_tell(tiny, writing)

    child = forked(work)
    os.close(writing)
    lines = []
    with os.fdopen(reading) as pipe:
        for line in pipe:
            lines.append(line.split("\t"))
            if lines[-1][:2] == ["begin", phase]:
                break
        time.sleep(share * seconds[phase])
        os.killpg(child, signal.SIGKILL)
        assert ended(child) in (-signal.SIGKILL, 0), "the update failed"
        lines += [line.split("\t") for line in pipe]
    for begin, done in zip(lines[::2], lines[1::2], strict=False):
        seconds[done[1]] += 0.3 * (float(done[2]) - float(begin[2]) - seconds[done[1]])
    return lines


def _check(
    tiny: TinySite, store: AdapterStore, digests: dict[str, str], before: int | None, told: list[list[str]]
) -> None:
    """The current version is what it was, or the new one if it was about to become it; no label has changed."""
    with store.lease_current() as (version, notice):
        assert notice is None, notice
    done = ["done", "publishing"] in [line[:2] for line in told]
    begun = ["begin", "publishing"] in [line[:2] for line in told]
    possible = {before} if not begun else {version.number} if done else {before, version.number}
    assert version.number in possible, f"{version.number} is current instead of one of {possible}"
    assert (version.number > before) or not done, "a version that was published was lost"
    assert tiny.digests() == digests, "accepted labels were changed"
    assert not is_running(tiny.store), "the lock outlived its process"


def _check_next(tiny: TinySite, store: AdapterStore, digests: dict[str, str], before: int | None) -> None:
    """The next update has learned all labels, and no files of killed updates are left."""
    with store.lease_current() as (version, notice):
        assert notice is None, notice
    assert version.number > before, "nothing was learned"
    learned = {label.image: label.sha256 for label in version.manifest.training.labels}
    names = [f"case{number:02d}" for number in range(CASES)]
    assert learned == {name: digests[f"labels/final/{name}.nii.gz"] for name in names}, "accepted labels were lost"
    assert tiny.digests() == digests, "accepted labels were changed"
    left = [path.name for path in (*store.folder.glob(".*"), *(store.folder / TRAINING).glob(".*"))]
    assert not left, f"{left} were left behind"
    assert not (store.folder / TRAINING / updates.JOB).exists(), "the job was left behind"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        start = time.monotonic()
        counted = kill_often(Path(scratch), int(sys.argv[1]), int(sys.argv[2]))
        for phase, number in counted.most_common():
            print(f"killed while {phase}: {number}" if phase in PHASES else f"killed between two phases: {number}")
        print(f"{counted.total()} kills in {time.monotonic() - start:.0f} s: 0 unloadable, 0 lost")
