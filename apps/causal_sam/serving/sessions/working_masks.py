"""What each client has segmented so far in each image, kept between its requests so that new clicks refine it.

A client sends all its clicks with every request, and no masks. So the server keeps, for each label, the mask and
what each slice was decided from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import PackedMask
from causal_sam.prompting.prompts import Box, Prompts, Voxel
from serving.keyed_locks import KeyedLocks

UNNAMED = "\0unnamed"  # no client can name a label so
MAX_UNNAMED = 16


def is_unnamed(name: str | None) -> bool:
    """Whether a mask was asked for without a name."""
    return name is not None and name.startswith(UNNAMED)


def nonempty_slices(mask: NDArray[np.bool_], axis: int) -> frozenset[int]:
    """Voxel indices along an axis of the slices with a mask."""
    return frozenset(np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))).tolist())


class Source(Enum):
    """Who made a mask last."""

    AUTOMATIC = "found by its name; nobody has corrected it"
    USER = "clicked, drawn, or corrected by a note"
    ACCEPTED = "saved with the tag final, and not changed since by a request for it"


@dataclass(frozen=True)
class SliceRecord:
    """What a slice's mask was decided from.

    Attributes:
        foreground, background: the label's own clicks.
        box: in voxels, from this slice to this slice along the slice axis; None without a box.
        logits: float16 LxL low-resolution logits of the mask; None if not all of the mask was decided from the prompts.
        predicted_iou: the model's estimate.
        is_local: the mask was there before, and only what is at the clicks was changed.
        others: clicks inside of other labels, which the model was shown as background. They are not the label's own: a
            request that leaves them out takes nothing back.
    """

    foreground: frozenset[Voxel]
    background: frozenset[Voxel]
    box: Box | None
    logits: NDArray[np.float16] | None
    predicted_iou: float
    is_local: bool = False
    others: frozenset[Voxel] = frozenset()

    def lacks(self, prompts: Prompts) -> bool:
        """Whether the slice was decided without some of these prompts."""
        return not (
            self.foreground.issuperset(prompts.foreground)
            and (self.background | self.others).issuperset(prompts.background)
            and prompts.box in (None, self.box)
        )

    def exceeds(self, prompts: Prompts) -> bool:
        """Whether the slice was decided from clicks that are not among these; a box left out takes nothing back."""
        return not (self.foreground.issubset(prompts.foreground) and self.background.issubset(prompts.background))

    def has_other_box(self, prompts: Prompts) -> bool:
        """Whether the box was moved."""
        return None not in (self.box, prompts.box) and self.box != prompts.box


@dataclass(frozen=True)
class LabelState:
    """The mask of one label, and what its slices were decided from.

    Attributes:
        mask: all slices.
        axis: voxel axis perpendicular to the slices of ``slices``; None while there are none.
        slices: voxel index along ``axis`` -> record. Slices of a saved label have a mask but no record.
        followed: voxel indices along ``axis`` of the slices whose mask was followed from others; None if the structure
            was never followed.
        is_found: whether the mask was found by the label's name at first.
        source: who made the mask last.
    """

    mask: PackedMask
    axis: int | None = None
    slices: dict[int, SliceRecord] = field(default_factory=dict)
    followed: frozenset[int] | None = None
    is_automatic: bool = False
    source: Source = Source.USER

    @classmethod
    def found(cls, mask: NDArray[np.bool_], axis: int) -> LabelState:
        """A label that was found by its name: clicks may change any of its slices, since nobody drew them.

        Args:
            mask: all slices.
            axis: voxel axis perpendicular to the slices.
        """
        return cls(
            PackedMask.pack(mask), axis, {}, nonempty_slices(mask, axis), is_automatic=True, source=Source.AUTOMATIC
        )

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        points = sum(len(record.foreground) + len(record.background) for record in self.slices.values())
        logits = sum(record.logits.nbytes for record in self.slices.values() if record.logits is not None)
        return self.mask.bits.nbytes + logits + 200 * (points + len(self.slices))

    @property
    def is_empty(self) -> bool:
        """Whether the mask has no voxels."""
        return not self.mask.bits.size

    @property
    def is_kept(self) -> bool:
        """Whether a person made or corrected the mask, so that nothing automatic may replace it."""
        return self.source is not Source.AUTOMATIC and not self.is_empty

    def takes_back(self, prompts: Prompts) -> bool:
        """Whether a request with these prompts takes clicks back: a client that sends some that it sent before.

        A client sends all clicks of a label each time. One that sends none of them, or others, may have forgotten them,
        as after a restart; it takes nothing back.
        """
        sent = {voxel for record in self.slices.values() for voxel in record.foreground}
        return bool(prompts.foreground) and sent.issuperset(prompts.foreground)

    def edited(self, mask: NDArray[np.bool_], source: Source = Source.USER) -> LabelState:
        """Return the state with another mask; slices that look different forget the model's logits, not the clicks."""
        if self.axis is None:
            return LabelState(PackedMask.pack(mask), source=source)
        differs = (self.mask.unpack() != mask).any(axis=tuple(axis for axis in range(3) if axis != self.axis))
        slices = {
            index: replace(record, logits=None, is_local=False) if differs[index] else record
            for index, record in self.slices.items()
        }
        followed = self.followed and frozenset(index for index in self.followed if not differs[index])
        return LabelState(PackedMask.pack(mask), self.axis, slices, followed, self.is_automatic, source)


