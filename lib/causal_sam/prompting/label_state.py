"""The state of one label in a session: its mask, and the prompts that each of its slices was decided from."""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from causal_sam.imaging import PackedMask, SliceFrame, nonempty_slices
from causal_sam.prompting.prompts import Box, Lasso, Prompts, Voxel

UNNAMED = "\0unnamed"  # no client can name a label so


def is_unnamed(name: str | None) -> bool:
    """Return True if a mask was prompted without a label name."""
    return name is not None and name.startswith(UNNAMED)


def _decoded(text: str) -> NDArray[np.float16]:
    logits = np.frombuffer(base64.b64decode(text, validate=True), np.float16)
    return logits.reshape(2 * (math.isqrt(len(logits)),))


# In JSON: the bits compressed, and logits as base64 of their bytes.
_Mask = Annotated[PackedMask, PlainValidator(PackedMask.from_json), PlainSerializer(PackedMask.as_json)]
_Logits = Annotated[
    Any,
    PlainValidator(lambda text: None if text is None else _decoded(text)),
    PlainSerializer(lambda logits: base64.b64encode(logits.tobytes()).decode(), when_used="unless-none"),
]


class Source(Enum):
    """Last author of a mask."""

    AUTOMATIC = "automatic"  # segmented by its name; nobody has corrected it
    USER = "user"  # clicked, drawn, or corrected by a note
    ACCEPTED = "accepted"  # saved as accepted, and not changed since by a step for it


@dataclass(frozen=True)
class SliceRecord:
    """The prompts that a slice's mask was decided from.

    Attributes:
        foreground, background: the label's own points.
        box: box in voxels, from this slice to this slice along the slice axis; None without a box.
        logits: float16 LxL low-resolution logits of the mask; None if not all of the mask was decided from the prompts.
        predicted_iou: the model's estimate.
        is_local: the mask was there before, and only the part at the points was changed.
        others: points inside of other labels, which the model was shown as background. They are not the label's own: a
            request that leaves them out takes nothing back.
    """

    foreground: frozenset[Voxel]
    background: frozenset[Voxel]
    box: Box | None
    logits: _Logits
    predicted_iou: float
    is_local: bool = False
    others: frozenset[Voxel] = frozenset()

    def lacks(self, prompts: Prompts) -> bool:
        """Return True if the slice was decided without some of these prompts."""
        return not (
            self.foreground.issuperset(prompts.foreground)
            and (self.background | self.others).issuperset(prompts.background)
            and prompts.box in (None, self.box)
        )

    def exceeds(self, prompts: Prompts) -> bool:
        """Return True if these points lack some that the slice was decided from; a box left out takes nothing back."""
        return not (self.foreground.issubset(prompts.foreground) and self.background.issubset(prompts.background))

    def has_other_box(self, prompts: Prompts) -> bool:
        """Return True if the box was moved."""
        return None not in (self.box, prompts.box) and self.box != prompts.box


