"""Journal of notes in JSON Lines: the notes, their plans and effects, and the previous masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causal_sam.errors import CausalSamError
from causal_sam.json_lines import JsonLines

STEM = "notes"
NAME = f"{STEM}.jsonl"
# Size in bytes beyond which a new file is started. Old files are never deleted, since they are training data.
MAX_FILE = 16 * 2**20


class JournalError(CausalSamError):
    """The journal cannot be written, so the recorded correction must not be applied."""


class Journal:
    """Append-only journal in a folder; an entry is on disk before `append` returns. See `JsonLines`.

    Args:
        folder: folder of the journal, created with the first entry.
        largest: size in bytes beyond which the next entry starts a new file.
    """

    def __init__(self, folder: Path, largest: int = MAX_FILE) -> None:
        self._lines = JsonLines(folder, STEM, largest)

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Append entries, all of them or none.

        Args:
            entries: JSON-serialisable entries.

        Raises:
            JournalError: they cannot be written; the file is unchanged.
        """
        try:
            self._lines.append(*entries)
        except OSError as error:
            raise JournalError(
                f"The journal of notes {self._lines.path} cannot be written ({error.strerror}), so nothing was "
                "changed: make room there, or make it writable."
            ) from error

    def entries(self) -> Iterator[dict[str, Any]]:
        """Iterate over all entries, the oldest first."""
        return self._lines.entries()
