"""Voxel grids for the tests: every order and direction of the axes, oblique, anisotropic, down to a single slice."""

from __future__ import annotations

import itertools

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from causal_sam.imaging import Volume

# nibabel's form: for each voxel axis the axis it becomes, and 1 or -1 for its direction.
ORIENTATIONS = [
    np.array(list(zip(order, flips, strict=True)), dtype=float)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
SHAPE = (5, 6, 7)

orientations = st.sampled_from(ORIENTATIONS)
spacings = st.tuples(*[st.floats(0.3, 8.0)] * 3)
# Up to 35 degrees about any axis: farther, and the nearest patient axis is another one.
tilts = st.builds(
    lambda axis, degrees: Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix(),
    st.tuples(*[st.integers(-5, 5)] * 3).filter(any),
    st.floats(-35, 35),
)


def make_affine(spacing: tuple[float, float, float], tilt: NDArray | None = None) -> NDArray[np.float64]:
    """RAS+ grid of the spacing, turned by ``tilt``, whose origin lies off the centre of the patient."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if tilt is None else tilt) * spacing
    affine[:3, 3] = (-31.5, 12.25, 640.0)
    return affine


def reorient(volume: Volume, orientation: NDArray) -> Volume:
    """Return the same image in another order of its voxels."""
    array = apply_orientation(volume.array, orientation)
    affine = volume.affine @ inv_ornt_aff(orientation, volume.shape)
    return Volume(np.ascontiguousarray(array), affine, volume.modality, volume.tags)


def positions(affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """(I, J, K, 3) places of the voxels in mm, RAS+."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def to_itk(volume: Volume) -> sitk.Image:
    """By ITK's own means: LPS, directions apart from spacing."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    image.SetSpacing(volume.spacing)
    image.SetDirection((lps[:3, :3] / volume.spacing).ravel())
    image.SetOrigin(lps[:3, 3])
    return image


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """Volumes of any orientation, obliqueness and spacing; each voxel has its own value."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return reorient(Volume(array, make_affine(draw(spacings), draw(tilts))), draw(orientations))
