"""Simulated segmentation errors, each with the intervention that corrects it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging import Volume
from causal_sam.imaging.directions import DIRECTIONS, axis_towards, distances_along
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.shape import equivalent_radius
from causal_sam.notes.schema import Action, Direction, Intervention, Strength

# Depth of a uniform error as a share of the radius of a ball of the structure's volume, by the strength of the
# intervention.
DEPTH_SHARES: Mapping[Strength, tuple[float, float]] = {
    "slight": (0.06, 0.14),
    "moderate": (0.14, 0.3),
    "strong": (0.3, 0.5),
}
# The same for errors on one side, as a share of the structure's extent in that direction.
LAYER_SHARES: Mapping[Strength, tuple[float, float]] = {
    "slight": (0.05, 0.12),
    "moderate": (0.12, 0.3),
    "strong": (0.3, 0.5),
}
STRENGTHS: tuple[Strength, ...] = ("slight", "moderate", "strong")
# Minimum share of the structure that an error changes, and that it leaves.
MIN_CHANGE, MIN_REMAINING = 0.02, 0.3
MAX_TRIES = 8


class SimulatedError(NamedTuple):
    """A wrong mask.

    Attributes:
        mask: (I, J, K) bool.
        intervention: intervention that a clinician would request.
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
        """Radius in mm of a ball of equal volume, or of a disc of equal area for a single slice."""
        spacing = self.volume.spacing
        flat = [axis for axis, size in enumerate(self.truth.shape) if size == 1]
        if flat:
            area = int(self.truth.sum()) * math.prod(spacing) / spacing[flat[0]]
            return math.sqrt(area / math.pi)
        return equivalent_radius(self.truth, spacing)

    def act(self, action: Action, **fields: Any) -> Intervention:
        return Intervention(label=self.label, action=action, **fields)


def simulate_error(
    label: str,
    truth: NDArray[np.bool_],
    volume: Volume,
    others: Mapping[str, NDArray[np.bool_]],
    rng: np.random.Generator,
    kind: str | None = None,
) -> SimulatedError | None:
    """Simulate an error in the mask of a structure.

    Args:
        label: name of the structure.
        truth: (I, J, K) mask, not empty; a single slice may be (I, J, 1).
        volume: image.
        others: label -> mask, for the neighbours.
        rng: source of randomness.
        kind: one of `KINDS`; drawn at random by default.

    Returns:
        The error; None if the structure is too small, or has no neighbour to leak into.
    """
    structure = _Structure(label, truth, volume, others, rng)
    for _ in range(MAX_TRIES):
        drawn = kind or str(rng.choice(list(KINDS)))
        error = KINDS[drawn](structure)
        if error is None:
            continue
        changed, size = (error.mask ^ truth).sum(), truth.sum()
        least = 1 if drawn in _SMALL else max(3, MIN_CHANGE * size)
        if changed >= least and (error.mask & truth).sum() >= MIN_REMAINING * size:
            return error
    return None


def _depth(
    structure: _Structure, shares: Mapping[Strength, tuple[float, float]], size: float
) -> tuple[Strength, float]:
    strength = structure.rng.choice(STRENGTHS, p=(0.25, 0.5, 0.25))
    return strength, structure.rng.uniform(*shares[strength]) * size


def _under(structure: _Structure) -> SimulatedError:
    strength, depth = _depth(structure, DEPTH_SHARES, structure.radius)
    inside = _distance(structure.truth, structure.volume)
    return SimulatedError(inside > depth, structure.act("expand", strength=strength))


def _over(structure: _Structure) -> SimulatedError:
    strength, depth = _depth(structure, DEPTH_SHARES, structure.radius)
    outside = _distance(~structure.truth, structure.volume)
    return SimulatedError(outside <= depth, structure.act("shrink", strength=strength))


def _under_on_a_side(structure: _Structure) -> SimulatedError:
    """Remove a layer on one side, by intersection with the shifted structure."""
    direction, extent = _direction(structure)
    strength, depth = _depth(structure, LAYER_SHARES, extent)
    moved = _shifted(structure.truth, structure.volume, direction, -depth)
    return SimulatedError(structure.truth & moved, structure.act("expand", direction=direction, strength=strength))


def _over_on_a_side(structure: _Structure) -> SimulatedError:
    direction, extent = _direction(structure)
    strength, depth = _depth(structure, LAYER_SHARES, extent)
    moved = structure.truth | _shifted(structure.truth, structure.volume, direction, depth)
    return SimulatedError(moved, structure.act("shrink", direction=direction, strength=strength))


