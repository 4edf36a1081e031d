"""From SimpleITK's images, in LPS+, to volumes in RAS+."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from causal_sam.imaging.colour import luminance
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.volume import Volume

# It warns on stderr of what is refused here in a sentence, or read as it reads it.
sitk.ProcessObject.GlobalWarningDisplayOff()


def to_volume(image: sitk.Image, source: Path) -> Volume:
    """Convert a 2D or 3D SimpleITK image; index (i, j, k) stays what it is.

    Args:
        image: scalar image, or colour image, which is converted to luminance.
        source: file or folder that the image was read from.
    """
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = luminance(array)
    # SimpleITK hands out its arrays with the axes reversed.
    array = array.T
    return Volume(array if array.ndim == 3 else array[..., None], affine_of(image), source=source)


def affine_of(image: sitk.Image | sitk.ImageFileReader) -> NDArray[np.float64]:
    """Return the affine of a 2D or 3D image, or of one whose header was read: voxel index -> RAS+ millimetre."""
    dimension = image.GetDimension()
    lps = np.eye(4)
    lps[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension)) * image.GetSpacing()
    lps[:dimension, 3] = image.GetOrigin()
    return RAS_LPS @ lps
