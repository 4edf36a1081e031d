"""Volumes with their geometry: readers, intensity windows, canonical slices, patient directions, writing masks."""

from causal_sam.imaging.directions import DIRECTIONS, axis_towards, direction_vector
from causal_sam.imaging.frames import PLANES, SliceFrame, nonempty_slices, other_axes, slice_axis
from causal_sam.imaging.intensity import IntensityWindow, intensity_window, with_modality
from causal_sam.imaging.label_maps import align_to_grid, as_label_map, read_label_map
from causal_sam.imaging.packed_mask import PackedMask
from causal_sam.imaging.reading import read_volume
from causal_sam.imaging.volume import Volume
from causal_sam.imaging.writing import FILE_ORDER, MASK_EXTENSIONS, write_mask

__all__ = [
    "DIRECTIONS",
    "FILE_ORDER",
    "MASK_EXTENSIONS",
    "PLANES",
    "IntensityWindow",
    "PackedMask",
    "SliceFrame",
    "Volume",
    "align_to_grid",
    "as_label_map",
    "axis_towards",
    "direction_vector",
    "intensity_window",
    "nonempty_slices",
    "other_axes",
    "read_label_map",
    "read_volume",
    "slice_axis",
    "with_modality",
    "write_mask",
]
