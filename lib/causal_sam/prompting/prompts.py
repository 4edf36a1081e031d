"""Clicks, boxes and curves of a user, checked against the volume before any model sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from causal_sam.errors import InputError
from causal_sam.imaging import SliceFrame, nonempty_slices

Voxel = tuple[int, int, int]
Box = tuple[int, ...]  # first and last voxel along i, j and k
# A stroke is shown to the model as points along it: on a slice at most so many, so many voxels from each other.
MAX_STROKE_POINTS = 8
MIN_POINT_DISTANCE = 4.0


@dataclass(frozen=True)
class Prompts:
    """Checked prompts in voxel indices of the volume, in its file order.

    Attributes:
        foreground: voxels (i, j, k) inside the structure.
        background: voxels (i, j, k) outside of it.
        box: (i0, i1, j0, j1, k0, k1), both ends inclusive, or None.
    """

    foreground: tuple[Voxel, ...] = ()
    background: tuple[Voxel, ...] = ()
    box: Box | None = None

    def __bool__(self) -> bool:
        return bool(self.foreground or self.background or self.box)

    @classmethod
    def checked(
        cls,
        shape: tuple[int, int, int],
        foreground: Sequence[Sequence[float]] = (),
        background: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
    ) -> Prompts:
        """Check prompts against a volume of ``shape``; a position between voxels means the nearest voxel.

        Raises:
            InputError: there is neither a point nor a box, a point or box is not finite or not inside the volume, or a
                box is upside down.
        """
        prompts = cls(
            tuple(_voxel(point, shape, "Foreground") for point in foreground),
            tuple(_voxel(point, shape, "Background") for point in background),
            None if box is None else _box(box, shape),
        )
        if not prompts:
            raise InputError("Give at least one foreground point or a box: nothing was prompted.")
        return prompts

    def on_slice(self, axis: int, index: int) -> Prompts:
        """Keep what lies on one slice, with the box cut to it: what other slices hold does not matter there."""
        box = None
        if self.box is not None and self.box[2 * axis] <= index <= self.box[2 * axis + 1]:
            box = (*self.box[: 2 * axis], index, index, *self.box[2 * axis + 2 :])
        return Prompts(
            tuple(voxel for voxel in self.foreground if voxel[axis] == index),
            tuple(voxel for voxel in self.background if voxel[axis] == index),
            box,
        )

    def indices(self, axis: int) -> list[int]:
        """Voxel indices along ``axis`` of all slices that any prompt is on, in ascending order."""
        indices = {voxel[axis] for voxel in (*self.foreground, *self.background)}
        if self.box is not None:
            indices.update(range(self.box[2 * axis], self.box[2 * axis + 1] + 1))
        return sorted(indices)

    def slices(self, axis: int, refined: Mapping[int, object]) -> list[int]:
        """Voxel indices along ``axis`` of the slices to segment, in ascending order.

        Args:
            axis: voxel axis perpendicular to the slices.
            refined: slices that have a previous mask; only there may background points stand alone.

        Raises:
            InputError: a slice has background points only, and nothing that they could correct.
        """
        positive = set(Prompts(self.foreground, (), self.box).indices(axis))
        negative = {voxel[axis] for voxel in self.background} - positive
        for voxel in self.background:
            if voxel[axis] in negative and voxel[axis] not in refined:
                raise InputError(
                    f"Background point {voxel} is alone on slice {'ijk'[axis]}={voxel[axis]}: "
                    "add a foreground point or a box there, or a mask to correct."
                )
        return sorted(positive | negative)


@dataclass(frozen=True)
class Lasso:
    """A closed curve on one slice.

    Attributes:
        corners: voxels (i, j, k); the last one is joined to the first.
    """

    corners: tuple[Voxel, ...]

    def index(self, axis: int) -> int:
        """Voxel index of its slice.

        Raises:
            InputError: it is not on one slice.
        """
        indices = {corner[axis] for corner in self.corners}
        if len(indices) > 1:
            raise InputError(
                f"The lasso must lie on one slice, but its points have {'ijk'[axis]} from {min(indices)} to "
                f"{max(indices)}: draw it in the plane that is segmented."
            )
        return indices.pop()

    def box(self, axis: int) -> Box:
        """Its bounding box.

        Raises:
            InputError: it is not on one slice.
        """
        self.index(axis)
        return tuple(end(corner[a] for corner in self.corners) for a in range(3) for end in (min, max))

    def filled(self, frame: SliceFrame) -> NDArray[np.bool_]:
        """The area that it encloses on its slice, the curve included: bool (rows, columns), canonical."""
        outline = [frame.to_slice(corner)[:0:-1] for corner in self.corners]
        mask = np.zeros(frame.shape_rc, np.uint8)
        cv2.fillPoly(mask, [np.array(outline, np.int32)], [1])
        return mask.astype(bool)


@dataclass(frozen=True, eq=False)
class Strokes:
    """Scribbles for one label.

    Attributes:
        foreground, background: bool (I, J, K), painted inside and outside of the structure.
        region: (i0, i1, j0, j1, k0, k1), ends inclusive, outside of which the structure is not; None without.
    """

    foreground: NDArray[np.bool_]
    background: NDArray[np.bool_]
    region: Box | None = None

    def prompts(self, frame: SliceFrame) -> Prompts:
        """Points along the middle lines of the strokes of each slice."""
        return Prompts(tuple(_points(self.foreground, frame)), tuple(_points(self.background, frame)))

    def enforced(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a new mask with every voxel as it was painted, and nothing outside the region."""
        mask = (mask | self.foreground) & ~self.background
        if self.region is not None:
            i0, i1, j0, j1, k0, k1 = self.region
            inside = np.zeros_like(mask)
            inside[i0 : i1 + 1, j0 : j1 + 1, k0 : k1 + 1] = True
            mask &= inside
        return mask


