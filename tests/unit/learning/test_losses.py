"""The loss of masks: its value in a case done by hand, its best, and what small structures make of it."""

from __future__ import annotations

import math

import pytest
import torch

from causal_sam.learning.losses import MaskLoss


def test_value_by_hand() -> None:
    # Two slices of two pixels, one label: one pixel of four is inside; everywhere p = 1/4.
    truth = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    logits = torch.full_like(truth, math.log(1 / 3))
    dice = (2 * 0.25 + 1) / (1 + 1 + 1)
    share = 1 / (1 + math.sqrt(3))
    entropy = share * math.log(4) + (1 - share) * math.log(4 / 3)
    assert MaskLoss()(logits, truth, 0.5).item() == pytest.approx(1 - dice + entropy)


def test_power_1_is_the_mean_over_all_pixels() -> None:
    truth = (torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    logits = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = logits.sigmoid()
    dice = (2 * (found * truth).sum() + 1) / (found.sum() + truth.sum() + 1)
    entropy = torch.nn.functional.binary_cross_entropy(found, truth)
    torch.testing.assert_close(MaskLoss()(logits, truth, 1.0), 1 - dice + entropy)


def test_labels_count_alike_and_the_truth_is_best() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    truth[0, 0, :4], truth[1, 1, 2, 2] = 1, 1  # a large one, one of a pixel, and one that is nowhere
    right = 20 * (2 * truth - 1)
    assert MaskLoss()(right, truth, 0.5) < 1e-3
    losses = []
    for label in range(2):
        wrong = right.clone()
        wrong[:, label] = -20.0
        losses.append(MaskLoss()(wrong, truth, 0.5).item())
    assert losses[1] > 0.2 * losses[0]


def test_a_structure_of_a_few_pixels_is_begun_to_be_found() -> None:
    # From "nothing anywhere" on, each pixel of its own lets the loss fall, and that outweighs a pixel outside by far.
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 30:34, 30:34] = 1
    logits = torch.full_like(truth, -2.0, requires_grad=True)
    MaskLoss()(logits, truth, 0.5).backward()
    inside = logits.grad[truth > 0]
    assert (inside < 0).all()
    assert -inside.sum() > 0.3 * logits.grad[truth == 0].sum()
