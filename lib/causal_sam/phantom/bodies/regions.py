"""Regions of the body that samples show, from `regions.yaml`, and fields of view in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from causal_sam.imaging.frames import DISPLAY
from causal_sam.phantom.bodies.geometry import PLANES, FieldOfView, random_affine
from causal_sam.phantom.bodies.label_maps import Anatomy
from causal_sam.phantom.bodies.names import contents

# Pixels along the longest side: usual and possible range.
USUAL_PIXELS, PIXELS = (110, 150), (96, 192)
SLICES = (10, 56)
# The width of a body is that of its part so far above and below the wanted place.
NEAR_MM = 50.0
# The 3D network works on a grid of this many cells along the longest side of a slice.
CELLS = 64


@dataclass(frozen=True)
class Region:
    """A region of the body; the fields are explained in `regions.yaml`."""

    weight: float
    anchors: Mapping[str, float]
    max_voxel: float
    fields: tuple[tuple[float, float, float], ...]
    planes: tuple[float, ...]
    thick: float
    stretch: float
    mirror: bool
    styles: tuple[float, ...]
    fitted: float = 0.0
    stripped: float = 0.0
    absent: str = ""

    def anchors_of(self, anatomy: Anatomy) -> dict[int, float]:
        """Return the labels of an anatomy around which slices of this region lie, and their weights."""
        if anatomy.spacing.max() > self.max_voxel:
            return {}
        if not self.anchors:
            return dict.fromkeys(anatomy.boxes, 1.0)
        found = {anatomy.label_of(name): weight for name, weight in self.anchors.items()}
        return {label: weight for label, weight in found.items() if label in anatomy.boxes}

    def absent_in(self, known: Collection[str]) -> list[str]:
        """Return names of structures that are never in this region, but those that a map knows."""
        return [name for name in (contents()[self.absent] if self.absent else ()) if name not in known]

    def field_of_view(
        self, anatomy: Anatomy, rng: np.random.Generator, shown: NDArray[np.float32] | None = None
    ) -> FieldOfView:
        """Return random slices around one of the anchors.

        Args:
            anatomy: anatomy.
            rng: source of randomness.
            shown: first and last corner in mm of the part to show; by default the body.
        """
        anchors = self.anchors_of(anatomy)
        box = anatomy.boxes[pick(rng, list(anchors), list(anchors.values()))]
        spread = rng.uniform(size=3) * np.diff(box, axis=0)[0]
        wanted = box[0] + spread if rng.random() < 0.5 else box.mean(axis=0) + rng.normal(0, 15, 3)
        affine = random_affine(rng)
        scale = np.abs(np.diag(affine))
        plane = pick(rng, PLANES, self.planes)
        (slices, _), (rows, _), (columns, _) = DISPLAY[plane]
        near = anatomy.body_between(wanted[2] - NEAR_MM, wanted[2] + NEAR_MM)
        local, all_of_it = (near, anatomy.body) if shown is None else (shown, shown)
        body = np.diff(local, axis=0)[0] / scale

        longest = int(rng.integers(*(USUAL_PIXELS if rng.random() < 0.75 else PIXELS), endpoint=True))
        ratio = rng.uniform(0.62, 1.05)
        if plane != "sagittal" and rng.random() < self.fitted:
            # As wide as the body or a little wider, and as deep.
            field = body[columns] * rng.uniform(0.98, 1.3)
            if plane == "axial" and rng.random() < 0.6:
                ratio = body[rows] * rng.uniform(1.0, 1.3) / field
        else:
            low, high, _ = pick(rng, self.fields, [weight for *_, weight in self.fields])
            field = rng.uniform(low, high)
        shortest = int(np.clip(round(longest * ratio), 64, longest))
        # Bodies are wider than deep and taller than wide; heads are longer than wide.
        is_tall = body[rows] > body[columns] if rng.random() < 0.9 else rng.random() < 0.5
        shape_rc = (longest, shortest) if is_tall else (shortest, longest)
        pixel = float(field / longest)
        is_thick = rng.random() < self.thick
        step = rng.uniform(5, 10) if is_thick else field / CELLS * rng.uniform(0.5, 1.1)
        whole = np.diff(all_of_it, axis=0)[0] / scale
        count = int(np.clip(round(rng.normal(32, 13)), *SLICES))
        count = max(SLICES[0], min(count, int(whole[slices] / step)))
        extent = np.zeros(3)
        extent[[slices, rows, columns]] = count * step, shape_rc[0] * pixel, shape_rc[1] * pixel
        return FieldOfView(
            plane,
            (count, *shape_rc),
            (float(step), pixel, pixel),
            _centre(wanted, np.c_[local[:, :2], all_of_it[:, 2]], extent * scale, slices, rng),
            affine,
            float(step * (rng.uniform(0.7, 1.0) if is_thick else rng.uniform(0.5, 1.2))),
        )


def _centre(
    wanted: NDArray, body: NDArray, extent: NDArray, slices: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the centre of a field of view near a wanted place that shows no more air than images do, in mm."""
    margin = 0.08 * extent
    # Nothing is known of what lies above and below a map.
    margin[2] = min(margin[2], 5.0)
    margin[slices] = 0.0
    low, high = body[0] + extent / 2 - margin, body[1] - extent / 2 + margin
    middle, slack = (low + high) / 2, np.abs(low - high) / 2
    # A field that is wider than the body shows all of it, not quite in the middle.
    wide = middle + np.minimum(slack, 0.06 * extent) * rng.uniform(-1, 1, 3)
    return np.where(low > high, wide, np.clip(wanted, np.minimum(low, high), np.maximum(low, high))).astype(np.float32)


def pick(rng: np.random.Generator, choices, weights):
    """Return one of some choices at random, by weight."""
    shares = np.asarray(weights, float)
    return choices[int(rng.choice(len(choices), p=shares / shares.sum()))]


@cache
def regions() -> dict[str, Region]:
    """Return all regions by name."""
    described = yaml.safe_load((Path(__file__).parent / "regions.yaml").read_text(encoding="utf-8"))["regions"]
    return {
        name: Region(**fields | {"fields": tuple(map(tuple, fields["fields"]))}) for name, fields in described.items()
    }
