"""Label maps beside their image: whole numbers as values, and voxels in the order of the image."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging.reading import read_volume
from causal_sam.imaging.volume import Volume
from causal_sam.imaging.writing import FILE_ORDER

# Programs that scale or average label maps leave values such as 0.996.
VALUE_TOLERANCE = 0.01
MAX_VALUE = 65535
# The voxels of a label map lie this close to voxels of the image, in voxels, over its whole extent: far above what
# rounded headers do.
VOXEL_TOLERANCE = 0.1
# A label map may reach beyond its image, but not so far that reading it takes memory of another order.
MAX_PADDING = 8
MIN_VOXEL_LIMIT = 2**24


def read_label_map(path: Path, image: Volume) -> NDArray[np.int32]:
    """Read the label map of an image.

    Args:
        path: a file of any format that `read_volume` reads.
        image: (I, J, K); the label map covers it, or a part of it, with its axes in any order and direction.

    Returns:
        (I, J, K) the value of each voxel, in the image's voxel order; 0 where the file does not reach.

    Raises:
        NotFoundError: there is no such file.
        InputError: the file cannot be read, is no label map, or its voxels are not those of the image.
    """
    label = read_volume(path, max_voxels=max(MIN_VOXEL_LIMIT, MAX_PADDING * image.array.size))
    return align_to_grid(Volume(as_label_map(label, path.name), label.affine, source=path), image)


def as_label_map(volume: Volume, name: str) -> NDArray[np.int32]:
    """Return the values of a label map as whole numbers.

    Args:
        volume: (I, J, K); numbers within 0.01 of whole ones are rounded.
        name: name of the label map in the sentence.

    Returns:
        (I, J, K) values from 0 to 65535.

    Raises:
        InputError: the file holds several layers, or a value is negative, too large, between whole numbers or NaN.
    """
    if volume.frames > 1:
        raise InputError(
            f"{name} has {volume.frames} layers, as of segments that overlap: a label map has one number for each "
            "voxel."
        )
    values = volume.array
    if values.dtype.kind == "f":
        whole = np.rint(values)
        # NaN and infinities compare as wrong too.
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(values - whole) <= VALUE_TOLERANCE)
        if wrong.any():
            raise InputError(f"{name} is no label map: it holds {values[wrong][0]:g}, and labels are whole numbers.")
        values = whole
    for value in (values.min(), values.max()):
        if not 0 <= value <= MAX_VALUE:
            raise InputError(f"{name} is no label map: it holds {value:.0f}, and labels are 0 to {MAX_VALUE}.")
    return values.astype(np.int32)


def present_values(label_map: NDArray[np.integer]) -> list[int]:
    """Return the values of a label map in ascending order, without 0; values are from 0 to 65535."""
    seen = np.zeros(MAX_VALUE + 1, np.bool_)  # many times as fast as sorting
    seen[label_map.ravel(order="K")] = True
    return [value for value in np.flatnonzero(seen).tolist() if value]


def align_to_grid(label: Volume, image: Volume) -> NDArray:
    """Return a label map in the voxel order of its image, each value where it was; nothing is interpolated.

    Args:
        label: its voxels lie on those of ``image``; it may have its axes in any order and direction, cover a part of
            the image, or reach beyond it where it is 0.
        image: (I, J, K).

    Returns:
        (I, J, K) of the type of ``label``; 0 where it does not reach.

    Raises:
        InputError: the voxels of the label are larger, smaller or turned, lie between those of the image, or hold
            values outside of it.
    """
    name = f"{label.source.name} is" if label.source is not None else "The label is"
    wrong = f"{name} not on the grid of its image{f' {image.source.name}' if image.source is not None else ''}: "
    to_image = np.linalg.inv(image.affine) @ label.affine
    axes = to_image[:3, :3]
    # An axis of one voxel has a direction and no spacing: a slice alone says its thickness in many ways.
    alone = np.array(label.shape) == 1
    axes[:, alone] /= np.abs(axes[:, alone]).max(axis=0)
    turn = np.rint(axes)
    if not all((np.abs(turn).sum(axis=axis) == 1).all() for axis in (0, 1)):
        raise InputError(f"{wrong}its voxels are of another size or direction.")
    corners = np.array(list(product(*([0, size - 1] for size in label.shape))))
    # Where the grid of the label lies, apart from whole steps along the axes.
    offsets = to_image[:3, 3] + corners @ (axes - turn).T
    start = np.rint(offsets.mean(axis=0)).astype(int)
    if np.abs(offsets - start).max() > VOXEL_TOLERANCE:
        raise InputError(f"{wrong}its voxels lie between those of the image, or are of another size.")
    order = np.abs(turn).argmax(axis=1)
    signs = turn[range(3), order].astype(int)
    values = label.array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    first = start - np.where(signs < 0, np.array(values.shape) - 1, 0)
    begin = np.clip(-first, 0, values.shape)
    end = np.clip(image.shape - first, begin, values.shape)
    inside = values[tuple(map(slice, begin, end))]
    if outside := np.count_nonzero(values) - np.count_nonzero(inside):
        raise InputError(f"{wrong}{outside} of its voxels lie outside of the image.")
    placed = np.zeros(image.shape, values.dtype, order=FILE_ORDER)
    placed[tuple(map(slice, begin + first, end + first))] = inside
    return placed
