"""Log of the clicks on each image, as JSON Lines: they are the manual work that a better model would save."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from causal_sam.json_lines import JsonLines
from causal_sam.prompting.prompt_set import PromptSet

logger = logging.getLogger(__name__)

STEM = "clicks"
MAX_FILE = 16 * 2**20
# The kinds of acts, as they are counted in an entry.
KINDS = ("foreground", "background", "boxes", "strokes")
# Clients send all their clicks with each request. So many clients on so many images are remembered at a time; what is
# forgotten, also by a restart of the server, is counted once more if it is sent again.
REMEMBERED = 1000


class ClickLog:
    """Appends an entry for each request with new clicks: how many, of whom, on which image and when; never where.

    Nothing is synced, so that a click does not wait for the disk: a crash of the machine may lose the last entries. If
    the file cannot be written, the log of the server says so, and the click is answered.

    Args:
        folder: folder of the log; created with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder, STEM, MAX_FILE, is_synced=False)
        self._lock = threading.Lock()
        self._seen: LRUCache[tuple[str, str, int], set[tuple[Any, ...]]] = LRUCache(REMEMBERED)

    def clicked(self, image_id: str | None, client: str | None, frame: int, clicks: PromptSet) -> None:
        """Record those clicks and boxes of a request that the client did not send before.

        Args:
            image_id: id in the data store; nothing is recorded for other files.
            client: name of the client.
            frame: index of the frame of the image.
            clicks: all clicks of the request.
        """
        if image_id is None:
            return
        foreground = {voxel for prompts in clicks.prompts.values() for voxel in prompts.foreground}
        acts: set[tuple[Any, ...]] = {("foreground", *voxel) for voxel in foreground}
        for prompts in clicks.prompts.values():
            # A click inside of one label is a background click of all the others, and was made once.
            acts.update(("background", *voxel) for voxel in set(prompts.background) - foreground)
            if prompts.box is not None:
                acts.add(("boxes", *prompts.box))
        with self._lock:
            seen = self._seen.setdefault((image_id, client or "", frame), set())
            new = acts - seen
            seen |= new
        if new:
            self._append(image_id, client, frame, clicks.current, Counter(act[0] for act in new))

    def painted(self, image_id: str | None, client: str | None, frame: int, label: str) -> None:
        """Record an update by scribbles, which counts as one act."""
        if image_id is not None:
            self._append(image_id, client, frame, label, Counter(strokes=1))

    def entries(self) -> Iterator[dict[str, Any]]:
        """Read all entries, the oldest first; a line cut off by a crash is skipped."""
        return self._lines.entries()

    def _append(self, image_id: str, client: str | None, frame: int, label: str | None, counts: Counter[str]) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": client,
            "image": image_id,
            "frame": frame,
            "label": label,
            **{kind: counts[kind] for kind in KINDS if counts[kind]},
        }
        try:
            self._lines.append(entry)
        except OSError as error:
            logger.warning(
                "Clicks on %s are not counted: %s cannot be written (%s).", image_id, self._lines.path, error
            )