def _points(strokes: NDArray[np.bool_], frame: SliceFrame) -> Iterator[Voxel]:
    """Spread points over the middle lines of the strokes of each slice."""
    for index in sorted(nonempty_slices(strokes, frame.axis)):
        line = np.argwhere(skeletonize(np.ascontiguousarray(frame.extract(strokes, index))))
        nearest = np.full(len(line), np.inf)
        chosen = 0
        for _ in range(MAX_STROKE_POINTS):
            row, column = line[chosen].tolist()
            yield frame.to_voxel(index, row, column)
            nearest = np.minimum(nearest, np.linalg.norm(line - line[chosen], axis=1))
            chosen = int(nearest.argmax())
            if nearest[chosen] < MIN_POINT_DISTANCE:
                break


def checked_previous(
    previous: Mapping[int, NDArray[np.floating]] | None, count: int, mask_size: int
) -> dict[int, NDArray[np.float32]]:
    """Check low-resolution logits of earlier masks.

    Args:
        previous: slice index -> LxL logits.
        count: number of slices of the volume.
        mask_size: L.

    Raises:
        InputError: an index is outside the volume, or logits are not LxL finite numbers.
    """
    checked = {}
    for index, logits in (previous or {}).items():
        array = np.asarray(logits, dtype=np.float32)
        if not 0 <= index < count:
            raise InputError(f"A previous mask is for slice {index}, but the volume has slices 0..{count - 1}.")
        if array.shape != (mask_size, mask_size) or not np.isfinite(array).all():
            raise InputError(
                f"The previous mask of slice {index} must be {mask_size}x{mask_size} finite logits, "
                f"not {'x'.join(map(str, array.shape))}: pass on `low_res_logits` of a prediction."
            )
        checked[index] = array
    return checked


def _numbers(values: Sequence[float], count: int, what: str, form: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or isinstance(values, str):
        raise InputError(f"{what} {values!r} must be {count} numbers {form} in voxel indices.")
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{what} {values!r} is not finite: give {form} in voxel indices of the volume.")
    return numbers


def _nearest(number: float) -> int:
    return math.floor(number + 0.5)


def _valid_range(shape: tuple[int, int, int]) -> str:
    return ", ".join(f"{name} in 0..{size - 1}" for name, size in zip("ijk", shape, strict=True))


def _voxel(point: Sequence[float], shape: tuple[int, int, int], kind: str) -> Voxel:
    i, j, k = (_nearest(number) for number in _numbers(point, 3, f"{kind} point", "(i, j, k)"))
    if not all(0 <= index < size for index, size in zip((i, j, k), shape, strict=True)):
        raise InputError(f"{kind} point {(i, j, k)} is outside the volume: valid are {_valid_range(shape)}.")
    return i, j, k


def _box(box: Sequence[float], shape: tuple[int, int, int]) -> Box:
    i0, i1, j0, j1, k0, k1 = (_nearest(n) for n in _numbers(box, 6, "Box", "(i0, i1, j0, j1, k0, k1)"))
    for name, first, last, size in (("i", i0, i1, shape[0]), ("j", j0, j1, shape[1]), ("k", k0, k1, shape[2])):
        if first > last:
            raise InputError(f"Box {(i0, i1, j0, j1, k0, k1)} ends before it begins: {name}0 must not exceed {name}1.")
        if first < 0 or last >= size:
            raise InputError(
                f"Box {(i0, i1, j0, j1, k0, k1)} is not inside the volume: valid are {_valid_range(shape)}."
            )
    return i0, i1, j0, j1, k0, k1
