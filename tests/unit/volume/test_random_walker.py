"""The context without training, on a made-up volume of two bright blocks."""

from __future__ import annotations

import numpy as np
import pytest
from two_blocks import small_model, two_blocks

from causal_sam.imaging.overlap import dice
from causal_sam.prompting import EmbeddingCache, Predictor
from causal_sam.prompting.contexts import ContextCache
from causal_sam.prompting.prompts import Prompts
from causal_sam.prompting.volume_mask import VolumeMasker
from causal_sam.volume.grid import SliceGeometry
from causal_sam.volume.random_walker import RandomWalkerContext

LEFT, RIGHT = (35, 20, 10), (13, 20, 10)


@pytest.fixture(scope="module")
def masker() -> VolumeMasker:
    volume, _ = two_blocks()
    predictor = Predictor(small_model(), EmbeddingCache(10**8), prefetch_slices=0).for_volume(volume)

    def make(encoder, slices):
        geometry = SliceGeometry(slices.frame, slices.height, slices.width)
        return RandomWalkerContext(geometry, lambda index: encoder.embedding(slices, index))

    return ContextCache(predictor.encoder, make).of(predictor.slices).masker()


def test_prompts_decide_which_of_two_alike_structures_is_meant(masker: VolumeMasker) -> None:
    _, blocks = two_blocks()
    left, right = blocks["left block"], blocks["right block"]
    both = masker.coarse(Prompts((LEFT,), (RIGHT,)), None)
    assert dice(both.mask(), left) > 0.6
    assert not both.mask()[RIGHT]
    assert 0 < both.certainty <= 1
    boxed = masker.coarse(Prompts((), (), (8, 17, 12, 27, 4, 15)), None).mask()
    assert dice(boxed & right, right) > 0.4
    assert not boxed[30:].any()
    again = masker.context.correct([LEFT], [RIGHT], None, right, [RIGHT]).mask()  # points stand above the mask so far
    assert again[LEFT]
    assert not again[RIGHT]


def test_it_knows_no_names(masker: VolumeMasker) -> None:
    context = masker.context
    assert not context.knows("liver")
    assert context.segment_named([]) == {}
    assert context.nbytes > 0


def test_it_is_prepared_once(masker: VolumeMasker) -> None:
    def on_slice(done: int) -> None:
        raise AssertionError("it was prepared before")

    masker.context.prepare(on_slice)
    assert np.isfinite(masker.coarse(Prompts((LEFT,)), None).logits.numpy()).all()
