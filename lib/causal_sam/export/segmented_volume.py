"""The subject of an export: an image, its label map, and the names and colours of the label map's values."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.label_maps import present_values

# Steps of this size around the circle of hues never come close to where they were.
GOLDEN_RATIO = 0.618034


@dataclass(frozen=True)
class Segment:
    """A structure in a label map.

    Attributes:
        name: name of the structure.
        value: its value in the label map.
        color: red, green and blue from 0 to 255.
    """

    name: str
    value: int
    color: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class SegmentedVolume:
    """A label map with the names of its values.

    Args:
        image: the image that the label map belongs to.
        label_map: (I, J, K) values in the voxel order of ``image``.
        segments: structures that have voxels, in ascending order of their values.

    Raises:
        InputError: there are none.
    """

    image: Volume
    label_map: NDArray[np.integer]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not self.segments:
            raise InputError("The label has no voxel, so there is nothing to store.")

    @classmethod
    def from_names(cls, image: Volume, label_map: NDArray[np.integer], names: Mapping[str, int]) -> SegmentedVolume:
        """Make one with colours from a palette.

        Args:
            image: the image.
            label_map: (I, J, K) values in the voxel order of ``image``.
            names: label name -> value; names without voxels are left out, and a value without a name is named by its
                number.

        Raises:
            InputError: the label map is empty.
        """
        by_value = {value: name for name, value in names.items()}
        segments = (
            Segment(by_value.get(value, f"label {value}"), value, palette_color(value))
            for value in present_values(label_map)
        )
        return cls(image, label_map, tuple(segments))


def palette_color(number: int) -> tuple[int, int, int]:
    """Return a colour that differs from those of neighbouring numbers: red, green and blue from 0 to 255."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number * GOLDEN_RATIO % 1, 0.6, 0.95))
    return red, green, blue
