"""Importing this lets the server give memory back that it no longer uses."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3) of the GNU C library.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MIB = 2**20


def _return_freed_memory() -> None:
    """Bound what the C library keeps of freed memory.

    By default each of the server's threads may get a heap of its own, in which large freed arrays stay. Another C
    library is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((_ARENA_MAX, 2), (_MMAP_THRESHOLD, _MIB), (_TRIM_THRESHOLD, 16 * _MIB)):
            mallopt(parameter, value)


_return_freed_memory()
