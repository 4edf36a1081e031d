"""The loss of masks: its value in a case done by hand, its best, and what small structures make of it."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceCELoss

from causal_sam.training.losses import label_map_loss


def test_value_by_hand() -> None:
    # Two slices of two pixels, one label: one pixel of four is inside; everywhere p = 1/4.
    truth = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    logits = torch.full_like(truth, math.log(1 / 3))
    dice = (2 * 0.25 + 1) / (1 + 1 + 1)
    share = 1 / (1 + math.sqrt(3))
    entropy = share * math.log(4) + (1 - share) * math.log(4 / 3)
    assert label_map_loss(logits, truth, 0.5).item() == pytest.approx(1 - dice + entropy)


def test_power_1_is_the_mean_over_all_pixels() -> None:
    truth = (torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    logits = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = logits.sigmoid()
    dice = (2 * (found * truth).sum() + 1) / (found.sum() + truth.sum() + 1)
    entropy = torch.nn.functional.binary_cross_entropy(found, truth)
    torch.testing.assert_close(label_map_loss(logits, truth, 1.0), 1 - dice + entropy)


def test_labels_count_alike_and_the_truth_is_best() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    truth[0, 0, :4], truth[1, 1, 2, 2] = 1, 1  # a large one, one of a pixel, and one that is nowhere
    right = 20 * (2 * truth - 1)
    assert label_map_loss(right, truth, 0.0) < 1e-3
    losses = []
    for label in range(2):
        wrong = right.clone()
        wrong[:, label] = -20.0
        losses.append(label_map_loss(wrong, truth, 0.0).item())
    assert losses[1] > 0.9 * losses[0]


def test_a_structure_of_a_few_pixels_is_begun_to_be_found() -> None:
    # From "nothing anywhere" on, each pixel of its own lets the loss fall, and that outweighs a pixel outside by far.
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 30:34, 30:34] = 1
    logits = torch.full_like(truth, -2.0, requires_grad=True)
    label_map_loss(logits, truth, 0.5).backward()
    inside = logits.grad[truth > 0]
    assert (inside < 0).all()
    assert -inside.sum() > 0.3 * logits.grad[truth == 0].sum()


def test_label_map_loss_by_hand() -> None:
    # Two pixels, two labels: the first pixel is of label 1, the second is background; label 2 is nowhere.
    truth = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    logits = torch.log(torch.tensor([[[[3.0, 0.5]], [[1.0, 0.5]]]]))
    # Softmax with the background's 1: (1, 3, 1) / 5 and (2, 1, 1) / 4.
    dice1, dice2 = (2 * 0.6 + 1) / (0.6 + 0.25 + 1 + 1), 1 / (0.2 + 0.25 + 1)
    entropy = (math.log(5 / 3) + math.log(2)) / 2
    expected = 1 - (dice1 + dice2) / 2 + entropy
    for power in (0.5, 1.0):  # both classes have one pixel
        assert label_map_loss(logits, truth, power).item() == pytest.approx(expected)


def test_label_map_loss_of_power_1_is_the_mean_over_all_pixels() -> None:
    values = torch.randint(4, (3, 5, 5), generator=torch.Generator().manual_seed(0))
    truth = torch.nn.functional.one_hot(values, 4).movedim(-1, 1)[:, 1:].float()
    logits = torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    everything = torch.cat([torch.zeros(3, 1, 5, 5), logits], 1)
    found = everything.softmax(1)[:, 1:]
    sums = [one.sum((0, 2, 3)) for one in (found * truth, found, truth)]
    dice = (2 * sums[0] + 1) / (sums[1] + sums[2] + 1)
    entropy = torch.nn.functional.cross_entropy(everything, values)
    torch.testing.assert_close(label_map_loss(logits, truth, 1.0), (1 - dice).mean() + entropy)
    options = {"softmax": True, "include_background": False, "batch": True, "smooth_nr": 1.0, "smooth_dr": 1.0}
    whole = torch.cat([1 - truth.sum(1, keepdim=True), truth], 1)
    torch.testing.assert_close(label_map_loss(logits, truth, 1.0), DiceCELoss(**options)(everything, whole))


def test_label_map_loss_tells_apart_labels_that_look_alike() -> None:
    # One feature is the same inside of both, another one barely differs: both must be found, not neither.
    torch.manual_seed(0)
    truth = torch.zeros(1, 2, 16, 16)
    truth[0, 0, 4:8, 4:8], truth[0, 1, 4:8, 9:13] = 1, 1
    features = torch.stack([truth.sum(1)[0], 0.2 * truth[0, 0], torch.ones(16, 16)])
    weights = torch.zeros(2, 3, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        label_map_loss(torch.einsum("nc,chw->nhw", weights, features)[None], truth, 0.5).backward()
        optimizer.step()
    logits = torch.einsum("nc,chw->nhw", weights, features)
    found = torch.cat([torch.zeros(1, 16, 16), logits]).argmax(0)
    assert torch.equal(found, truth[0, 0] + 2 * truth[0, 1])


def test_label_map_loss_is_the_same_in_parts() -> None:
    truth = torch.zeros(4, 2, 6, 6)
    truth[:, 0, :3], truth[1, 1, 4] = 1, 1
    logits = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    kept: list[torch.Tensor] = []
    for part in (slice(0, 1), slice(1, 4)):
        label_map_loss(logits[part], truth[part], 0.7, lambda sums: kept.append(sums) or sums)
    whole = label_map_loss(logits, truth, 0.7)
    torch.testing.assert_close(label_map_loss(logits[:1], truth[:1], 0.7, lambda _: sum(kept)), whole)
