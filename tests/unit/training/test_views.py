"""Views for training: the same anatomy under two styles, in the way that the predictor shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import nibabel
import numpy as np
import pytest
import torch
from two_blocks import NAMES, SIZE

from causal_sam.imaging import Volume
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.training import style_pairs as views_module
from causal_sam.training.style_pairs import LabelledSlices, StylePairDataset, labelled_slices


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
    batches = list(islice(StylePairDataset([labelled], SIZE, encode, anatomies=5, pairs=3, seed=0), 14))
    assert batches[0]["image"].shape == (8, 3, SIZE, SIZE)
    assert batches[0]["label"].shape == (5, 1, SIZE, SIZE)
    assert batches[0]["known"].tolist() == [[True, True, False]] * 5
    assert all(b["image"].min() >= 0 and b["image"].max() <= 1 for b in batches)
    assert all(b["style"][:5].tolist() == [[0.0, 1.0]] * 5 for b in batches)  # the case's own description comes first
    assert len({style for b in batches for style in b["style"][5:, 0].tolist()}) > 3
    samples = [{"image": b["image"][[n, 5 + n]], "label": b["label"][n]} for b in batches for n in range(3)]
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
    (batch,) = islice(StylePairDataset([labelled], SIZE, Words(), anatomies=3, seed=0), 1)
    assert batch["image"].shape == (3, 3, SIZE, SIZE)
    assert batch["style"].shape == (3, 2)
    assert batch["decode"].tolist() == [-1] * 3


def test_anatomies_that_vary_differ_in_size_and_in_brightness_and_labels_follow_them(labelled: LabelledSlices) -> None:
    def spread(varied: bool) -> tuple[float, float, list[float]]:
        batches = list(islice(StylePairDataset([labelled], SIZE, Words(), anatomies=6, seed=0, varied=varied), 40))
        sizes, means, contrasts = [], [], []
        for image, label in ((b["image"][n, 1], b["label"][n, 0]) for b in batches for n in range(6)):
            assert set(label.unique().tolist()) <= {0, 1, 2}
            inside = label > 0
            if inside.sum() < 30:
                continue
            ring = torch.nn.functional.max_pool2d(inside[None].float(), 7, 1, 3)[0].bool() & ~inside
            sizes.append(float(inside.sum()))
            means.append(float(image[inside].mean()))
            contrasts.append(float(image[inside].mean() - image[ring].mean()))
        return float(np.std(sizes) / np.mean(sizes)), float(np.std(means)), contrasts

    size, brightness, _ = spread(varied=False)
    size_varied, brightness_varied, contrasts = spread(varied=True)
    assert size_varied > size
    assert brightness_varied > 1.5 * brightness
    assert min(contrasts) > 0.05


def test_a_seed_gives_the_same_batches(labelled: LabelledSlices) -> None:
    def first(seed: int) -> torch.Tensor:
        return next(iter(StylePairDataset([labelled], SIZE, Words(), anatomies=2, pairs=1, seed=seed)))["image"]

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_processes_share_a_batch_that_is_the_same_however_many_they_are(labelled: LabelledSlices) -> None:
    chosen = {"decoded": 2, "clicked": 0.5}
    whole = list(
        islice(StylePairDataset([labelled], SIZE, Words(), anatomies=6, pairs=4, seed=0, decoded=4, clicked=0.5), 5)
    )
    halves = [
        list(
            islice(
                StylePairDataset(
                    [labelled], SIZE, Words(), anatomies=3, pairs=2, seed=0, rank=n, processes=2, **chosen
                ),
                5,
            )
        )
        for n in range(2)
    ]
    for step in range(5):
        for n, half in enumerate(halves):
            own, second = [n, n + 2, 4 + n], [6 + n, 6 + n + 2]
            assert torch.equal(half[step]["image"], whole[step]["image"][own + second])
            for key in ("label", "known", "decode"):
                assert torch.equal(half[step][key], whole[step][key][own])
            torch.testing.assert_close(half[step]["click"], whole[step]["click"][own], equal_nan=True)


def test_labels_to_decode_are_known_and_clicks_are_inside_them(labelled: LabelledSlices) -> None:
    views = StylePairDataset([labelled], SIZE, Words(), anatomies=4, seed=0, decoded=3, clicked=0.5)
    there, clicks, shown = [], 0, 0
    for batch in islice(views, 60):
        assert batch["decode"][3] == -1
        for n, label in enumerate(batch["decode"][:3].tolist()):
            assert batch["known"][n, label]
            inside = batch["label"][n, 0] == label + 1
            there.append(bool(inside.sum() >= 16))
            column, row = batch["click"][n, 0].tolist()
            if np.isfinite(column):
                assert inside[int(row), int(column)]
                clicks += 1
            shown += there[-1]
    assert 0.3 < clicks / shown < 0.7
    assert np.mean(there) > 0.3


def test_neighbours_are_the_channels(labelled: LabelledSlices, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.broadcast_to(np.arange(20.0, dtype=np.float32)[:, None, None], labelled.slices.array.shape)
    window = type(labelled.window)(0.0, 19.0)
    case = replace(labelled, slices=labelled.slices.with_array(ramp), window=window)
    monkeypatch.setattr(views_module, "random_affine", lambda size, seed: lambda sample: sample)
    for batch in islice(StylePairDataset([case], SIZE, Words(), anatomies=1, seed=0), 10):
        previous, here, following = (float(x) * 19 for x in batch["image"][0, :, 0, 0])
        assert previous == pytest.approx(here - 1, abs=1e-3) or previous == pytest.approx(here, abs=1e-3)
        assert following == pytest.approx(here + 1, abs=1e-3) or following == pytest.approx(here, abs=1e-3)
