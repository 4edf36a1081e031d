"""From prompted slices to the whole structure: its mask on one slice is the prompt on the next.

A slice that the user prompted, or drew, is an *anchor*. From each anchor the structure is followed in both directions
until it ends or the trail is lost; between two anchors it is followed from both, and the two answers are blended by
their distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.errors import InputError
from causal_sam.imaging import FILE_ORDER, SliceFrame
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT
from causal_sam.volume.context import CoarseMask

# From one slice to the next a structure may become this many times as large, and a few voxels more.
MAX_GROWTH = 2.5
MARGIN_VOXELS = 30
# At least this share of the smaller of two neighbouring masks lies over the other.
MIN_OVERLAP = 0.25
# Estimated by the model; below it the answer is a guess.
MIN_PREDICTED_IOU = 0.35
# Where the coarse logits are below this in all of a mask, the structure is not.
MIN_COARSE_LOGIT = -4.0
# A mask that was followed before and comes out so similar (Dice) on two slices running will not differ further on.
SAME_DICE = 0.97
SAME_SLICES = 2


class Followed(NamedTuple):
    """Mask that the model predicts on a slice from the mask of its neighbour.

    Attributes:
        area: rows and columns that the model looked at; outside of them the mask is empty.
        logits: float32, canonical, of this area; positive is inside.
        predicted_iou: the model's estimate.
    """

    area: tuple[slice, slice]
    logits: NDArray[np.float32]
    predicted_iou: float


class End(StrEnum):
    """Why a structure was not followed further."""

    EMPTY = "it is not on the next slice"
    GREW = "it would have grown too fast"
    JUMPED = "it would have moved too far"
    UNSURE = "the model is not sure of the next slice"
    SAME = "the rest is as it was"
    IMPLAUSIBLE = "the context of the volume does not see it there"
    BORDER = "the volume or the box ends there"


class Follow(Protocol):
    """Segments slice ``index`` given the ``mask`` (rows x columns, canonical) of a neighbouring slice."""

    def __call__(self, index: int, mask: NDArray[np.bool_]) -> Followed: ...


@dataclass(frozen=True)
class Propagation:
    """A structure followed through its volume.

    Attributes:
        mask: bool, in the file's voxel order.
        followed: slice index -> the model's estimate of the overlap with the truth, of the slices decided now.
        ends: reasons why following ended below the first and above the last anchor; only ends that were followed now.
    """

    mask: NDArray[np.bool_]
    followed: dict[int, float]
    ends: dict[str, End]


class Propagator:
    """Follows one structure through the slices of one volume.

    Args:
        frame: geometry of the slices.
        follow: asks the model.
        on_slice: called before each slice with the number of slices followed so far; what it raises ends the work.
        coarse: coarse mask of the structure by a context that is not sure of it, but sees it at the anchors: following
            stops where this has no trace of it.
    """

    def __init__(
        self,
        frame: SliceFrame,
        follow: Follow,
        on_slice: Callable[[int], object] = lambda done: None,
        coarse: CoarseMask | None = None,
    ) -> None:
        self._frame = frame
        self._follow = follow
        self._coarse = coarse
        self._on_slice = on_slice
        self._done = 0

    def propagate(
        self,
        anchors: Mapping[int, NDArray[np.bool_]],
        before: NDArray[np.bool_] | None = None,
        changed: Iterable[int] | None = None,
        limits: tuple[int, int] | None = None,
    ) -> Propagation:
        """Fill the slices between and around the anchors.

        Args:
            anchors: slice index -> mask (rows, columns), canonical. An empty one says that the structure is not there:
                it is followed up to that slice and not beyond.
            before: the mask so far, in the file's voxel order; slices that no change can reach are taken from it.
            changed: slices that are, or were, anchors and changed since ``before``; None follows everything again.
            limits: first and last slice that may be followed.

        Raises:
            InputError: no anchor has a voxel, or an anchor does not fit the slices.
        """
        shape = self._frame.volume_shape
        for index, mask in anchors.items():
            if not 0 <= index < self._frame.count or mask.shape != self._frame.shape_rc:
                raise InputError(
                    f"The mask of slice {index} has shape {mask.shape}; slices 0 to {self._frame.count - 1} of shape "
                    f"{self._frame.shape_rc} can be followed."
                )
        if not any(mask.any() for mask in anchors.values()):
            raise InputError("There is nothing to follow: no slice has a mask.")
        if before is None or changed is None:
            before, changed = np.zeros(shape, bool, order=FILE_ORDER), range(self._frame.count)
        changed = set(changed)
        mask = before.copy(order="K")
        followed: dict[int, float] = {}
        ends: dict[str, End] = {}
        first, last = limits or (0, self._frame.count - 1)
        order = sorted(anchors)
        for index in order:
            self._frame.insert(anchors[index], mask, index)
        for low, high in zip([None, *order], [*order, None], strict=True):
            begin = first if low is None else low + 1
            end = last if high is None else high - 1
            reached = changed.intersection(range(begin if low is None else low, (end if high is None else high) + 1))
            if begin > end or not reached:
                continue
            if low is not None and high is not None:
                self._fill_between(low, high, anchors, mask, followed)
            elif high is not None:
                down = range(end, begin - 1, -1)
                ends["before"] = self._follow_outwards(down, anchors[high], mask, before, changed, followed)
            elif low is not None:
                up = range(begin, end + 1)
                ends["after"] = self._follow_outwards(up, anchors[low], mask, before, changed, followed)
        return Propagation(self._connected(mask, anchors), followed, ends)

    def _follow_outwards(
        self,
        indices: range,
        start: NDArray[np.bool_],
        mask: NDArray[np.bool_],
        before: NDArray[np.bool_],
        changed: set[int],
        followed: dict[int, float],
    ) -> End:
        same = 0
        rest = list(indices)
        end = End.BORDER if rest and start.any() else End.EMPTY
        for index, answer, here in self._trail(indices, start):
            if isinstance(here, End):
                end = here
                break
            former = self._frame.extract(before, index)
            same = same + 1 if _dice(here, former) >= SAME_DICE else 0
            if same >= SAME_SLICES and changed.isdisjoint(rest):
                # The next slices were followed from what is here now.
                return End.SAME
            self._frame.insert(here, mask, index)
            followed[index] = answer.predicted_iou
            rest.remove(index)
        for index in rest:
            self._frame.insert(np.zeros(self._frame.shape_rc, bool), mask, index)
        return end

    def _fill_between(
        self,
        low: int,
        high: int,
        anchors: Mapping[int, NDArray[np.bool_]],
        mask: NDArray[np.bool_],
        followed: dict[int, float],
    ) -> None:
        upwards = self._answers(range(low + 1, high), anchors[low])
        downwards = self._answers(range(high - 1, low, -1), anchors[high])
        for index in range(low + 1, high):
            weighted = [
                (distance, answer)
                for distance, answer in ((high - index, upwards.get(index)), (index - low, downwards.get(index)))
                if answer is not None
            ]
            if not weighted:  # lost from both sides
                self._frame.insert(np.zeros(self._frame.shape_rc, bool), mask, index)
                continue
            total = sum(weight for weight, _ in weighted)
            logits = np.zeros(self._frame.shape_rc, np.float32)
            for weight, answer in weighted:
                whole = np.full(self._frame.shape_rc, -MASK_PROMPT_LOGIT, np.float32)
                whole[answer.area] = np.clip(answer.logits, -MASK_PROMPT_LOGIT, MASK_PROMPT_LOGIT)
                logits += weight / total * whole
            self._frame.insert(logits > 0, mask, index)
            followed[index] = sum(weight / total * answer.predicted_iou for weight, answer in weighted)

    def _answers(self, indices: range, start: NDArray[np.bool_]) -> dict[int, Followed]:
        """Follow from one anchor towards the next; slices from where the trail is lost on are left out."""
        answers: dict[int, Followed] = {}
        nothing = Followed((slice(0), slice(0)), np.zeros((0, 0), np.float32), 1.0)
        if not start.any():  # as sure as can be: the user said that it is not there, but not how far
            return answers
        for index, answer, here in self._trail(indices, start):
            if isinstance(here, End):
                if here is End.EMPTY:
                    answers.update(dict.fromkeys(indices[indices.index(index) :], nothing))
                break
            answers[index] = answer._replace(logits=answer.logits.astype(np.float16))
        return answers

    def _trail(
        self, indices: range, last: NDArray[np.bool_]
    ) -> Iterator[tuple[int, Followed, NDArray[np.bool_] | End]]:
        """Yield index, answer and mask; instead of a mask where following must stop, the reason."""
        if not last.any():
            return
        for index in indices:
            self._on_slice(self._done)
            answer = self._follow(index, last)
            self._done += 1
            here = np.zeros(self._frame.shape_rc, bool)
            here[answer.area] = answer.logits > 0
            reason = _reason_to_stop(here, last, answer.predicted_iou)
            if reason is None and not self._is_plausible(index, here):
                reason = End.IMPLAUSIBLE
            if reason is not None:
                yield index, answer, reason
                return
            yield index, answer, here
            last = here

    def _is_plausible(self, index: int, mask: NDArray[np.bool_]) -> bool:
        return self._coarse is None or bool((self._coarse.slice_logits(index)[mask] > MIN_COARSE_LOGIT).any())

    def _connected(self, mask: NDArray[np.bool_], anchors: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Drop what does not touch, slice by slice, any part of an anchor: islands that appeared on the way."""
        found = ndimage.find_objects(mask.view(np.uint8))
        if not found:
            return mask
        part = mask[found[0]]
        components, _ = ndimage.label(part, structure=np.ones((3, 3, 3)))
        at_anchors = np.zeros_like(mask)
        for index in anchors:
            self._frame.insert(self._frame.extract(mask, index), at_anchors, index)
        kept = np.unique(components[at_anchors[found[0]]])
        mask[found[0]] = np.isin(components, kept[kept > 0])
        return mask


def _reason_to_stop(here: NDArray[np.bool_], last: NDArray[np.bool_], predicted_iou: float) -> End | None:
    area, last_area = np.count_nonzero(here), np.count_nonzero(last)
    if not area:
        return End.EMPTY
    if predicted_iou < MIN_PREDICTED_IOU:
        return End.UNSURE
    if area > MAX_GROWTH * last_area + MARGIN_VOXELS:
        return End.GREW
    if np.count_nonzero(here & last) < MIN_OVERLAP * min(area, last_area):
        return End.JUMPED
    return None


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0
