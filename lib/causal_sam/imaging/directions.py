"""Patient directions: "left" is the patient's left, however a file stores its voxels."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from causal_sam.errors import InputError

# Between RAS+ millimetre (nibabel, and here) and LPS+ millimetre (DICOM, ITK, NRRD), in either direction.
RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Unit vectors in RAS+ millimetre space.
_VECTORS = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "anterior": (0, 1, 0),
    "posterior": (0, -1, 0),
    "superior": (0, 0, 1),
    "inferior": (0, 0, -1),
}
DIRECTIONS = tuple(_VECTORS)


def direction_vector(direction: str) -> NDArray[np.float64]:
    """Return the unit vector of a patient direction in RAS+ space.

    Args:
        direction: one of `DIRECTIONS`.

    Raises:
        InputError: it is none of them.

    >>> direction_vector("left").tolist()
    [-1.0, 0.0, 0.0]
    """
    if direction not in _VECTORS:
        raise InputError(f"Direction must be one of {', '.join(DIRECTIONS)}, not {direction!r}.")
    return np.array(_VECTORS[direction], dtype=np.float64)


def patient_axes(affine: NDArray[np.float64]) -> tuple[tuple[int, int], ...]:
    """Return for each voxel axis i, j, k the nearest patient axis and the sign it runs in.

    Args:
        affine: 4x4, voxel index -> RAS+ millimetre.

    Returns:
        Three pairs (axis, sign): axis 0 is left-right, 1 posterior-anterior, 2 inferior-superior; sign is 1 where the
        voxel index grows towards right, anterior or superior. Each patient axis occurs once, for oblique volumes too.
    """
    return tuple((int(axis), int(sign)) for axis, sign in io_orientation(affine))


def axis_towards(affine: NDArray[np.float64], direction: str) -> tuple[int, int]:
    """Return the voxel axis nearest to a patient direction, and the sign in which its index grows that way.

    Args:
        affine: 4x4, voxel index -> RAS+ millimetre.
        direction: one of `DIRECTIONS`.

    Raises:
        InputError: it is none of them.

    >>> axis_towards(np.diag([-1.0, -1.0, 1.0, 1.0]), "left")
    (0, 1)
    """
    vector = direction_vector(direction)
    wanted = int(np.flatnonzero(vector)[0])
    for voxel_axis, (patient_axis, sign) in enumerate(patient_axes(affine)):
        if patient_axis == wanted:
            return voxel_axis, sign * int(vector[wanted])
    raise AssertionError("io_orientation assigns each patient axis once")


def distances_along(
    affine: NDArray[np.float64], direction: str, shape: tuple[int, ...], start: tuple[int, ...] = (0, 0, 0)
) -> NDArray[np.float32]:
    """Return how far each voxel lies in a patient direction, in millimetre from voxel (0, 0, 0).

    Args:
        affine: 4x4, voxel index -> RAS+ millimetre.
        direction: one of `DIRECTIONS`.
        shape: (I, J, K) of the requested part of the volume.
        start: the part's first voxel.

    Raises:
        InputError: it is none of the directions.

    >>> distances_along(np.diag([-2.0, -1.0, 1.0, 1.0]), "left", (3, 1, 1), (1, 0, 0)).ravel().tolist()
    [2.0, 4.0, 6.0]
    """
    steps = direction_vector(direction) @ affine[:3, :3]
    i, j, k = (
        step * (first + np.arange(size, dtype=np.float32))
        for step, first, size in zip(steps, start, shape, strict=True)
    )
    return (i[:, None, None] + j[:, None] + k).astype(np.float32)
