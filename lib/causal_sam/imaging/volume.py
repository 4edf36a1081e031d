"""The volume: voxels in the order of their file, and the affine that says where each of them is in the patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from causal_sam.errors import InputError

# An affine whose voxels have less volume than this (mm³) maps everything onto a plane.
MIN_VOXEL_MM3 = 1e-9


def check_frame(frame: int, frames: int, path: Path) -> None:
    """Look whether a file has a frame.

    Args:
        frame: index, counted from 0.
        frames: number of frames in the file.
        path: path of the file.

    Raises:
        InputError: it has no such frame.
    """
    if not 0 <= frame < frames:
        has = "one frame: frame must be 0" if frames == 1 else f"{frames} frames: frame must be in 0..{frames - 1}"
        raise InputError(f"{path.name} has {has}, not {frame}.")


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or label map on its grid.

    Args:
        array: (I, J, K) real numbers, in the voxel order of the file; NaN and infinities are allowed, but not only
            those. A 2D image has shape (I, J, 1). The volume keeps a read-only view.
        affine: 4x4, voxel index (i, j, k, 1) -> millimetre in RAS+ (x to the patient's right, y anterior, z superior),
            as in nibabel.
        modality: DICOM code such as "CT" or "MR"; "" when unknown.
        tags: acquisition tags by DICOM keyword, such as ``KVP`` or ``MagneticFieldStrength``; never patient data.
        source: file or folder that it was read from.
        frame: index among the frames in its file, counted from 0: points in time, or channels.
        frames: number of frames in the file.

    Raises:
        InputError: the array is not a 3D array of real numbers or has no finite voxel, or the affine is not an
            invertible 4x4 matrix.
    """

    array: NDArray
    affine: NDArray[np.float64]
    modality: str = ""
    tags: Mapping[str, str | float] = field(default_factory=dict)
    source: Path | None = None
    frame: int = 0
    frames: int = 1

    def __post_init__(self) -> None:
        name = f" of {self.source.name}" if self.source is not None else ""
        array = np.asanyarray(self.array)
        if array.ndim != 3 or array.size == 0:
            raise InputError(f"The array{name} must have three axes and at least one voxel, not shape {array.shape}.")
        if array.dtype == bool:
            array = array.astype(np.uint8)
        if array.dtype.kind not in "iuf":
            raise InputError(f"The voxels{name} must be real numbers, one for each voxel, not {array.dtype}.")
        if array.dtype.kind == "f" and not np.isfinite(array).any():
            raise InputError(f"The image{name} has no finite voxel: all of them are NaN or infinite.")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise InputError(f"The affine{name} must be a finite 4x4 matrix with last row 0 0 0 1.")
        if abs(np.linalg.det(affine[:3, :3])) < MIN_VOXEL_MM3:
            raise InputError(f"The affine{name} is not invertible: voxel sizes and directions must not be zero.")
        view = array.view()
        view.flags.writeable = False
        affine.flags.writeable = False
        object.__setattr__(self, "array", view)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (i, j, k)."""
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along (i, j, k) in millimetre.

        >>> Volume(np.zeros((2, 2, 2)), np.diag([2.0, 2.0, 5.0, 1.0])).spacing
        (2.0, 2.0, 5.0)
        """
        i, j, k = map(float, voxel_sizes(self.affine))
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        """Size of one voxel in millilitre."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of shape, type and voxels; independent of the memory layout and of the affine."""
        digest = hashlib.sha256(f"{self.shape}:{self.array.dtype.newbyteorder('=')}".encode())
        native = self.array.dtype.newbyteorder("=")
        for k in range(self.shape[2]):
            digest.update(np.ascontiguousarray(self.array[:, :, k].T, dtype=native).data)
        return digest.hexdigest()
