"""Errors of masks that were really made are named as a clinician would."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from causal_sam.imaging import Volume
from causal_sam.training.found_errors import find_error

SHAPE = (48, 40, 24)
GRID = np.indices(SHAPE)
VOLUME = Volume(np.zeros(SHAPE, np.float32), np.diag([1.5, 1.5, 3.0, 1.0]), "CT")


def ellipsoid(centre: tuple[int, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    return (((GRID - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) <= 1


TRUTH = ellipsoid((20, 20, 12), (12, 11, 8))
SPLEEN = ellipsoid((38, 20, 12), (8, 10, 7)) & ~TRUTH
ISLAND = ellipsoid((20, 20, 2), (2, 2, 1)) | ellipsoid((40, 34, 19), (4, 4, 3))


@pytest.mark.parametrize(
    ("mask", "kind", "sentence"),
    [
        (TRUTH & (GRID[2] < 15), "missing pole", "expand the liver on its superior side"),
        (TRUTH & (GRID[1] > 14), "missing pole", "expand the liver on its posterior side"),
        (TRUTH | (SPLEEN & (GRID[0] < 40)), "leak", "exclude the spleen from the liver"),
        (TRUTH | ISLAND, "island", "remove the stray part of the liver"),
        (TRUTH & ~ellipsoid((20, 20, 12), (5, 5, 3)), "hole", "fill the holes of the liver"),
        (ellipsoid((20, 20, 12), (10, 9, 6.5)), "under", "expand the liver"),
        (ellipsoid((20, 20, 12), (14, 13, 9.5)) & ~SPLEEN, "over", "shrink the liver"),
    ],
)
def test_the_largest_error_is_named(mask: NDArray[np.bool_], kind: str, sentence: str) -> None:
    found = find_error("liver", mask, TRUTH, VOLUME, {"spleen": SPLEEN})
    assert found.kind == kind
    assert found.intervention.model_copy(update={"strength": "moderate"}).sentence == sentence


def test_what_is_right_or_elsewhere_has_no_error() -> None:
    assert find_error("liver", TRUTH, TRUTH, VOLUME, {}) is None
    assert find_error("liver", SPLEEN, TRUTH, VOLUME, {}) is None
