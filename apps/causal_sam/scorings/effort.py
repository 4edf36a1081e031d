"""The scoring method *effort*: how many clicks and notes, and how much time, an accepted label has cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

from causal_sam.correction.journal import Journal
from scorings.labels import keep_result, labelled_images
from serving.sessions.click_log import KINDS, ClickLog

# Longer pauses between two acts do not count as work.
PAUSE_SECONDS = 10 * 60
# MONAI Label writes down whole seconds.
SAME_SECOND = 1.0
# Kinds of journal entries for notes that a person wrote; undo is not among them.
WRITTEN = ("note", "refused")
COUNTED = ("clicks", "notes", "seconds")
DIGITS = 2


@dataclass(frozen=True)
class Act:
    """Something that a person did on an image.

    Attributes:
        time: time in seconds since 1970.
        clicks: number of points, boxes and updates by scribbles.
        notes: number of notes.
    """

    time: float
    clicks: int = 0
    notes: int = 0


class EffortScoring(ScoringMethod):
    """Counts what people did on an image until its label was accepted.

    Clicks are points, boxes and lassos that a client sent for the first time, and updates by scribbles. Notes count
    also if they were refused: they had to be written. Time is that between the first act and the acceptance, without
    pauses longer than `PAUSE_SECONDS`. Brush strokes in the client are not seen by the server.

    Args:
        clicks: log of the clicks on all images.
        journal: journal of notes.
        result: file for the result.
    """

    def __init__(self, clicks: ClickLog, journal: Journal, result: Path) -> None:
        super().__init__("Clicks, notes and time for each accepted label")
        self._clicks, self._journal, self._result = clicks, journal, result

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Count for all images with an accepted label.

        Args:
            request: unused.
            datastore: data store of the images.

        Returns:
            ``cases``, how many labels were accepted; ``untouched``, how many of them without any act; means over all
            cases of ``clicks`` and ``notes``, and over those with acts of ``seconds``; and the same for each of
            ``images``, by id. Where nothing was done, or nothing accepted, it is None.

        Raises:
            InputError: the data store keeps its labels elsewhere.
        """
        efforts = self.efforts(datastore)
        images = {image_id: {key: effort[key] for key in COUNTED} for image_id, effort in efforts.items()}
        seconds = [found["seconds"] for found in images.values() if found["seconds"] is not None]
        result = {
            "cases": len(images),
            "untouched": sum(not found["clicks"] and not found["notes"] for found in images.values()),
            "clicks": _mean([found["clicks"] for found in images.values()]),
            "notes": _mean([found["notes"] for found in images.values()]),
            "seconds": _mean(seconds),
            "images": images,
        }
        keep_result(self._result, result)
        return result

    def efforts(self, datastore: Datastore) -> dict[str, dict[str, Any]]:
        """Return image id -> ``clicks``, ``notes``, ``seconds``, and when the label was ``accepted``.

        Raises:
            InputError: the data store keeps its labels elsewhere.
        """
        acts, efforts = self._acts(), {}
        for image_id, saved in labelled_images(datastore):
            accepted = saved[DefaultLabelTag.FINAL].info.get("ts")
            efforts[image_id] = effort_of(acts.get(image_id, ()), accepted) | {"accepted": accepted}
        return efforts

    def _acts(self) -> dict[str, list[Act]]:
        """Return the acts on each image by image id."""
        acts = defaultdict(list)
        for entry in self._clicks.entries():
            count = sum(entry[kind] for kind in KINDS if isinstance(entry.get(kind), int))
            if (time := _seconds(entry.get("time"))) is not None:
                acts[entry.get("image")].append(Act(time, clicks=count))
        for entry in self._journal.entries():
            if entry.get("act") in WRITTEN and (time := _seconds(entry.get("time"))) is not None:
                acts[entry.get("image")].append(Act(time, notes=1))
        return acts


def effort_of(acts: Iterable[Act], accepted: float | None) -> dict[str, Any]:
    """Sum up what was done on an image until its label was accepted.

    Args:
        acts: acts on the image, in any order.
        accepted: time when the label was accepted, in seconds since 1970; None if unknown.
    """
    until = [act for act in acts if accepted is None or act.time <= accepted + SAME_SECOND]
    times = sorted(act.time for act in until)
    seconds = None
    if times and accepted is not None:
        pauses = np.diff([*times, max(accepted, times[-1])])
        seconds = round(float(pauses[pauses <= PAUSE_SECONDS].sum()), DIGITS)
    return {"clicks": sum(act.clicks for act in until), "notes": sum(act.notes for act in until), "seconds": seconds}


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), DIGITS) if values else None


def _seconds(time: Any) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (TypeError, ValueError):
        return None
