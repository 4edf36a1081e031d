"""Masks of whole structures: coarse masks of a volume context, whose borders a mask decoder draws.

The first answer is free. After that a click changes the mask only where the wrong part that it lies in is: a background
click removes, a foreground click adds, the connected part of the difference between the mask and the corrected coarse
mask that the click lies in or touches. What was connected to the structure only through a removed part goes too. All
other voxels stay, so that more clicks do not undo what is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from causal_sam.imaging import FILE_ORDER, nonempty_slices
from causal_sam.imaging.shape import bounding_box
from causal_sam.prompting.borders import BorderDecoder
from causal_sam.prompting.implied import implied_place
from causal_sam.prompting.prompts import Prompts, Voxel
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT, VolumeSlices
from causal_sam.volume.context import CoarseMask
from causal_sam.volume.network import FEATURE_STRIDE
from causal_sam.volume.segmenter import CoarseSegmenter

Mask = NDArray[np.bool_]
# Below this predicted Dice the context does not know the structure.
MIN_CERTAINTY = 0.6
# Pixels of the mask grid in a cell of the context: a click reaches so far, and thinner lines are only other borders.
CELL = 2
# How far a structure may reach beyond a box in its plane, as a share of the box, and how much farther for each mm away
# from its slices.
BOX_MARGIN, BOX_SLOPE = 0.1, 1.0
# Least size of a part without a point, as a share of the largest: of a pair, both are about as large.
MIN_PART = 0.3
# Largest size of a part that a removal detaches and that goes with it, as a share of what is left.
MAX_DETACHED = 0.5
_CROSS = np.zeros((3, 3, 3), bool)
_CROSS[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True, eq=False)
class VolumeMask:
    """Answer of a volume context.

    Attributes:
        mask: (I, J, K).
        changed: voxel indices along the slice axis of the slices that were decided.
        certainty: expected Dice.
    """

    mask: Mask
    changed: tuple[int, ...]
    certainty: float


class VolumeMasker:
    """Segments structures of one volume with a context.

    Args:
        context: context of the volume.
        decoder: draws the borders; its slices are those of the volume.
    """

    def __init__(self, context: CoarseSegmenter, decoder: BorderDecoder) -> None:
        self.context = context
        self._decoder, self._frame = decoder, decoder.slices.frame
        self._grid = _MaskGrid(decoder.slices, decoder.mask_size)

    @property
    def slices(self) -> VolumeSlices:
        """Whole slices of the volume, scaled for the decoder."""
        return self._decoder.slices

    def coarse(self, prompts: Prompts, name: str | None) -> CoarseMask:
        """Ask the context for the structure of all prompts; it stays within a box."""
        answer = self.context.segment(prompts.foreground, prompts.background, prompts.box, None, name)
        return answer if prompts.box is None else _within_box(answer, prompts.box)

    def knows(self, coarse: CoarseMask, foreground: Sequence[Voxel]) -> bool:
        """Return True if a coarse mask can be the structure: the context is sure, and it holds most of the points."""
        if coarse.certainty < MIN_CERTAINTY or not coarse.indices():
            return False
        held = [self._holds(coarse, voxel) for voxel in foreground]
        return 2 * sum(held) >= len(held)

    def holds_any(self, coarse: CoarseMask, points: Sequence[Voxel]) -> bool:
        """Return True if a coarse mask holds a point."""
        return any(self._holds(coarse, voxel) for voxel in points)

    def draw(
        self, coarse: CoarseMask, prompts: Prompts, limits: tuple[int, int] | None = None, fixed: Collection[int] = ()
    ) -> VolumeMask:
        """Draw the borders of a coarse mask: the part that is connected with the foreground points.

        Args:
            coarse: coarse mask.
            prompts: prompts that it was made from.
            limits: first and last slice.
            fixed: indices of slices that do not count as decided; they are drawn too, since what lies beyond them is
                connected through them.
        """
        first, last = limits or (0, self._frame.count - 1)
        indices = [index for index in coarse.indices() if first <= index <= last]
        mask = np.zeros(self._frame.volume_shape, bool, order=FILE_ORDER)
        for index, low_res in zip(indices, self._draw(coarse, indices, self._low_res(coarse, indices)), strict=True):
            area = self._grid.area(low_res > 0)
            self._frame.extract(mask, index)[area] = self.slices.logits(torch.from_numpy(low_res), area) > 0
        changed = tuple(index for index in indices if index not in fixed)
        return VolumeMask(_connected(mask, prompts.foreground), changed, coarse.certainty)

    def logits(self, coarse: CoarseMask | None, mask: Mask, indices: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Yield what the decoder says about slices: logits (rows, columns), canonical; positive is inside.

        Args:
            coarse: prompt of the decoder; None for the mask.
            mask: mask (I, J, K).
            indices: voxel indices along the slice axis, ascending.
        """
        size, slices = self._decoder.mask_size, self.slices
        if coarse is None:
            masks = [self._frame.extract(mask, index) for index in indices]
            low_res = np.stack([slices.low_res_prompt(each, size) for each in masks])
            drawn = self._decoder.draw(indices, low_res, frozenset(indices))
        else:
            drawn = self._draw(coarse, indices, self._low_res(coarse, indices))
        for logits in drawn:
            yield slices.logits(torch.from_numpy(logits))

    def correct(
        self, shown: Prompts, name: str | None, before: Mask, new: Prompts, fixed: Collection[int] = ()
    ) -> VolumeMask:
        """Change the mask so far in the connected wrong parts that new points lie in.

        Args:
            shown: all prompts.
            name: name of the label; None without.
            before: mask so far; not empty.
            new: points that are new; those that the mask agrees with change nothing.
            fixed: indices of slices that stay.

        Returns:
            The answer; its expected Dice is 1 where all points agree with the mask.
        """
        mask, changed, certainty = before, set[int](), 1.0
        for is_foreground, points in ((False, new.background), (True, new.foreground)):
            contradicting = tuple(voxel for voxel in points if bool(mask[voxel]) != is_foreground)
            if not contradicting or not mask.any():
                continue
            # The corrections were fitted to masks that somebody clicked; of others, some place has to stand for them.
            inside = shown.foreground or (implied_place(self._frame, mask, shown.background),)
            coarse = self.context.correct(inside, shown.background, shown.box, mask, contradicting, name)
            only = Prompts(contradicting, ()) if is_foreground else Prompts((), contradicting)
            so_far = mask
            mask, now = self._changed_at(only, so_far, coarse, fixed)
            if not is_foreground:
                detached = _detached(so_far, mask, shown.foreground)
                lost = nonempty_slices(detached, self._frame.axis).difference(fixed)
                for index in lost:
                    here = self._frame.extract(mask, index)
                    here &= ~self._frame.extract(detached, index)
                now = (*now, *lost)
            changed.update(now)
            certainty = coarse.certainty
        return VolumeMask(mask, tuple(sorted(changed)), certainty)

    def _changed_at(
        self, points: Prompts, before: Mask, coarse: CoarseMask, fixed: Collection[int]
    ) -> tuple[Mask, tuple[int, ...]]:
        """Change a mask in the connected parts of its difference from a coarse mask that points lie in."""
        axis = self._frame.axis
        there = {*coarse.indices(), *nonempty_slices(before, axis), *points.indices(axis)}
        indices = range(min(there), max(there) + 1)
        low_res = self._low_res(coarse, indices)
        after, now = low_res > 0, np.stack([self._grid.down(self._frame.extract(before, index)) for index in indices])
        added = self._part_at(points.foreground, after & ~now, indices)
        removed = self._part_at(points.background, now & ~after, indices)
        some = (added | removed).any((1, 2))
        changed = [n for n, index in enumerate(indices) if some[n] and index not in fixed]
        mask = before.copy(order="K")
        drawn = self._draw(coarse, [indices[n] for n in changed], low_res[changed])
        for n, logits in zip(changed, drawn, strict=True):
            area = self._grid.area(added[n] | removed[n])
            here = self._frame.extract(mask, indices[n])[area]
            inside = self.slices.logits(torch.from_numpy(logits), area) > 0
            here |= self._grid.up(added[n], area) & inside
            here &= ~self._grid.up(removed[n], area) | inside
        return mask, tuple(indices[n] for n in changed)

    def _draw(self, coarse: CoarseMask, indices: Sequence[int], low_res: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits NxLxL with borders by the decoder."""
        return self._decoder.draw(indices, low_res, frozenset(coarse.grid.indices)) if len(indices) else low_res

    def _low_res(self, coarse: CoarseMask, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return logits NxLxL on the mask grid, whose pixels are whole parts of the coarse cells."""
        grid, size = coarse.grid, self._decoder.mask_size
        low_res = np.full((len(indices), size, size), -MASK_PROMPT_LOGIT, np.float32)
        there = [n for n, index in enumerate(indices) if grid.covers(index)]
        if not there:
            return low_res
        planes = torch.stack([grid.plane(coarse.logits, indices[n]) for n in there])
        pixel = self.slices.image_size // size
        corner = (grid.rows[0] * FEATURE_STRIDE // pixel, grid.columns[0] * FEATURE_STRIDE // pixel)
        low_res[there] = coarse_mask_prompts(planes, grid.stride // pixel, size, corner).numpy()
        return low_res

    def _part_at(self, points: Sequence[Voxel], change: Mask, indices: Sequence[int]) -> Mask:
        """Return the connected parts (NxLxL) of a change that points lie in or touch, with a margin of a cell."""
        at = np.zeros_like(change)
        for voxel in points:
            index, row, column = self._grid.place(voxel)
            at[index - indices[0], row, column] = True
        if not (at.any() and change.any()):
            return np.zeros_like(change)
        near = ndimage.binary_dilation(at, ndimage.generate_binary_structure(3, 1))
        near = ndimage.binary_dilation(near, _CROSS, iterations=CELL) & change
        solid = ndimage.binary_opening(change, _CROSS)
        parts, _ = ndimage.label(solid)
        wanted = np.unique(parts[near & solid])
        part = np.isin(parts, wanted[wanted > 0]) | near
        return ndimage.binary_dilation(part, _CROSS, iterations=CELL)

    def _holds(self, coarse: CoarseMask, voxel: Voxel) -> bool:
        """Return True if a coarse mask holds a voxel, or ends within a cell of it."""
        index, row, column = self._grid.place(voxel)
        inside = self._low_res(coarse, [index])[0] > 0
        return bool(inside[max(row - CELL, 0) : row + CELL + 1, max(column - CELL, 0) : column + CELL + 1].any())


def coarse_mask_prompts(logits: Tensor, scale: int, mask_size: int, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Bring coarse logits to the mask grid, as prompts of the mask decoder.

    Args:
        logits: Nxhxw.
        scale: pixels of the mask grid in a cell.
        mask_size: side L of the mask grid.
        corner: row and column on the mask grid of the first cell.

    Returns:
        NxLxL within `MASK_PROMPT_LOGIT`; minus that outside of the cells.
    """
    fine = F.interpolate(logits[:, None], scale_factor=scale, mode="bilinear")[:, 0]
    prompts = logits.new_full((len(logits), mask_size, mask_size), -MASK_PROMPT_LOGIT)
    (top, left), (rows, columns) = corner, fine.shape[1:]
    prompts[:, top : top + rows, left : left + columns] = fine.clamp(-MASK_PROMPT_LOGIT, MASK_PROMPT_LOGIT)
    return prompts


class _MaskGrid:
    """Places of voxels on the mask grid, by the nearest pixel."""

    def __init__(self, slices: VolumeSlices, size: int) -> None:
        self._frame, self._size = slices.frame, size
        self._rows, self._columns = (
            ((np.arange(count) + 0.5) * side * size / (count * slices.image_size)).astype(np.intp).clip(0, size - 1)
            for count, side in ((slices.rows, slices.height), (slices.columns, slices.width))
        )

    def place(self, voxel: Voxel) -> tuple[int, int, int]:
        """Return slice index, row and column of a voxel."""
        index, row, column = self._frame.to_slice(voxel)
        return index, int(self._rows[row]), int(self._columns[column])

    def area(self, grid: Mask) -> tuple[slice, slice]:
        """Return the rows and columns of the voxels that a mask LxL, or one interpolated from it, can hold."""
        area = []
        for places, steps in ((grid.any(1), self._rows), (grid.any(0), self._columns)):
            there = np.flatnonzero(places)
            first, last = (int(there[0]) - 1, int(there[-1]) + 1) if len(there) else (0, -1)
            area.append(slice(*np.searchsorted(steps, [first, last + 1]).tolist()))
        return area[0], area[1]

    def up(self, grid: Mask, area: tuple[slice, slice]) -> Mask:
        """Return the values LxL at the voxels of some rows and columns."""
        return grid[np.ix_(self._rows[area[0]], self._columns[area[1]])]

    def down(self, mask: Mask) -> Mask:
        """Return a mask (rows, columns) on the grid: LxL."""
        grid = np.zeros((self._size, self._size), bool)
        places = (np.searchsorted(steps, np.arange(steps[-1] + 1)) for steps in (self._rows, self._columns))
        part = mask[np.ix_(*places)]
        grid[: part.shape[0], : part.shape[1]] = part
        return grid


def _within_box(coarse: CoarseMask, box: Sequence[int]) -> CoarseMask:
    """Limit a coarse mask to a box, which is larger on slices before and behind it, the farther away they are."""
    ends = coarse.grid.positions([box[0::2], box[1::2]]).sort(0).values
    away = [
        torch.maximum(ends[0, axis] - cells, cells - ends[1, axis]).clamp(min=0)
        for axis, cells in enumerate(torch.arange(side) for side in coarse.logits.shape)
    ]
    step, rows, columns = coarse.grid.geometry.cell_mm
    allowed = torch.ones_like(coarse.logits, dtype=torch.bool)
    for axis, cell in ((1, rows), (2, columns)):
        margin = 1 + BOX_MARGIN * (ends[1, axis] - ends[0, axis]) + BOX_SLOPE * step / cell * away[0]
        near = away[axis][None] <= margin[:, None]
        allowed &= near[:, :, None] if axis == 1 else near[:, None, :]
    return replace(coarse, logits=coarse.logits.where(allowed, coarse.logits.clamp(max=-MASK_PROMPT_LOGIT)))


def _detached(before: Mask, after: Mask, points: Sequence[Voxel]) -> Mask:
    """Return the parts that a removal has cut off from those with points; large ones are more likely to be right."""
    nothing = np.zeros_like(after)
    held = [voxel for voxel in points if after[voxel]]
    if not held:
        return nothing
    box = bounding_box(before)
    (parts, count), (earlier, _) = (ndimage.label(mask[box], np.ones((3, 3, 3))) for mask in (after, before))
    places = tuple(np.array(held).T - np.array([side.start for side in box])[:, None])
    sizes, kept = np.bincount(parts.ravel()), np.unique(parts[places])
    owners = ndimage.maximum(earlier, parts, np.arange(count + 1)).astype(np.intp)
    is_detached = np.isin(owners, np.unique(earlier[places])) & (sizes < MAX_DETACHED * sizes[kept].sum())
    is_detached[[0, *kept.tolist()]] = False
    if is_detached.any():
        nothing[box] = is_detached[parts]
    return nothing


def _connected(mask: Mask, points: Sequence[Voxel]) -> Mask:
    """Keep the components that hold points; those that are not small beside the largest, if none does."""
    hits = [nonempty_slices(mask, axis) for axis in range(3)]
    if not all(hits):
        return mask
    starts = [min(hit) for hit in hits]
    part = mask[tuple(slice(start, max(hit) + 1) for start, hit in zip(starts, hits, strict=True))]
    components, count = ndimage.label(part, structure=np.ones((3, 3, 3)))
    if count > 1:
        at = [tuple(v - start for v, start in zip(voxel, starts, strict=True)) for voxel in points if mask[voxel]]
        kept = {int(components[place]) for place in at}
        if not kept:
            sizes = np.bincount(components.ravel())[1:]
            kept = set((1 + np.flatnonzero(sizes >= MIN_PART * sizes.max())).tolist())
        is_kept = np.zeros(count + 1, bool)
        is_kept[list(kept)] = True
        part &= is_kept[components]
    return mask
