"""Regions of the body that samples show, from `regions.yaml`, and fields of view in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from causal_sam.phantom.bodies.geometry import DISPLAY, PLANES, FieldOfView
from causal_sam.phantom.bodies.label_maps import Anatomy
from causal_sam.phantom.bodies.names import contents

# Pixels along the longest side: usual and possible range.
USUAL_PIXELS, PIXELS = (110, 150), (96, 192)
SLICES = (10, 56)
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

    def field_of_view(self, anatomy: Anatomy, rng: np.random.Generator) -> FieldOfView:
        """Return random slices around one of the anchors."""
        anchors = self.anchors_of(anatomy)
        box = anatomy.boxes[pick(rng, list(anchors), list(anchors.values()))]
        plane = pick(rng, PLANES, self.planes)
        low, high, _ = pick(rng, self.fields, [weight for *_, weight in self.fields])
        field = rng.uniform(low, high)
        longest = int(rng.integers(*(USUAL_PIXELS if rng.random() < 0.75 else PIXELS), endpoint=True))
        shortest = int(np.clip(round(longest * rng.uniform(0.62, 1.05)), 64, longest))
        # Bodies are wider than deep and taller than wide; heads are longer than wide.
        body = np.diff(anatomy.body, axis=0)[0]
        (slices, _), (rows, _), (columns, _) = DISPLAY[plane]
        tall = body[rows] > body[columns] if rng.random() < 0.9 else rng.random() < 0.5
        shape_rc = (longest, shortest) if tall else (shortest, longest)
        pixel = field / longest
        thick = rng.random() < self.thick
        step = rng.uniform(5, 10) if thick else field / CELLS * rng.uniform(0.5, 1.1)
        count = int(np.clip(round(rng.normal(32, 13)), *SLICES))
        count = max(SLICES[0], min(count, int(body[slices] / step)))
        extent = np.zeros(3)
        extent[[slices, rows, columns]] = count * step, shape_rc[0] * pixel, shape_rc[1] * pixel
        return FieldOfView(
            plane,
            (count, *shape_rc),
            (step, pixel, pixel),
            _centre(box, anatomy.body, extent, slices, rng),
            step * (rng.uniform(0.7, 1.0) if thick else rng.uniform(0.5, 1.2)),
        )


def _centre(box: np.ndarray, body: np.ndarray, extent: np.ndarray, slices: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random centre of a field of view that shows a structure, and no more air than images do."""
    wanted = rng.uniform(*box) if rng.random() < 0.5 else box.mean(axis=0) + rng.normal(0, 0.1, 3) * extent
    margin = 0.08 * extent
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
