"""Wrong masks, as models and hurried people draw them, each with the intervention that puts it right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging import Volume
from causal_sam.imaging.directions import DIRECTIONS, axis_towards, distances_along
from causal_sam.imaging.distances import distance_to
from causal_sam.notes.schema import Direction, Intervention, Strength

# Depth of a uniform error as a share of the radius of a ball of the structure's volume, by the strength that a
# clinician would ask for.
DEPTHS: Mapping[Strength, tuple[float, float]] = {"slight": (0.06, 0.14), "moderate": (0.14, 0.3), "strong": (0.3, 0.5)}
# The same for errors on one side, as a share of the structure's extent in that direction.
LAYERS: Mapping[Strength, tuple[float, float]] = {"slight": (0.05, 0.12), "moderate": (0.12, 0.3), "strong": (0.3, 0.5)}
STRENGTHS: tuple[Strength, ...] = ("slight", "moderate", "strong")
# An error must change at least this share of the structure, and leave at least this much of it.
MIN_CHANGE, LEAST_LEFT = 0.02, 0.3
TRIES = 8


class SimulatedError(NamedTuple):
    """A wrong mask.

    Attributes:
        mask: (I, J, K) bool.
        intervention: what a clinician would ask for.
    """

    mask: NDArray[np.bool_]
    intervention: Intervention


class _Structure(NamedTuple):
    label: str
    truth: NDArray[np.bool_]
    volume: Volume
    others: Mapping[str, NDArray[np.bool_]]
    rng: np.random.Generator

    @property
    def radius(self) -> float:
        """Of a ball of the same volume, or of a disc of the same area in a single slice, in millimetre."""
        voxels, spacing = int(self.truth.sum()), self.volume.spacing
        flat = [axis for axis, size in enumerate(self.truth.shape) if size == 1]
        if flat:
            area = voxels * math.prod(spacing) / spacing[flat[0]]
            return math.sqrt(area / math.pi)
        return (3 * voxels * math.prod(spacing) / (4 * math.pi)) ** (1 / 3)

    def act(self, action: str, **fields: object) -> Intervention:
        return Intervention(label=self.label, action=action, **fields)


def simulate_error(
    label: str,
    truth: NDArray[np.bool_],
    volume: Volume,
    others: Mapping[str, NDArray[np.bool_]],
    rng: np.random.Generator,
    kind: str | None = None,
) -> SimulatedError | None:
    """Make a wrong mask of a structure.

    Args:
        label: its name.
        truth: (I, J, K), not empty; a single slice may be (I, J, 1).
        volume: the image.
        others: masks of neighbours by name.
        rng: source of randomness.
        kind: one of `KINDS`; by default any.

    Returns:
        The error; None if the structure is too small for one, or has no neighbour to leak into.
    """
    structure = _Structure(label, truth, volume, others, rng)
    for _ in range(TRIES):
        drawn = kind or str(rng.choice(list(KINDS)))
        error = KINDS[drawn](structure)
        if error is None:
            continue
        changed, size = (error.mask ^ truth).sum(), truth.sum()
        least = 1 if drawn in _SMALL else max(3, MIN_CHANGE * size)
        if changed >= least and (error.mask & truth).sum() >= LEAST_LEFT * size:
            return error
    return None


def _depth(
    structure: _Structure, shares: Mapping[Strength, tuple[float, float]], size: float
) -> tuple[Strength, float]:
    strength = structure.rng.choice(STRENGTHS, p=(0.25, 0.5, 0.25))
    return strength, structure.rng.uniform(*shares[strength]) * size


def _under(structure: _Structure) -> SimulatedError:
    strength, depth = _depth(structure, DEPTHS, structure.radius)
    inside = _distance(structure.truth, structure.volume)
    return SimulatedError(inside > depth, structure.act("expand", strength=strength))


def _over(structure: _Structure) -> SimulatedError:
    strength, depth = _depth(structure, DEPTHS, structure.radius)
    outside = _distance(~structure.truth, structure.volume)
    return SimulatedError(outside <= depth, structure.act("shrink", strength=strength))


def _under_on_a_side(structure: _Structure) -> SimulatedError:
    """A layer is missing: what lies inside the structure moved back from that side is left."""
    direction, extent = _direction(structure)
    strength, depth = _depth(structure, LAYERS, extent)
    moved = _moved(structure.truth, structure.volume, direction, -depth)
    return SimulatedError(structure.truth & moved, structure.act("expand", direction=direction, strength=strength))


def _over_on_a_side(structure: _Structure) -> SimulatedError:
    direction, extent = _direction(structure)
    strength, depth = _depth(structure, LAYERS, extent)
    moved = structure.truth | _moved(structure.truth, structure.volume, direction, depth)
    return SimulatedError(moved, structure.act("shrink", direction=direction, strength=strength))


def _missing_pole(structure: _Structure) -> SimulatedError:
    direction, extent = _direction(structure)
    strength, depth = _depth(structure, LAYERS, extent)
    heights = distances_along(structure.volume.affine, direction, structure.truth.shape)
    kept = structure.truth & (heights <= heights[structure.truth].max() - depth)
    return SimulatedError(kept, structure.act("expand", direction=direction, strength=strength))


def _leak(structure: _Structure) -> SimulatedError | None:
    """A ball about a place of contact is taken from a neighbour."""
    near = ndimage.binary_dilation(structure.truth, iterations=2)
    touching = [name for name, mask in structure.others.items() if (mask & near).any()]
    if not touching:
        return None
    name = str(structure.rng.choice(touching))
    neighbour = structure.others[name] & ~structure.truth
    contact = np.argwhere(neighbour & near)
    if not len(contact):
        return None
    centre = np.zeros(structure.truth.shape, bool)
    centre[tuple(structure.rng.choice(contact))] = True
    reach = structure.rng.uniform(0.3, 0.8) * structure.radius
    ball = _distance(~centre, structure.volume) <= reach
    return SimulatedError(structure.truth | (ball & neighbour), structure.act("exclude", near=name))


def _island(structure: _Structure) -> SimulatedError | None:
    """A stray part at some distance."""
    outside = _distance(~structure.truth, structure.volume)
    size = structure.rng.uniform(0.15, 0.35) * structure.radius
    places = np.argwhere((outside > 2.5 * size) & (outside < 6 * size))
    if not len(places):
        return None
    centre = np.zeros(structure.truth.shape, bool)
    centre[tuple(structure.rng.choice(places))] = True
    island = (_distance(~centre, structure.volume) <= size) & (outside > max(size, max(structure.volume.spacing) * 2))
    action = str(structure.rng.choice(["remove", "keep_largest"]))
    return SimulatedError(structure.truth | island, structure.act(action))


def _hole(structure: _Structure) -> SimulatedError | None:
    inside = _distance(structure.truth, structure.volume)
    size = structure.rng.uniform(0.2, 0.4) * float(inside.max())
    places = np.argwhere(inside > 1.5 * size)
    if not len(places):
        return None
    centre = np.zeros(structure.truth.shape, bool)
    centre[tuple(structure.rng.choice(places))] = True
    return SimulatedError(structure.truth & ~(_distance(~centre, structure.volume) <= size), structure.act("fill"))


def _rough(structure: _Structure) -> SimulatedError:
    noise = ndimage.gaussian_filter(structure.rng.normal(size=structure.truth.shape), 0.8)
    signed = _distance(structure.truth, structure.volume) - _distance(~structure.truth, structure.volume)
    height = math.prod(structure.volume.spacing) ** (1 / 3)
    return SimulatedError(signed + noise / noise.std() * height > 0, structure.act("smooth"))


def _misled_by_style(structure: _Structure) -> SimulatedError | None:
    """Parts of the structure that look unlike the rest of it are missing, as where a bias field darkens them."""
    image = ndimage.gaussian_filter(np.nan_to_num(structure.volume.array.astype(np.float32)), 1.0)
    own = image[structure.truth]
    middle, share = np.median(own), structure.rng.uniform(0.15, 0.4)
    odd = np.abs(image - middle) > np.quantile(np.abs(own - middle), 1 - share)
    # Single voxels are noise. A slice has no neighbours across it.
    around = ndimage.generate_binary_structure(3, 1)[tuple(slice(1, 2) if n == 1 else slice(None) for n in odd.shape)]
    odd = ndimage.binary_opening(odd & structure.truth, around)
    return SimulatedError(structure.truth & ~odd, structure.act("restyle"))


def _distance(mask: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """To the nearest voxel outside of the mask, in millimetre."""
    return distance_to(~mask, volume.spacing).astype(np.float32)


def _direction(structure: _Structure) -> tuple[Direction, float]:
    """A patient direction in which the structure has an extent, and this in millimetre."""
    shape = structure.truth.shape
    possible = [d for d in DIRECTIONS if shape[axis_towards(structure.volume.affine, d)[0]] > 1]
    direction = structure.rng.choice(possible)
    heights = distances_along(structure.volume.affine, direction, shape)[structure.truth]
    return direction, float(heights.max() - heights.min())


def _moved(mask: NDArray[np.bool_], volume: Volume, direction: str, distance: float) -> NDArray[np.bool_]:
    """A mask moved by whole voxels along the axis nearest to a patient direction."""
    axis, sign = axis_towards(volume.affine, direction)
    steps = sign * round(distance / volume.spacing[axis])
    moved = np.roll(mask, steps, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(None, steps) if steps >= 0 else slice(steps, None)
    if steps:
        moved[tuple(edge)] = False
    return moved


KINDS: Mapping[str, Callable[[_Structure], SimulatedError | None]] = {
    "under": _under,
    "over": _over,
    "under on a side": _under_on_a_side,
    "over on a side": _over_on_a_side,
    "missing pole": _missing_pole,
    "leak": _leak,
    "island": _island,
    "hole": _hole,
    "rough": _rough,
    "misled by style": _misled_by_style,
}
# Errors that are corrected although they are small.
_SMALL = frozenset({"island", "hole", "rough"})