@dataclass(frozen=True, eq=False)
class LabelState:
    """The mask of one label, and the prompts that its slices were decided from.

    Attributes:
        mask: all slices.
        axis: voxel axis perpendicular to the slices of ``slices``; None while there are none.
        slices: voxel index along ``axis`` -> record. Slices of a saved label have a mask but no record.
        followed: voxel indices along ``axis`` of the slices whose mask was followed from others; None if the structure
            was never followed.
        is_automatic: whether the mask was first segmented by the label's name.
        source: last author of the mask.
        lasso: closed curve that was filled last; None without.
        adjusted: indices of the slices that notes or other labels changed since they were decided or drawn.
        key: tells the state from all others.
    """

    mask: _Mask
    axis: int | None = None
    slices: dict[int, SliceRecord] = field(default_factory=dict)
    followed: frozenset[int] | None = None
    is_automatic: bool = False
    source: Source = Source.USER
    lasso: Lasso | None = None
    adjusted: frozenset[int] = frozenset()
    key: str = field(init=False, default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def automatic(cls, mask: NDArray[np.bool_], axis: int) -> LabelState:
        """A label that was segmented by its name: prompts may change any of its slices, since nobody drew them."""
        followed = nonempty_slices(mask, axis)
        return cls(PackedMask.pack(mask), axis, {}, followed, is_automatic=True, source=Source.AUTOMATIC)

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        points = sum(len(record.foreground) + len(record.background) for record in self.slices.values())
        logits = sum(record.logits.nbytes for record in self.slices.values() if record.logits is not None)
        return self.mask.bits.nbytes + logits + 200 * (points + len(self.slices))

    @property
    def is_empty(self) -> bool:
        """True if the mask has no voxels."""
        return not self.mask.bits.size

    @property
    def certainty(self) -> float | None:
        """Mean of the model's estimates of the slices that were decided from prompts, 0 to 1; None without any."""
        estimates = [record.predicted_iou for record in self.slices.values()]
        return sum(estimates) / len(estimates) if estimates else None

    @property
    def is_kept(self) -> bool:
        """True if a person made or corrected the mask, so that nothing automatic may replace it."""
        return self.source is not Source.AUTOMATIC and not self.is_empty

    def records(self, axis: int) -> dict[int, SliceRecord]:
        """Records of the slices along an axis: those of another plane do not say anything about them."""
        return self.slices if self.axis == axis else {}

    def drawn(self, axis: int) -> frozenset[int]:
        """Indices of the slices along an axis that have a mask by hand, which points may have corrected."""
        records = self.records(axis)
        by_model = {index for index, record in records.items() if record.logits is not None}
        if self.axis == axis:
            by_model |= self.adjusted | (self.followed or frozenset())
        return nonempty_slices(self.mask.unpack(), axis).difference(by_model)

    def takes_back(self, prompts: Prompts) -> bool:
        """Return True if prompts take points back: they are some of the points sent before, without the others.

        A client sends all points of a label each time. One that sends none of them, or others, may have forgotten them,
        as after a restart; it takes nothing back.
        """
        return bool(prompts.foreground) and self.points(inside=True).issuperset(prompts.foreground)

    def points(self, *, inside: bool) -> set[Voxel]:
        """Points inside or outside of the label that its slices were decided from."""
        records = self.slices.values()
        return {voxel for record in records for voxel in (record.foreground if inside else record.background)}

    def asks_for_change(self, prompts: Prompts, axis: int) -> bool:
        """Return True if the label's prompts say anything new: neither visible in the mask nor used to compute it.

        Args:
            prompts: all prompts of the label.
            axis: voxel axis perpendicular to the slices.
        """
        records, mask = self.records(axis), self.mask.unpack()
        for index in prompts.indices(axis):
            here, record = prompts.on_slice(axis, index), records.get(index)
            if record is None:
                inside, outside = ([mask[voxel] for voxel in part] for part in (here.foreground, here.background))
                if here.box or not all(inside) or any(outside):
                    return True
            elif record.lacks(here) or (record.exceeds(here) and self.takes_back(prompts)):
                return True
        return False

    def in_common(self, prompts: Prompts) -> int:
        """Number of foreground points, and of boxes, that slices were decided from and that are among the prompts."""
        count = 0
        for record in self.slices.values():
            count += len(record.foreground.intersection(prompts.foreground))
            if record.box is not None and prompts.box is not None:
                ends = enumerate(zip(record.box, prompts.box, strict=True))
                count += all(a == b for n, (a, b) in ends if n // 2 != self.axis)
        return count

    def prompts_on(self, indices: Collection[int], axis: int) -> Prompts:
        """The label's own prompts of some slices, with the box around all of their boxes."""
        here = [record for index, record in self.records(axis).items() if index in indices]
        return Prompts(
            tuple(sorted(voxel for record in here for voxel in record.foreground)),
            tuple(sorted(voxel for record in here for voxel in record.background)),
            _around([record.box for record in here if record.box is not None]),
        )

    def without_outgrown(self, prompts: Prompts, axis: int) -> LabelState:
        """Forget how slices came about that have other prompts now, as of a longer stroke, but not their mask."""
        if self.axis != axis:
            return self
        here = {index: prompts.on_slice(axis, index) for index in prompts.indices(axis)}
        slices = {
            index: record
            for index, record in self.slices.items()
            if index not in here or not (record.lacks(here[index]) or record.exceeds(here[index]))
        }
        return replace(self, slices=slices)

    def with_lasso(self, lasso: Lasso, frame: SliceFrame) -> LabelState:
        """Fill a closed curve on its slice, to be decided again, unless the same curve decided the slice before."""
        index = lasso.index(frame.axis)
        record = self.records(frame.axis).get(index)
        if lasso == self.lasso and record is not None and record.box == lasso.box(frame.axis):
            return self
        mask = self.mask.unpack()
        frame.insert(lasso.filled(frame), mask, index)
        edited = self.edited(mask)
        return replace(edited, slices={k: edited.slices[k] for k in edited.slices if k != index}, lasso=lasso)

    def edited(self, mask: NDArray[np.bool_], source: Source = Source.USER, *, is_drawn: bool = True) -> LabelState:
        """Return the state with another mask; slices that look different forget the model's logits, not the points.

        Args:
            mask: new mask.
            source: its author.
            is_drawn: somebody drew it; otherwise a note or another label led to it.
        """
        if self.axis is None:
            return LabelState(PackedMask.pack(mask), source=source)
        differs = nonempty_slices(self.mask.unpack() != mask, self.axis)
        slices = {
            index: replace(record, logits=None, is_local=False) if index in differs else record
            for index, record in self.slices.items()
        }
        followed = self.followed and self.followed - differs
        adjusted = self.adjusted - differs if is_drawn else self.adjusted | differs
        return LabelState(
            PackedMask.pack(mask),
            self.axis,
            slices,
            followed,
            self.is_automatic,
            source,
            self.lasso,
            adjusted,
        )


def _around(boxes: Sequence[Box]) -> Box | None:
    """Return the box around boxes (i0, i1, j0, j1, k0, k1); None if there is none."""
    if not boxes:
        return None
    ends = list(zip(*boxes, strict=True))
    i0, i1, j0, j1, k0, k1 = (max(own) if n % 2 else min(own) for n, own in enumerate(ends))
    return i0, i1, j0, j1, k0, k1


@dataclass(frozen=True, eq=False)
class Refinement:
    """The new state of a label.

    Attributes:
        state: state of the label to keep for the next request.
        mask: bool, all slices, in the file's voxel order.
        decided: voxel indices along the slice axis of the slices whose mask the model decided now from prompts.
        followed: indices of the slices whose mask was followed now from other slices, or changed as these were.
        unused: background points on slices where the label has neither a mask nor a foreground point.
    """

    state: LabelState
    mask: NDArray[np.bool_]
    decided: tuple[int, ...] = ()
    followed: tuple[int, ...] = ()
    unused: int = 0

    @classmethod
    def unchanged(cls, state: LabelState) -> Refinement:
        """Return the refinement of a label without new prompts: its state does not change."""
        return cls(state, state.mask.unpack())


States = dict[str, LabelState]


def protected_labels(states: Mapping[str, LabelState], locked: Collection[str], acts_on: Collection[str]) -> set[str]:
    """Return the labels that a note may not change: locked ones, and accepted ones that it is not about."""
    accepted = {name for name, state in states.items() if state.source is Source.ACCEPTED}
    return accepted.difference(acts_on).union(locked)


def state_of(states: Mapping[str, LabelState], label: str, shape: tuple[int, ...]) -> LabelState:
    """State of a label; an empty one if there is none yet."""
    return states.get(label) or LabelState(PackedMask(shape))


def put(states: States, label: str, state: LabelState) -> None:
    """Give a label its new state; the voxels that it gained leave the other labels."""
    for other, theirs, shared in overlaps(states, label, state.mask):
        states[other] = theirs.edited(theirs.mask.unpack() & ~shared, theirs.source, is_drawn=False)
    states[label] = state


def settle(
    states: States, label: str, state: LabelState, prompts: Prompts, locked: Collection[str]
) -> tuple[LabelState, set[str]]:
    """Put the new state of a label, without the voxels of labels that do not give way to its prompts.

    Returns:
        The state that was put, and the names of the labels that did not give way: locked ones, and accepted ones
        without a point or the middle of a box inside of them.
    """
    clicked: list[tuple[int, ...]] = list(prompts.foreground)
    if prompts.box is not None:
        clicked.append(tuple((a + b) // 2 for a, b in zip(prompts.box[::2], prompts.box[1::2], strict=True)))
    mask, spared = state.mask, set()
    for other, theirs, shared in overlaps(states, label, mask):
        inside = theirs.mask.unpack()
        gives_way = theirs.source is not Source.ACCEPTED or any(inside[voxel] for voxel in clicked)
        if other in locked or not gives_way:
            state = state.edited(state.mask.unpack() & ~shared, is_drawn=False)
            spared.add(other)
    put(states, label, state)
    return state, spared


def overlaps(states: States, label: str, mask: PackedMask) -> Iterator[tuple[str, LabelState, NDArray[np.bool_]]]:
    """Yield the other labels that have voxels of a label's new mask: name, state and these voxels.

    Masks without a name are not in any label map, and stay apart.
    """
    if is_unnamed(label):
        return
    for other, theirs in list(states.items()):
        if other != label and not is_unnamed(other):
            shared = mask.common(theirs.mask)
            if shared.bits.size:
                yield other, theirs, shared.unpack()
