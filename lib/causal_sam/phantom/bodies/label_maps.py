"""Label maps as material for samples: anatomies whose voxels are codes of tissue and label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from causal_sam.errors import InputError
from causal_sam.imaging.directions import patient_axes
from causal_sam.imaging.reading import read_volume
from causal_sam.phantom.bodies.names import common_name, contents
from causal_sam.phantom.bodies.tissues import tissue_of, tissues

# Labels of samples: nothing is known of a voxel, or it is certainly outside of the body. Others are structures.
UNKNOWN, OUTSIDE, FIRST = 0, 1, 2
# Codes: outside of the body; inside, but of no label.
OUTSIDE_CODE, FILLER_CODE = 0, 1
# Distance in mm between the labels and the hull of a body that has no skin.
HULL_MM = 25.0
# Margin around the labels, in which a hull has room.
MARGIN_MM = 36.0


@dataclass(frozen=True)
class Anatomy:
    """A label map whose voxels are codes. A code has a label and a tissue; a label may have several codes.

    Attributes:
        name: of the folder or file.
        codes: XxYxZ int16, axes to right, anterior and superior.
        spacing: voxel size in mm.
        code_labels: label of each code.
        code_tissues: tissue of each code.
        names: name of each label; "" if it has none.
        boxes: label -> first and last corner in mm from the map's first voxel, as 2x3 array.
        body: the same of all that is not outside.
    """

    name: str
    codes: Tensor
    spacing: NDArray[np.float32]
    code_labels: NDArray[np.int16]
    code_tissues: tuple[str, ...]
    names: dict[int, str]
    boxes: dict[int, NDArray[np.float32]]
    body: NDArray[np.float32]

    @property
    def known(self) -> frozenset[str]:
        """Names of all structures that the map labels."""
        return frozenset(filter(None, self.names.values()))

    def label_of(self, name: str) -> int | None:
        """Return the label of a structure; None if the map has none."""
        return next((label for label, own in self.names.items() if own == name), None)


def read_anatomies(folders: Sequence[Path]) -> list[Anatomy]:
    """Read all label maps of some folders.

    Args:
        folders: each has folders with ``labels.nii.gz`` and ``labels.json`` (label -> name), or NIfTI files with
            FreeSurfer numbers.

    Raises:
        InputError: there is no label map.
    """
    anatomies = [_anatomy(*parts) for folder in folders for parts in _label_maps(Path(folder))]
    if not anatomies:
        raise InputError(f"There is no label map in {', '.join(map(str, folders))}.")
    return anatomies


def _label_maps(folder: Path) -> Iterator[tuple[str, NDArray[np.int32], NDArray[np.float32], dict[int, str]]]:
    """Yield name, voxels in RAS order, spacing in mm and descriptions of all labels of each map."""
    for path in sorted(folder.glob("*/labels.nii.gz")):
        described = json.loads((path.parent / "labels.json").read_text(encoding="utf-8"))
        yield path.parent.name, *_read_ras(path), {int(value): name for value, name in described.items()}
    for path in sorted(folder.glob("*.nii.gz")):
        yield path.name.removesuffix(".nii.gz"), *_read_ras(path), contents()["freesurfer"]


def _read_ras(path: Path) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    volume = read_volume(path)
    axes = patient_axes(volume.affine)
    order = [next(voxel for voxel, (patient, _) in enumerate(axes) if patient == axis) for axis in range(3)]
    array = volume.array.transpose(order)[tuple(slice(None, None, axes[voxel][1]) for voxel in order)]
    return np.ascontiguousarray(array, np.int32), np.array([volume.spacing[voxel] for voxel in order], np.float32)


def _anatomy(name: str, array: NDArray[np.int32], spacing: NDArray[np.float32], described: dict[int, str]) -> Anatomy:
    array = _cropped(array, spacing)
    extra = contents()["freesurfer_tissues"] if described is contents()["freesurfer"] else {}
    values = [int(value) for value in np.flatnonzero(np.bincount(array.ravel())) if value]
    texts = [described.get(value) or extra.get(value, "extracerebral soft tissue") for value in values]
    table = np.full(int(array.max()) + 1, OUTSIDE_CODE, np.int16)
    table[values] = FIRST + np.arange(len(values))
    labels = table[array]
    names = {FIRST + i: common_name(described.get(value, "")) for i, value in enumerate(values)}

    # Codes of the surface of each label are the labels themselves.
    code_labels = [OUTSIDE, UNKNOWN, *names]
    code_tissues = ["air", "filler", *map(tissue_of, texts)]
    codes = labels.copy()
    boxes = {
        label: _box(place, spacing)
        for label, place in enumerate(ndimage.find_objects(labels), 1)
        if place is not None and label >= FIRST
    }
    for label in boxes:
        tissue = tissues()[code_tissues[label]]
        if tissue.core:
            inside = _inside(labels, label, tissue.depth, boxes[label], spacing)
            codes[inside[0]][inside[1]] = len(code_labels)
            code_labels.append(label)
            code_tissues.append(tissue.core)
    if "skin" not in texts:
        hull = _hull(labels > 0, spacing)
        codes[hull & (labels == 0)] = FILLER_CODE
    return Anatomy(
        name,
        torch.from_numpy(np.ascontiguousarray(codes)),
        spacing,
        np.array(code_labels, np.int16),
        tuple(code_tissues),
        names,
        boxes,
        _box(ndimage.find_objects((codes > 0).astype(np.int8))[0], spacing),
    )


def _cropped(array: NDArray[np.int32], spacing: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the labelled part of a map, with a margin right, left, in front and behind.

    Positions outside of a map count as its border, so that a body goes on above and below, where a map ends.
    """
    place = [np.flatnonzero((array > 0).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    x, y, _ = np.ceil(MARGIN_MM / spacing).astype(int)
    return np.pad(array[tuple(slice(own[0], own[-1] + 1) for own in place)], ((x, x), (y, y), (0, 0)))


def _box(place: tuple[slice, ...], spacing: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array([[side.start for side in place], [side.stop for side in place]], np.float32) * spacing


def _inside(
    labels: NDArray[np.int16], label: int, depth: float, box: NDArray[np.float32], spacing: NDArray[np.float32]
) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """Return the place of a label in the map, and there the voxels about ``depth`` mm inside of it."""
    first, last = np.rint(box / spacing).astype(int)
    place = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    # Axes whose voxels are larger than the depth have no surface of their own.
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in np.flatnonzero(spacing > max(depth, spacing.min())):
        cross &= np.expand_dims(np.take([False, True, False], range(3)), tuple({0, 1, 2} - {int(axis)}))
    steps = max(1, round(depth / float(spacing.min())))
    return place, ndimage.binary_erosion(labels[place] == label, cross, iterations=steps)


def _hull(mask: NDArray[np.bool_], spacing: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the body around the labels: convex in each axial slice, and `HULL_MM` wider."""
    coarse = np.maximum(np.rint(6.0 / spacing), 1).astype(int)
    small = mask[:: coarse[0], :: coarse[1], :: coarse[2]]
    filled = np.stack([_convex(small[:, :, k]) for k in range(small.shape[2])], axis=2)
    distance = ndimage.distance_transform_edt(~filled, sampling=spacing * coarse)
    near = ndimage.gaussian_filter((distance < HULL_MM).astype(np.float32), 1.0)
    zoom = np.array(mask.shape) / small.shape
    index = [
        np.minimum((np.arange(n) / z).astype(int), m - 1) for n, z, m in zip(mask.shape, zoom, small.shape, strict=True)
    ]
    return near[np.ix_(*index)] > 0.5


def _convex(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the convex hull of a mask as the set of pixels between its extremes in 16 directions."""
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return mask
    hull = np.ones(mask.shape, bool)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for angle in np.arange(16) * np.pi / 16:
        along, own = y * np.sin(angle) + x * np.cos(angle), rows * np.sin(angle) + columns * np.cos(angle)
        hull &= (along >= own.min()) & (along <= own.max())
    return hull
