"""Fixtures that unit tests of several parts share."""

from __future__ import annotations

import numpy as np
import pytest
import two_blocks

from causal_sam.imaging import Volume
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.style import Acquisition
from causal_sam.training.style_pairs import LabelledSlices, labelled_slices


@pytest.fixture
def small_model() -> CausalSam:
    return two_blocks.small_model()


@pytest.fixture
def small_vit() -> CausalSam:
    return two_blocks.small_vit()


@pytest.fixture(scope="session")
def blocks() -> tuple[Volume, dict[str, np.ndarray]]:
    return two_blocks.two_blocks()


@pytest.fixture(scope="session")
def labelled(blocks: tuple[Volume, dict[str, np.ndarray]]) -> LabelledSlices:
    return labelled_slices(*blocks, two_blocks.NAMES, two_blocks.SIZE, acquisition=Acquisition("MR", sequence="T1"))
