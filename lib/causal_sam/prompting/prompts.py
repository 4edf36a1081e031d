"""What a user clicked or drew, checked against the volume before any model sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError

Voxel = tuple[int, int, int]
Box = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Prompts:
    """Checked prompts in voxel indices of the volume, in its file order.

    Attributes:
        foreground: voxels (i, j, k) inside the structure.
        background: voxels (i, j, k) outside of it.
        box: (i0, i1, j0, j1, k0, k1), both ends inclusive, or None.
    """

    foreground: tuple[Voxel, ...]
    background: tuple[Voxel, ...]
    box: Box | None

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
        if not prompts.foreground and not prompts.background and prompts.box is None:
            raise InputError("Give at least one foreground point or a box: nothing was prompted.")
        return prompts

    def on_slice(self, axis: int, index: int) -> Prompts:
        """Keep what lies on one slice; the box is kept whole if the slice passes through it."""
        through = self.box is not None and self.box[2 * axis] <= index <= self.box[2 * axis + 1]
        return Prompts(
            tuple(voxel for voxel in self.foreground if voxel[axis] == index),
            tuple(voxel for voxel in self.background if voxel[axis] == index),
            self.box if through else None,
        )

    def slices(self, axis: int, refined: Mapping[int, object]) -> list[int]:
        """Voxel indices along ``axis`` of the slices to segment, in ascending order.

        Args:
            axis: voxel axis perpendicular to the slices.
            refined: slices that have a previous mask; only there may background points stand alone.

        Raises:
            InputError: a slice has background points only, and nothing that they could correct.
        """
        positive = {voxel[axis] for voxel in self.foreground}
        if self.box is not None:
            positive.update(range(self.box[2 * axis], self.box[2 * axis + 1] + 1))
        negative = {voxel[axis] for voxel in self.background} - positive
        for voxel in self.background:
            if voxel[axis] in negative and voxel[axis] not in refined:
                raise InputError(
                    f"Background point {voxel} is alone on slice {'ijk'[axis]}={voxel[axis]}: "
                    "add a foreground point or a box there, or a mask to correct."
                )
        return sorted(positive | negative)


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
