"""Small volumes in any voxel order."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import Volume


def make_volume(
    shape: tuple[int, int, int] = (12, 10, 7),
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0),
    rotation: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> Volume:
    """Noise with a bright block; voxel axes towards right, anterior and superior, turned by ``rotation``."""
    array = np.random.default_rng(seed).normal(100.0, 20.0, shape).astype(np.float32)
    array[shape[0] // 4 : shape[0] // 2 + 1, shape[1] // 3 : shape[1] // 2 + 1] += 200.0
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.asarray(spacing)
    affine[:3, 3] = (-30.0, 12.5, 400.0)
    return Volume(array=array, affine=affine, modality="MR", tags={}, source=None)


def reorient(volume: Volume, ornt: NDArray[np.float64]) -> Volume:
    """The same anatomy in another voxel order; ``ornt`` as in `nibabel.orientations`."""
    return Volume(
        array=np.ascontiguousarray(nib.orientations.apply_orientation(volume.array, ornt)),
        affine=volume.affine @ nib.orientations.inv_ornt_aff(ornt, volume.shape),
        modality=volume.modality,
        tags=volume.tags,
        source=None,
    )


def reorient_voxel(voxel: tuple[int, int, int], shape: tuple[int, int, int], ornt: NDArray[np.float64]):
    """Index of the same voxel after `reorient`."""
    to_new = np.linalg.inv(nib.orientations.inv_ornt_aff(ornt, shape))
    return tuple(round(number) for number in (to_new @ (*voxel, 1))[:3])
