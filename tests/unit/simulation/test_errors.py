"""Simulated errors are what their interventions say, and lie where these may change a mask."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.region import region_gate
from causal_sam.imaging import Volume
from causal_sam.imaging.directions import distances_along
from causal_sam.simulation.errors import KINDS, SimulatedError, simulate_error

SPACING = (1.5, 1.5, 3.0)
AFFINE = np.diag([-1.5, -1.5, 3.0, 1.0])
GROWING = {"under", "under on a side", "missing pole", "hole", "misled by style"}
SHRINKING = {"over", "over on a side", "leak", "island"}


def ellipsoid(shape: tuple[int, int, int], centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return (((grid - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) <= 1


def scene(flat: bool) -> tuple[Volume, NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Return a kidney-sized structure beside a neighbour, in a volume or in one slice of it."""
    shape = (64, 64, 24)
    truth = ellipsoid(shape, (28, 32, 12), (14, 11, 7))
    neighbour = ellipsoid(shape, (50, 32, 12), (10, 14, 8)) & ~truth
    image = 100.0 * truth + 60.0 * neighbour + np.random.default_rng(0).normal(0, 5, shape)
    image += 20 * np.linspace(-1, 1, 64)[:, None, None]
    if flat:
        truth, neighbour, image = (array[:, :, 12:13] for array in (truth, neighbour, image))
    return Volume(image.astype(np.float32), AFFINE, "MR"), truth, {"spleen": neighbour}


def errors(kind: str, flat: bool, count: int = 12) -> list[SimulatedError]:
    volume, truth, others = scene(flat)
    rng = np.random.default_rng(0)
    found = [simulate_error("left kidney", truth, volume, others, rng, kind) for _ in range(count)]
    assert sum(error is not None for error in found) >= count // 2
    return [error for error in found if error is not None]


@pytest.mark.parametrize("flat", [False, True], ids=["volume", "slice"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_error_lies_where_its_intervention_may_change_the_mask(kind: str, flat: bool) -> None:
    volume, truth, others = scene(flat)
    covered = []
    for mask, intervention in errors(kind, flat):
        assert intervention.label == "left kidney"
        wrong = mask ^ truth
        assert wrong.any()
        region = region_gate(intervention, volume, mask, others).in_volume(volume.shape)
        covered.append((region[wrong] > 0).mean())
    # Roughness and reach are guessed, so single errors may go further.
    assert np.mean(covered) > 0.85
    assert np.min(covered) > 0.5


@pytest.mark.parametrize("kind", sorted(GROWING | SHRINKING))
def test_errors_are_on_one_side(kind: str) -> None:
    _, truth, others = scene(False)
    for mask, intervention in errors(kind, False):
        lost, added = truth & ~mask, mask & ~truth
        assert not (added if kind in GROWING else lost).any()
        if kind == "leak":
            assert intervention.near == "spleen"
            assert others["spleen"][added].all()


@pytest.mark.parametrize("kind", ["under on a side", "over on a side", "missing pole"])
def test_directions_are_the_patients(kind: str) -> None:
    volume, truth, _ = scene(False)
    for mask, intervention in errors(kind, False):
        along = distances_along(volume.affine, intervention.direction, volume.shape)
        assert along[mask ^ truth].mean() > along[truth].mean()


def test_stronger_words_stand_for_larger_errors() -> None:
    _, truth, _ = scene(False)
    sizes: dict[str, list[int]] = {}
    for kind in ("under", "over"):
        for mask, intervention in errors(kind, False, 40):
            sizes.setdefault(intervention.strength, []).append(int((mask ^ truth).sum()))
    assert np.mean(sizes["slight"]) < np.mean(sizes["moderate"]) < np.mean(sizes["strong"])


def test_islands_holes_and_roughness_are_what_they_are_called() -> None:
    _, truth, _ = scene(False)
    assert all(ndimage.label(mask)[1] > 1 for mask, _ in errors("island", False))
    assert all((ndimage.binary_fill_holes(mask) == truth).all() for mask, _ in errors("hole", False))
    assert all(abs(int(mask.sum()) - int(truth.sum())) < 0.3 * truth.sum() for mask, _ in errors("rough", False))


def test_what_has_no_neighbour_does_not_leak() -> None:
    volume, truth, _ = scene(False)
    assert simulate_error("left kidney", truth, volume, {}, np.random.default_rng(0), "leak") is None
