"""Label maps on grids that are cut out of the grid of their image, or store it in another order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import FILE_ORDER, Volume

# Voxels of a label map must lie this close to voxels of the image, in voxels: far above what rounded headers do.
VOXEL_TOLERANCE = 0.1


def on_grid_of(label: Volume, image: Volume) -> NDArray:
    """Return a label map in the voxel order of its image, each value where it was; nothing is interpolated.

    Args:
        label: its voxels lie on those of ``image``; it may cover a part, and have its axes in any order and direction.
        image: (I, J, K).

    Returns:
        (I, J, K) of the type of ``label``; 0 where it does not reach.

    Raises:
        InputError: voxels of a label lie between or outside of those of the image, or are larger or smaller.
    """
    to_image = np.linalg.inv(image.affine) @ label.affine
    labelled = np.argwhere(label.array)
    exact = labelled @ to_image[:3, :3].T + to_image[:3, 3]
    voxels = np.rint(exact).astype(np.intp)
    turned = np.sort(np.abs(to_image[:3, :3]), axis=0)
    if (
        np.abs(turned - [[0], [0], [1]]).max() > VOXEL_TOLERANCE
        or np.abs(exact - voxels).max(initial=0) > VOXEL_TOLERANCE
        or (voxels < 0).any()
        or (voxels >= image.shape).any()
    ):
        raise InputError("The label is not on the grid of its image.")
    placed = np.zeros(image.shape, label.array.dtype, order=FILE_ORDER)
    placed[tuple(voxels.T)] = label.array[tuple(labelled.T)]
    return placed
