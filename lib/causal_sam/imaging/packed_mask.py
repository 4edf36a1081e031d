"""Masks as the bits of their bounding boxes: in memory, and in JSON."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging.shape import bounding_box
from causal_sam.imaging.writing import FILE_ORDER


@dataclass(frozen=True)
class PackedMask:
    """A mask as the bits of its bounding box: a few kilobytes where the array has megabytes.

    Attributes:
        shape: shape of the volume.
        corner: first voxel of the bounding box.
        extent: size of the bounding box; (0, 0, 0) for an empty mask.
        bits: the voxels in the bounding box, eight a byte.
    """

    shape: tuple[int, ...]
    corner: tuple[int, ...] = (0, 0, 0)
    extent: tuple[int, ...] = (0, 0, 0)
    bits: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @classmethod
    def pack(cls, mask: NDArray[np.bool_]) -> PackedMask:
        """Pack a 3D mask."""
        if not mask.any():
            return cls(mask.shape)
        box = bounding_box(mask)
        return cls(mask.shape, tuple(side.start for side in box), mask[box].shape, np.packbits(mask[box]))

    @cached_property
    def count(self) -> int:
        """Number of voxels in the mask."""
        return int(np.unpackbits(self.bits).sum())

    def same_as(self, other: PackedMask) -> bool:
        """Return True if both are the same mask."""
        sides = (self.shape, self.corner, self.extent) == (other.shape, other.corner, other.extent)
        return sides and np.array_equal(self.bits, other.bits)

    def common(self, other: PackedMask) -> PackedMask:
        """Return the voxels that are in both of two masks of one volume."""
        ends = list(zip(self.corner, self.extent, other.corner, other.extent, strict=True))
        sides = [slice(max(c, other_c), min(c + e, other_c + other_e)) for c, e, other_c, other_e in ends]
        if any(side.start >= side.stop for side in sides):
            return PackedMask(self.shape)
        one, another = (
            mask.unpack_box()[tuple(slice(s.start - c, s.stop - c) for s, c in zip(sides, mask.corner, strict=True))]
            for mask in (self, other)
        )
        both = PackedMask.pack(one & another)
        corner = tuple(side.start + c for side, c in zip(sides, both.corner, strict=True))
        return replace(both, shape=self.shape, corner=corner) if both.bits.size else PackedMask(self.shape)

    def unpack(self) -> NDArray[np.bool_]:
        """Return a new array of the whole volume."""
        mask = np.zeros(self.shape, dtype=bool, order=FILE_ORDER)
        mask[tuple(slice(c, c + e) for c, e in zip(self.corner, self.extent, strict=True))] = self.unpack_box()
        return mask

    def unpack_box(self) -> NDArray[np.bool_]:
        """Return a new array of the bounding box alone."""
        return np.unpackbits(self.bits, count=int(np.prod(self.extent))).reshape(self.extent).astype(bool)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold: the bits compressed, as text."""
        bits = base64.b64encode(zlib.compress(self.bits.tobytes())).decode()
        return {"shape": list(self.shape), "corner": list(self.corner), "extent": list(self.extent), "bits": bits}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PackedMask:
        """Return the mask of `as_json`.

        Raises:
            InputError: it is not one, or damaged.
        """
        try:
            shape, corner, extent = (tuple(map(int, content[key])) for key in ("shape", "corner", "extent"))
            fits = all(min(c, e) >= 0 and c + e <= s for s, c, e in zip(shape, corner, extent, strict=True))
            if len(shape) != 3 or not fits:
                raise ValueError("the box is not inside of the volume")
            size, unzip = math.ceil(math.prod(extent) / 8), zlib.decompressobj()
            # With a limit, since a few bytes from a client could become gigabytes.
            unzipped = unzip.decompress(base64.b64decode(content["bits"], validate=True), size + 1)
            if len(unzipped) != size or not unzip.eof:
                raise ValueError("the box and the bits do not belong together")
            bits = np.frombuffer(unzipped, np.uint8)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise InputError(
                "This is no packed mask, or it is damaged: make it with as_json of a PackedMask."
            ) from error
        return cls(shape, corner, extent, bits)
