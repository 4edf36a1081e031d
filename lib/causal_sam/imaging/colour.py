"""Colours become grey: the models see one number for each voxel, as CT and MR have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Shares of red, green and blue in the luminance (ITU-R BT.601): the Y of DICOM's YBR_FULL, and what Pillow calls "L".
BT601 = (0.299, 0.587, 0.114)


def luminance(colours: NDArray) -> NDArray:
    """Return how bright colours are.

    Args:
        colours: (…, 3) red, green and blue, or (…, 4) with opacity, which does not count.

    Returns:
        (…) of the same type, rounded if that is of whole numbers; what is grey already keeps its value.

    >>> luminance(np.array([[255, 0, 0], [7, 7, 7]], np.uint8)).tolist()
    [76, 7]
    """
    grey = colours[..., :3] @ np.array(BT601)
    return (grey if colours.dtype.kind == "f" else np.rint(grey)).astype(colours.dtype)
