"""How long training steps take."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from ignite.engine import Engine, Events

# The first steps load and warm up.
WARM_UP = 3


class StepClock:
    """Times the steps of an engine, from one's end to the next one's, so that making the images counts.

    Args:
        progress: called after each step with the share of the training that is done.
    """

    def __init__(self, progress: Callable[[float], object]) -> None:
        self._progress = progress
        self._ends: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Begin to listen."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_of_step)

    @property
    def step_seconds(self) -> float:
        """Median time of a step."""
        ends = self._ends[WARM_UP:] if len(self._ends) > WARM_UP + 1 else self._ends
        return float(np.median(np.diff(ends))) if len(ends) > 1 else float("nan")

    def _end_of_step(self, engine: Engine) -> None:
        self._ends.append(time.perf_counter())
        self._progress(engine.state.iteration / engine.state.epoch_length)
