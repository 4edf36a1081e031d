"""Volumes and intensities of the structures of a label map, and their CSV table."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from causal_sam.atomic import atomic_write
from causal_sam.export.segmented_volume import SegmentedVolume

DECIMALS = 3


@dataclass(frozen=True)
class Measurements:
    """Measurements of one structure.

    Attributes:
        label: its name.
        value: its value in the label map.
        voxels: number of its voxels.
        volume_ml: volume in ml.
        mean: mean of the image within it, in Hounsfield units for CT; NaN where the image has no finite voxel there, as
            for the others.
        sd: standard deviation of the image.
        min: lowest voxel.
        median: median of the image.
        max: highest voxel.
    """

    label: str
    value: int
    voxels: int
    volume_ml: float
    mean: float
    sd: float
    min: float
    median: float
    max: float


def measure(segmented: SegmentedVolume) -> list[Measurements]:
    """Measure the structures of a label map, in the order of their values."""
    image, found = segmented.image, []
    for segment in segmented.segments:
        inside = image.array[segmented.label_map == segment.value].astype(np.float64)
        finite = inside[np.isfinite(inside)]
        if not finite.size:
            finite = np.array([np.nan])
        intensities = (finite.mean(), finite.std(), finite.min(), np.median(finite), finite.max())
        volume = inside.size * image.voxel_ml
        found.append(Measurements(segment.name, segment.value, inside.size, volume, *map(float, intensities)))
    return found


def write_csv(segmented: SegmentedVolume, path: Path) -> None:
    """Write the measurements of a label map as a table with a row for each structure.

    Args:
        segmented: the label map.
        path: the file; it appears whole or not at all.
    """
    with atomic_write(path, is_synced=False) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Measurements)])
        writer.writeheader()
        for row in map(asdict, measure(segmented)):
            writer.writerow(
                {key: round(cell, DECIMALS) if isinstance(cell, float) else cell for key, cell in row.items()}
            )
