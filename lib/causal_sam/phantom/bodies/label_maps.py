"""Label maps as material for samples: anatomies whose voxels are codes of tissue and label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.errors import InputError
from causal_sam.imaging.directions import patient_axes
from causal_sam.imaging.reading import read_volume
from causal_sam.phantom.bodies.names import common_name, contents, without_side
from causal_sam.phantom.bodies.tissues import tissue_of, tissues

# Labels of samples: nothing is known of a voxel, or it is certainly outside of the body. Others are structures.
UNKNOWN, OUTSIDE, FIRST = 0, 1, 2
# Codes: outside of the body; inside, but of no label.
OUTSIDE_CODE, FILLER_CODE = 0, 1


@dataclass(frozen=True)
class Anatomy:
    """A label map whose voxels are codes. A code has a label and a tissue; a label may have several codes.

    Attributes:
        name: name of the folder or file.
        codes: XxYxZ int16, axes to right, anterior and superior.
        spacing: voxel size in mm.
        code_labels: label of each code.
        code_tissues: tissue of each code.
        names: name of each label; "" if it has none.
        arms: codes of the arms beside the trunk.
    """

    name: str
    codes: NDArray[np.int16]
    spacing: NDArray[np.float32]
    code_labels: NDArray[np.int16]
    code_tissues: tuple[str, ...]
    names: dict[int, str]
    arms: tuple[int, ...] = ()

    @cached_property
    def boxes(self) -> dict[int, NDArray[np.float32]]:
        """Label -> first and last corner in mm from the map's first voxel, as 2x3 array."""
        places = enumerate(ndimage.find_objects(self.code_labels[self.codes]), 1)
        return {label: self._box(place) for label, place in places if place is not None and label >= FIRST}

    @cached_property
    def body(self) -> NDArray[np.float32]:
        """First and last corner of all that is neither outside nor an arm, in mm from the map's first voxel."""
        wide, deep = self._extents
        places = [np.flatnonzero(own) for own in (wide.any(axis=1), deep.any(axis=1), deep.any(axis=0))]
        return np.array([[own[0] for own in places], [own[-1] + 1 for own in places]], np.float32) * self.spacing

    def body_between(self, low: float, high: float) -> NDArray[np.float32]:
        """Return the box of the body's part between two heights in mm; all of it if there is none."""
        first, last = (int(np.clip(height / self.spacing[2], 0, self.codes.shape[2] - 1)) for height in (low, high))
        box = self.body.copy()
        for axis, extents in enumerate(self._extents):
            part = extents[:, first : last + 1].any(axis=1)
            if part.any():
                places = np.flatnonzero(part)
                box[:, axis] = places[0] * self.spacing[axis], (places[-1] + 1) * self.spacing[axis]
        return box

    @cached_property
    def _extents(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """XxZ and YxZ: where there is body behind or beside."""
        is_body = np.ones(len(self.code_labels), bool)
        is_body[[OUTSIDE_CODE, *self.arms]] = False
        mask = is_body[self.codes]
        return mask.any(axis=1), mask.any(axis=0)

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        """Label -> label of the same structure at the other side, the first of both, or itself."""
        found = np.arange(int(self.code_labels.max()) + 1)
        first: dict[str, int] = {}
        for label, name in self.names.items():
            if name:
                found[label] = first.setdefault(without_side(name), label)
        return found

    @property
    def known(self) -> frozenset[str]:
        """Names of all structures that the map labels."""
        return frozenset(filter(None, self.names.values()))

    @property
    def has_skin(self) -> bool:
        """True if all of the body is labelled, up to its skin."""
        return "skin" in self.code_tissues

    def labels_of(self, names: Iterable[str]) -> list[int]:
        """Return the labels of all of some structures that the map has."""
        return [label for name in names if (label := self.label_of(name)) is not None]

    def label_of(self, name: str) -> int | None:
        """Return the label of a structure; None if the map has none."""
        return next((label for label, own in self.names.items() if own == name), None)

    def _box(self, place: tuple[slice, ...]) -> NDArray[np.float32]:
        return np.array([[side.start for side in place], [side.stop for side in place]], np.float32) * self.spacing


def read_label_maps(folders: Sequence[Path]) -> list[Anatomy]:
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


def cropped(array: NDArray, margin: Sequence[int]) -> NDArray:
    """Return the part of an XxYxZ array that is not 0, with a margin of so many voxels at either side of each axis."""
    place = [np.flatnonzero((array > 0).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    inner = array[tuple(slice(own[0], own[-1] + 1) for own in place)]
    return np.pad(inner, [(count, count) for count in margin])


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
    extra = contents()["freesurfer_tissues"] if described is contents()["freesurfer"] else {}
    values = [int(value) for value in np.flatnonzero(np.bincount(array.ravel())) if value]
    texts = [described.get(value) or extra.get(value, "extracerebral soft tissue") for value in values]
    table = np.full(int(array.max()) + 1, OUTSIDE_CODE, np.int16)
    table[values] = FIRST + np.arange(len(values))
    # Air beside, in front and behind: positions outside of a map count as its border, so that bodies go on above it.
    labels = cropped(table[array], (1, 1, 0))
    names = {FIRST + i: common_name(described.get(value, "")) for i, value in enumerate(values)}

    # Codes of the surface of each label are the labels themselves.
    code_labels = [OUTSIDE, UNKNOWN, *names]
    code_tissues = ["air", "filler", *map(tissue_of, texts)]
    codes = labels.copy()
    for label, place in enumerate(ndimage.find_objects(labels), 1):
        tissue = tissues()[code_tissues[label]]
        if place is not None and label >= FIRST and tissue.core:
            codes[place][_inside(labels[place] == label, tissue.depth, spacing)] = len(code_labels)
            code_labels.append(label)
            code_tissues.append(tissue.core)
    return Anatomy(name, codes, spacing, np.array(code_labels, np.int16), tuple(code_tissues), names)


def _inside(mask: NDArray[np.bool_], depth: float, spacing: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the voxels about ``depth`` mm inside of a mask."""
    # Axes whose voxels are larger than the depth have no surface of their own.
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in np.flatnonzero(spacing > max(depth, spacing.min())):
        cross &= np.expand_dims([False, True, False], tuple({0, 1, 2} - {int(axis)}))
    return ndimage.binary_erosion(mask, cross, iterations=max(1, round(depth / float(spacing.min()))))