def _missing_pole(structure: _Structure) -> SimulatedError:
    direction, extent = _direction(structure)
    strength, depth = _depth(structure, LAYER_SHARES, extent)
    heights = distances_along(structure.volume.affine, direction, structure.truth.shape)
    kept = structure.truth & (heights <= heights[structure.truth].max() - depth)
    return SimulatedError(kept, structure.act("expand", direction=direction, strength=strength))


def _leak(structure: _Structure) -> SimulatedError | None:
    """Add a ball of a neighbour around a point of contact."""
    near = ndimage.binary_dilation(structure.truth, iterations=2)
    touching = [name for name, mask in structure.others.items() if (mask & near).any()]
    if not touching:
        return None
    name = str(structure.rng.choice(touching))
    neighbour = structure.others[name] & ~structure.truth
    contact = np.argwhere(neighbour & near)
    if not len(contact):
        return None
    from_point = _distance_from_point(structure, contact)
    ball = from_point <= structure.rng.uniform(0.3, 0.8) * structure.radius
    return SimulatedError(structure.truth | (ball & neighbour), structure.act("exclude", near=name))


def _island(structure: _Structure) -> SimulatedError | None:
    """Add a separate component at some distance."""
    outside = _distance(~structure.truth, structure.volume)
    size = structure.rng.uniform(0.15, 0.35) * structure.radius
    places = np.argwhere((outside > 2.5 * size) & (outside < 6 * size))
    if not len(places):
        return None
    is_separate = outside > max(size, max(structure.volume.spacing) * 2)
    island = (_distance_from_point(structure, places) <= size) & is_separate
    actions: tuple[Action, ...] = ("remove", "keep_largest")
    return SimulatedError(structure.truth | island, structure.act(actions[structure.rng.integers(len(actions))]))


def _hole(structure: _Structure) -> SimulatedError | None:
    inside = _distance(structure.truth, structure.volume)
    size = structure.rng.uniform(0.2, 0.4) * float(inside.max())
    places = np.argwhere(inside > 1.5 * size)
    if not len(places):
        return None
    return SimulatedError(structure.truth & (_distance_from_point(structure, places) > size), structure.act("fill"))


def _rough(structure: _Structure) -> SimulatedError:
    noise = ndimage.gaussian_filter(structure.rng.normal(size=structure.truth.shape), 0.8)
    signed = _distance(structure.truth, structure.volume) - _distance(~structure.truth, structure.volume)
    height = math.prod(structure.volume.spacing) ** (1 / 3)
    return SimulatedError(signed + noise / noise.std() * height > 0, structure.act("smooth"))


def _misled_by_style(structure: _Structure) -> SimulatedError | None:
    """Remove the parts of the structure with atypical brightness, such as those darkened by a bias field."""
    image = ndimage.gaussian_filter(np.nan_to_num(structure.volume.array.astype(np.float32)), 1.0)
    own = image[structure.truth]
    middle, share = np.median(own), structure.rng.uniform(0.15, 0.4)
    odd = np.abs(image - middle) > np.quantile(np.abs(own - middle), 1 - share)
    # The opening removes single voxels; a single slice has no through-plane neighbours.
    around = ndimage.generate_binary_structure(3, 1)[tuple(slice(1, 2) if n == 1 else slice(None) for n in odd.shape)]
    odd = ndimage.binary_opening(odd & structure.truth, around)
    return SimulatedError(structure.truth & ~odd, structure.act("restyle"))


def _distance(mask: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """Return the distance in mm to the nearest voxel outside the mask."""
    return distance_to(~mask, volume.spacing).astype(np.float32)


def _distance_from_point(structure: _Structure, places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the distance in mm from a voxel drawn among ``places`` (N, 3)."""
    point = np.zeros(structure.truth.shape, bool)
    point[tuple(structure.rng.choice(places))] = True
    return _distance(~point, structure.volume)


def _direction(structure: _Structure) -> tuple[Direction, float]:
    """Draw a patient direction along which the structure has an extent; return it with the extent in mm."""
    shape = structure.truth.shape
    possible = [d for d in DIRECTIONS if shape[axis_towards(structure.volume.affine, d)[0]] > 1]
    direction = structure.rng.choice(possible)
    heights = distances_along(structure.volume.affine, direction, shape)[structure.truth]
    return direction, float(heights.max() - heights.min())


def _shifted(mask: NDArray[np.bool_], volume: Volume, direction: str, distance: float) -> NDArray[np.bool_]:
    """Shift a mask by whole voxels along the axis nearest to a patient direction."""
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
# Kinds of errors that may be smaller than `MIN_CHANGE`.
_SMALL = frozenset({"island", "hole", "rough"})
