"""The journal of notes: what clinicians wrote, what became of it, and what the masks were before. JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causal_sam.errors import CausalSamError
from causal_sam.json_lines import JsonLines

STEM = "notes"
NAME = f"{STEM}.jsonl"
# A file that has become so large is put aside, and a new one begun. None is ever deleted: people learn from them.
MAX_FILE = 16 * 2**20


class JournalError(CausalSamError):
    """The journal cannot be written, so what it was to record must not happen."""


class Journal:
    """Entries about notes in a folder, each on the disk before `append` returns; see `JsonLines`.

    Args:
        folder: is made with the first entry.
        largest: size of a file in bytes beyond which the next entry begins a new one.
    """

    def __init__(self, folder: Path, largest: int = MAX_FILE) -> None:
        self._lines = JsonLines(folder, STEM, largest)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry.

        Args:
            entry: what JSON can hold.

        Raises:
            JournalError: it cannot be written; the file is as it was.
        """
        try:
            self._lines.append(entry)
        except OSError as error:
            raise JournalError(
                f"The journal of notes {self._lines.path} cannot be written ({error.strerror}), so nothing was "
                "changed: make room there, or make it writable."
            ) from error

    def entries(self) -> Iterator[dict[str, Any]]:
        """Read all entries, the oldest first."""
        return self._lines.entries()