@dataclass(frozen=True)
class AppliedNote:
    """A note that was carried out.

    Attributes:
        note: as the clinician wrote it, without spaces around it.
        message: what it did.
        before: the labels that it changed, as they were.
        after: the same as they were left.
    """

    note: str
    message: str
    before: dict[str, LabelState]
    after: dict[str, LabelState]


class WorkingMask:
    """All labels that one client has segmented in one image.

    Attributes:
        labels: name -> state. Masks that were asked for without a name are here too, numbered (`unnamed_label`).
        saved_version: of the saved label that was taken over last; None if none was.
        notes: those carried out and not undone, the last one last.
        undone: texts of the notes that were undone.
    """

    def __init__(self) -> None:
        self.labels: OrderedDict[str, LabelState] = OrderedDict()
        self.saved_version: Hashable = None
        self.notes: list[AppliedNote] = []
        self.undone: frozenset[str] = frozenset()
        self._unnamed = 0

    @property
    def nbytes(self) -> int:
        """Approximate memory of all labels, and of what undoing the notes takes."""
        undone = [state for note in self.notes for state in note.before.values()]
        return sum(state.nbytes for state in (*self.labels.values(), *undone))

    def unnamed_label(self, prompts: Prompts) -> str:
        """Find the mask that clicks without a label name belong to.

        OHIF sends the clicks of its current label, but not which label that is. It sends all of them each time, so
        the mask is the one that was made from some of the same foreground clicks, or from the same box; if there is
        none, it is a new one. Background clicks do not tell: in OHIF all labels share them.
        """
        shared = {
            name: sum(_in_common(record, prompts, state.axis) for record in state.slices.values())
            for name, state in self.labels.items()
            if is_unnamed(name)
        }
        best = max(shared, key=shared.__getitem__, default=None)
        if best is not None and shared[best]:
            return best
        for name in list(shared)[: max(0, len(shared) + 1 - MAX_UNNAMED)]:
            del self.labels[name]
        self._unnamed += 1
        return f"{UNNAMED} {self._unnamed}"


def _in_common(record: SliceRecord, prompts: Prompts, axis: int) -> int:
    """Number of foreground clicks, and of boxes, that a slice was decided from and that are among the prompts."""
    boxes = (record.box, prompts.box)
    same_box = None not in boxes and all(
        ours == theirs for n, (ours, theirs) in enumerate(zip(*boxes, strict=True)) if n // 2 != axis
    )
    return len(record.foreground.intersection(prompts.foreground)) + same_box


class WorkingMasks:
    """The working masks of all clients, the least recently used dropped first.

    Args:
        max_bytes: limit of all together; the one used last is kept even if it is larger.
        max_count: limit of their number.
    """

    def __init__(self, max_bytes: int, max_count: int = 1000) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._guard = threading.Lock()
        self._kept: OrderedDict[Hashable, WorkingMask] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}
        self._in_use = KeyedLocks()

    def __len__(self) -> int:
        """Number of working masks kept."""
        with self._guard:
            return len(self._kept)

    @contextmanager
    def open(self, key: Hashable) -> Iterator[WorkingMask]:
        """Work on one working mask; other requests for the same one wait, those for others do not.

        If the block raises, what it had changed stays changed: change it last.
        """
        with self._in_use.hold(key):
            with self._guard:
                working = self._kept.pop(key, None) or WorkingMask()
            try:
                yield working
            finally:
                if working.labels or working.saved_version is not None:
                    with self._guard:
                        self._kept[key] = working
                        self._sizes[key] = working.nbytes
                        self._shrink()

    def _shrink(self) -> None:
        self._sizes = {key: self._sizes[key] for key in self._kept}
        while len(self._kept) > 1 and (
            len(self._kept) > self._max_count or sum(self._sizes.values()) > self._max_bytes
        ):
            key, _ = self._kept.popitem(last=False)
            del self._sizes[key]
