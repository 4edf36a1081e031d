"""Views for training: the same anatomy under two styles, in the way that the predictor shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import nibabel
import numpy as np
import pytest
import torch

from causal_sam.imaging import Volume
from causal_sam.learning import views as views_module
from causal_sam.learning.views import LabelledSlices, Views, labelled_slices
from causal_sam.prompting.slices import VolumeSlices

from .conftest import NAMES, SIZE


class Words:
    """Vectors that tell which text was encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += [text for text in texts if text not in self.texts]
        return torch.tensor([[float(self.texts.index(text)), 1.0] for text in texts])


def test_slices_are_those_that_the_predictor_shows(blocks, labelled: LabelledSlices) -> None:
    volume, _ = blocks
    shown = VolumeSlices(volume, "auto", SIZE)
    for index in (0, 7, 19):
        # Here the window comes after the interpolation: what it cuts off may differ at its ends.
        np.testing.assert_allclose(labelled.image[index], shown.image(index)[0, 1].numpy(), atol=1e-2)
    assert labelled.slices.spacing == pytest.approx((6.0, 3 * 40 / shown.height, 3 * 48 / shown.width))
    assert labelled.known.tolist() == [True, True, False]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRP"])
def test_the_order_of_the_voxels_in_the_file_does_not_count(blocks, labelled: LabelledSlices, codes: str) -> None:
    volume, structures = blocks

    def turned(array: np.ndarray) -> nibabel.Nifti1Image:
        target = nibabel.orientations.axcodes2ornt(codes)
        way = nibabel.orientations.ornt_transform(nibabel.io_orientation(volume.affine), target)
        return nibabel.Nifti1Image(array, volume.affine).as_reoriented(way)

    image = turned(volume.array)
    masks = {name: np.asarray(turned(mask.astype(np.uint8)).dataobj) > 0 for name, mask in structures.items()}
    found = labelled_slices(Volume(np.asarray(image.dataobj), image.affine, "MR"), masks, NAMES, SIZE)
    np.testing.assert_array_equal(found.label_map, labelled.label_map)
    np.testing.assert_allclose(found.slices.array, labelled.slices.array, atol=1e-3)


def test_both_views_show_the_same_anatomy_and_have_their_own_descriptions(labelled: LabelledSlices) -> None:
    encode = Words()
    samples = list(islice(Views([labelled], SIZE, encode, styled=True, seed=0), 40))
    assert samples[0]["image"].shape == (2, 3, SIZE, SIZE)
    assert samples[0]["label"].shape == (1, SIZE, SIZE)
    assert all(s["image"].min() >= 0 and s["image"].max() <= 1 for s in samples)
    assert all(s["style"][0].tolist() == [0.0, 1.0] for s in samples)  # the case's own description comes first
    assert len({s["style"][1, 0].item() for s in samples}) > 3
    for sample in samples:
        inside = sample["label"][0] > 0
        if inside.sum() < 30:
            continue
        ring = torch.nn.functional.max_pool2d(inside[None].float(), 7, 1, 3)[0].bool() & ~inside
        first = sample["image"][0, 1]
        assert first[inside].mean() - first[ring].mean() > 0.1
    differences = [float((s["image"][0] - s["image"][1]).abs().mean()) for s in samples]
    assert np.median(differences) > 0.01


def test_without_a_second_style_there_is_one_view(labelled: LabelledSlices) -> None:
    (sample,) = islice(Views([labelled], SIZE, Words(), styled=False, seed=0), 1)
    assert sample["image"].shape == (1, 3, SIZE, SIZE)
    assert sample["style"].shape == (1, 2)


def test_a_seed_gives_the_same_samples_and_each_process_others(labelled: LabelledSlices) -> None:
    def first(**given: int) -> torch.Tensor:
        return next(iter(Views([labelled], SIZE, Words(), styled=True, **{"seed": 0, **given})))["image"]

    assert torch.equal(first(), first())
    assert not torch.equal(first(), first(rank=1))
    assert not torch.equal(first(), first(seed=1))


def test_neighbours_are_the_channels(labelled: LabelledSlices, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.broadcast_to(np.arange(20.0, dtype=np.float32)[:, None, None], labelled.slices.array.shape)
    window = type(labelled.window)(0.0, 19.0)
    case = replace(labelled, slices=labelled.slices.with_array(ramp), window=window)
    monkeypatch.setattr(views_module, "_moved", lambda sample, move: sample)
    for sample in islice(Views([case], SIZE, Words(), styled=False, seed=0), 10):
        previous, here, following = (float(x) * 19 for x in sample["image"][0, :, 0, 0])
        assert previous == pytest.approx(here - 1, abs=1e-3) or previous == pytest.approx(here, abs=1e-3)
        assert following == pytest.approx(here + 1, abs=1e-3) or following == pytest.approx(here, abs=1e-3)
