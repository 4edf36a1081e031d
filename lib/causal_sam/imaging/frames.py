"""Canonical slices: the same anatomy gives the same picture, in whatever order a file stores its voxels.

Only axes are swapped and flipped, so no voxel is ever interpolated and the way back is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging.directions import patient_axes
from causal_sam.imaging.volume import Volume

# Radiological display: patient axis (0 to right, 1 to anterior, 2 to superior) and sign of slices, rows and columns.
DISPLAY = {
    "axial": ((2, 1), (1, -1), (0, -1)),  # slices to superior, rows to posterior, columns to left
    "coronal": ((1, 1), (2, -1), (0, -1)),  # slices to anterior, rows to inferior, columns to left
    "sagittal": ((0, -1), (2, -1), (1, -1)),  # slices to left, rows to inferior, columns to posterior
}
PLANES = ("auto", *DISPLAY)
# Slices this much thicker than the pixels are wide were acquired as slices; other planes would be a blurred reformat.
THICK_SLICES = 1.5


def other_axes(axis: int) -> tuple[int, int]:
    """Return the two voxel axes in the plane of the slices along ``axis``, ascending.

    >>> other_axes(1)
    (0, 2)
    """
    first, second = (other for other in range(3) if other != axis)
    return first, second


def nonempty_slices(mask: NDArray, axis: int) -> frozenset[int]:
    """Return the voxel indices along ``axis`` of the slices in which an (I, J, K) mask has voxels.

    >>> sorted(nonempty_slices(np.eye(3)[:, :, None], 2)), sorted(nonempty_slices(np.eye(3)[None], 1))
    ([0], [0, 1, 2])
    """
    return frozenset(np.flatnonzero(mask.any(axis=other_axes(axis))).tolist())


def slice_axis(volume: Volume, plane: str = "auto") -> int:
    """Return the voxel axis perpendicular to the slices that are segmented.

    Args:
        volume: any volume.
        plane: one of `PLANES`. "auto" is the plane of acquisition where it can be seen: a volume of one slice, or
            with one voxel side at least 1.5 times each of the others; otherwise it is axial.

    Raises:
        InputError: the plane is unknown.
    """
    if plane not in PLANES:
        raise InputError(f"Plane must be one of {', '.join(PLANES)}, not {plane!r}.")
    if plane == "auto":
        single = [axis for axis, size in enumerate(volume.shape) if size == 1]
        if len(single) == 1:
            return single[0]
        spacing = np.array(volume.spacing)
        thickest = int(spacing.argmax())
        # Rounded, so that the rounding errors of an oblique affine do not decide.
        if round(float(spacing[thickest] / np.delete(spacing, thickest).max()), 3) >= THICK_SLICES:
            return thickest
        plane = "axial"
    return next(
        axis for axis, (patient, _) in enumerate(patient_axes(volume.affine)) if patient == DISPLAY[plane][0][0]
    )


class SliceFrame:
    """Radiological view of the slices along one voxel axis.

    Rows and columns: axial slices run to posterior and to the patient's left, coronal ones to inferior and left,
    sagittal ones to inferior and posterior. `index` is always the voxel index along ``axis`` in the file's order.

    Args:
        affine: 4x4, voxel index -> RAS+ millimetre.
        shape: (I, J, K).
        axis: voxel axis perpendicular to the slices: 0, 1 or 2.

    Attributes:
        plane: axial, coronal or sagittal.
        spacing_rc: distance of neighbouring rows and columns in mm.
        spacing: distance of neighbouring slices in mm.
    """

    def __init__(self, affine: NDArray[np.float64], shape: tuple[int, ...], axis: int) -> None:
        axes = patient_axes(affine)
        self.axis = axis
        self.volume_shape = tuple(shape)
        self.count = shape[axis]
        voxel_axis = {patient: voxel for voxel, (patient, _) in enumerate(axes)}
        self.plane = next(plane for plane, (normal, *_) in DISPLAY.items() if normal[0] == axes[axis][0])
        (_, slice_sign), (row, row_sign), (column, column_sign) = DISPLAY[self.plane]
        self._row_axis, self._column_axis = voxel_axis[row], voxel_axis[column]
        self._flip_rows = axes[self._row_axis][1] != row_sign
        self._flip_columns = axes[self._column_axis][1] != column_sign
        self._step = 1 if axes[axis][1] == slice_sign else -1
        spacing = voxel_sizes(affine)
        self.spacing_rc = (float(spacing[self._row_axis]), float(spacing[self._column_axis]))
        self.spacing = float(spacing[axis])

    @property
    def shape_rc(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.volume_shape[self._row_axis], self.volume_shape[self._column_axis]

    def extract(self, array: NDArray, index: int) -> NDArray:
        """Return slice ``index`` of an (I, J, K) array as a view of rows x columns.

        Raises:
            InputError: there is no such slice.
        """
        return self._display(self._plane(array, index))

    def insert(self, mask: NDArray, array: NDArray, index: int) -> None:
        """Write rows x columns into slice ``index`` of an (I, J, K) array, in place.

        Raises:
            InputError: there is no such slice.
        """
        self._display(self._plane(array, index))[...] = mask

    def to_slice(self, voxel: Sequence[int]) -> tuple[int, int, int]:
        """Return (index, row, column) of a voxel (i, j, k)."""
        row, column = voxel[self._row_axis], voxel[self._column_axis]
        rows, columns = self.shape_rc
        return (
            int(voxel[self.axis]),
            int(rows - 1 - row if self._flip_rows else row),
            int(columns - 1 - column if self._flip_columns else column),
        )

    def to_voxel(self, index: int, row: int, column: int) -> tuple[int, int, int]:
        """Return the voxel (i, j, k) at a row and column of slice ``index``."""
        rows, columns = self.shape_rc
        voxel = [0, 0, 0]
        voxel[self.axis] = int(index)
        voxel[self._row_axis] = int(rows - 1 - row if self._flip_rows else row)
        voxel[self._column_axis] = int(columns - 1 - column if self._flip_columns else column)
        i, j, k = voxel
        return i, j, k

    def neighbours(self, index: int) -> tuple[int, int]:
        """Return the indices of the previous and the next slice: inferior and superior of an axial one, and so on.

        At an end of the volume the slice itself stands in.
        """
        last = self.count - 1
        return min(max(index - self._step, 0), last), min(max(index + self._step, 0), last)

    def _plane(self, array: NDArray, index: int) -> NDArray:
        if not 0 <= index < self.count:
            raise InputError(f"There is no slice {index}: the slices are 0 to {self.count - 1}.")
        return array[(slice(None),) * self.axis + (index,)]

    def _display(self, plane: NDArray) -> NDArray:
        view = plane if self._row_axis < self._column_axis else plane.T
        return view[:: -1 if self._flip_rows else 1, :: -1 if self._flip_columns else 1]
