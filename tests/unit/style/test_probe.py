"""The style probe: it finds what is there, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.errors import InputError
from causal_sam.style.probe import probe_style


def test_styles_that_show_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    styles = np.array(["a", "b", "c"] * 60)
    shown = rng.normal(0, 1, (180, 8))
    shown[:, 0] += 6 * (styles == "a")
    shown[:, 1] += 6 * (styles == "b")
    half = slice(0, 90), slice(90, 180)
    found = probe_style(shown[half[0]], styles[half[0]], shown[half[1]], styles[half[1]])
    assert found.accuracy > 0.95
    assert found.chance == pytest.approx(1 / 3)
    hidden = rng.normal(0, 1, (180, 8))
    assert probe_style(hidden[half[0]], styles[half[0]], hidden[half[1]], styles[half[1]]).accuracy < 0.5


def test_chance_is_the_most_frequent_style() -> None:
    features = np.arange(8.0)[:, None]
    assert probe_style(features, list("aaaabbbb"), features[:5], list("aaaab")).chance == pytest.approx(0.8)


def test_what_cannot_be_probed_is_said() -> None:
    features = np.zeros((4, 2))
    with pytest.raises(InputError, match="at least two styles"):
        probe_style(features, list("aaaa"), features, list("aaaa"))
    with pytest.raises(InputError, match="was not fitted to c"):
        probe_style(features, list("aabb"), features, list("aabc"))
