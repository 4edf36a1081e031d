"""Segmentation of 3D Slicer: a label map as NRRD, with the names and colours of its values in the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from causal_sam.atomic import atomic_write
from causal_sam.export.segmented_volume import SegmentedVolume
from causal_sam.imaging.directions import RAS_LPS


def write_slicer_segmentation(segmented: SegmentedVolume, path: Path) -> None:
    """Write a label map so that 3D Slicer opens it as a segmentation; names may be in any script.

    Args:
        segmented: the label map.
        path: ends in ``.seg.nrrd``; the file appears whole or not at all.
    """
    values = segmented.label_map.astype(np.min_scalar_type(segmented.segments[-1].value))
    image = sitk.GetImageFromArray(values.T)  # SimpleITK takes its arrays with the axes reversed
    lps = RAS_LPS @ segmented.image.affine
    image.SetSpacing(segmented.image.spacing)
    image.SetDirection((lps[:3, :3] / segmented.image.spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    for number, segment in enumerate(segmented.segments):
        fields = {
            "ID": f"Segment_{segment.value}",
            "Name": segment.name,
            "LabelValue": str(segment.value),
            "Layer": "0",
            "Color": " ".join(f"{part / 255:.4f}" for part in segment.color),
        }
        for field, text in fields.items():
            image.SetMetaData(f"Segment{number}_{field}", text)
    with atomic_write(path, is_synced=False) as part:
        sitk.WriteImage(image, str(part), useCompression=True)
