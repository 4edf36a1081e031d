"""Distances to masks, against all pairs of voxels, also of empty and full ones."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import causal_sam
from causal_sam.imaging.distances import distance_to, signed_distance


@settings(max_examples=100, deadline=None)
@given(
    mask=arrays(bool, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.booleans()),
    spacing=st.tuples(*[st.floats(0.2, 5.0)] * 3),
)
def test_distances_are_those_of_all_pairs(mask: np.ndarray, spacing: tuple[float, float, float]) -> None:
    spacing = spacing[: mask.ndim]
    everywhere = np.argwhere(np.ones_like(mask)) * spacing

    def nearest(side: np.ndarray) -> np.ndarray:
        places = np.argwhere(side) * spacing
        pairs = np.linalg.norm(everywhere[:, None] - places[None], axis=-1)
        return pairs.min(axis=1, initial=np.inf).reshape(mask.shape)

    np.testing.assert_allclose(distance_to(mask, spacing), nearest(mask))
    np.testing.assert_allclose(signed_distance(mask, spacing), np.where(mask, nearest(~mask), -nearest(mask)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("spacing", [(0.8, 0.8, 2.5), (3.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 2.0, 1.0), None])
def test_distances_in_large_volumes_are_the_same(
    order: Literal["C", "F"], spacing: tuple[float, float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.asarray(np.random.default_rng(0).random((24, 30, 18)) < 0.002, order=order)
    mask[..., :5] = False
    expected = distance_to(mask, spacing)
    monkeypatch.setattr("causal_sam.imaging.distances.MIN_SLICED_VOXELS", 1)
    found = distance_to(mask, spacing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    near = distance_to(mask, spacing, limit=6.0)
    np.testing.assert_allclose(near[expected <= 6], expected[expected <= 6], rtol=1e-5)
    assert (near[expected > 6] >= 6).all()


def test_nobody_takes_distances_in_another_way() -> None:
    package = Path(causal_sam.__file__).parent
    found = [path.name for path in package.rglob("*.py") if "distance_transform_edt" in path.read_text()]
    assert found == ["distances.py"]
