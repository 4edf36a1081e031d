"""From SimpleITK's images, in LPS+, to volumes in RAS+."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from causal_sam.imaging.colour import luminance
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.volume import Volume


def to_volume(image: sitk.Image, source: Path) -> Volume:
    """Convert a 2D or 3D SimpleITK image; index (i, j, k) stays what it is.

    Args:
        image: with one number for each voxel, or with a colour, of which the luminance is taken.
        source: where the image was read from.
    """
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = luminance(array)
    # SimpleITK hands out its arrays with the axes reversed.
    array = array.T
    dimension = image.GetDimension()
    lps = np.eye(4)
    lps[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension)) * image.GetSpacing()
    lps[:dimension, 3] = image.GetOrigin()
    return Volume(array if dimension == 3 else array[..., None], RAS_LPS @ lps, source=source)
