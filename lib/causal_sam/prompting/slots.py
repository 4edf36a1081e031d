"""Slots for the use of the model, where others use it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

OnSlice = Callable[[int], object]
# Context manager around each use of the model. It takes the callback for between slices, and yields the one that long
# work calls instead: that one may also let others use the model.
Slot = Callable[[OnSlice], AbstractContextManager[OnSlice]]


def ignore(done: int) -> None:
    """Do nothing between slices."""


@contextmanager
def no_queue(on_slice: OnSlice = ignore) -> Iterator[OnSlice]:
    """Use the model at once."""
    yield on_slice
