"""Timing of training steps."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from ignite.engine import Engine, Events

# The first steps include loading and warm-up.
WARM_UP = 3


class StepClock:
    """Times the steps of an engine from end to end, which includes making the images.

    Args:
        progress: called after each step with the completed share of the training, 0 to 1.
    """

    def __init__(self, progress: Callable[[float], object]) -> None:
        self._progress = progress
        self._ends: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Start timing an engine."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_of_step)

    @property
    def step_seconds(self) -> float:
        """Median seconds per step; NaN after fewer than two steps."""
        ends = self._ends[WARM_UP:] if len(self._ends) > WARM_UP + 1 else self._ends
        return float(np.median(np.diff(ends))) if len(ends) > 1 else float("nan")

    def _end_of_step(self, engine: Engine) -> None:
        self._ends.append(time.perf_counter())
        self._progress(engine.state.iteration / (engine.state.epoch_length or 1))
