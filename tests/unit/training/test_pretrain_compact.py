"""The training script learns, stops, resumes and leaves weights that load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate
from training_script import TORCHRUN, run_script

from causal_sam.phantom.samples import samples
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.training.losses import hard_pixel_loss
from causal_sam.training.pretraining import (
    TEMPERATURE,
    PretrainingObjective,
    Stage,
    region_loss,
    true_iou,
)
from causal_sam.training.prompts import SimulatedPrompts


def test_loss_falls_on_one_batch():
    torch.manual_seed(0)
    objective = PretrainingObjective(1e-3)
    stream = samples(64, 2, 1)
    batch = default_collate([next(stream) for _ in range(2)])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        objective.enter(Stage(64, 1.0, 2))
        loss = objective((batch, 1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_places_are_compared_with_a_closed_form():
    """Four places in two structures: log(1 + 2 e^(-1/t)) each if they are at right angles, log 3 if all are alike."""
    regions = torch.tensor([[1, 1], [2, 2]], dtype=torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1)[None]
    apart = torch.zeros(1, 2, 2, 2)
    apart[0, 0, 0], apart[0, 1, 1] = 3.0, 0.5  # length does not count
    told = np.log(1 + 2 * np.exp(-1 / TEMPERATURE))
    assert region_loss(apart, regions).item() == pytest.approx(told, abs=1e-5)
    assert region_loss(torch.ones(1, 2, 2, 2), regions).item() == pytest.approx(np.log(3), abs=1e-5)


def test_places_on_borders_and_alone_do_not_count():
    regions = torch.zeros(1, 8, 8, dtype=torch.uint8)
    regions[0, :, 2:] = 1  # half of the left places' pixels are of another structure
    features = torch.randn(1, 3, 2, 2, requires_grad=True)
    region_loss(features, regions).backward()
    assert not features.grad[..., 0].any()
    alone = torch.arange(4, dtype=torch.uint8).view(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert region_loss(features, alone).item() == 0


def test_while_no_masks_are_decoded_only_what_is_new_in_the_encoder_learns(tmp_path):
    old = {k: v.contiguous() for k, v in build_compact().state_dict().items() if not k.startswith("image_encoder.neck")}
    save_file(old, tmp_path / "old.safetensors")
    objective = PretrainingObjective(1e-3, tmp_path / "old.safetensors")
    objective.enter(Stage(64, 1.0, 2, decoded=False))
    parameters = dict(objective.model.sam.named_parameters())
    learning = {name for name, p in parameters.items() if p.requires_grad}
    assert learning == {name for name in parameters if name.startswith("image_encoder.neck")}
    objective.enter(Stage(64, 1.0, 2))
    assert all(p.requires_grad for p in parameters.values())
    save_file({k: v.contiguous() for k, v in build_compact().state_dict().items()}, tmp_path / "all.safetensors")
    assert not PretrainingObjective(1e-3, tmp_path / "all.safetensors").new


def first_prompts(kind, truth, neighbours=None, ended=None):
    empty = np.zeros_like(truth)
    neighbours, ended = (empty if masks is None else masks for masks in (neighbours, ended))
    drawn = (SimulatedPrompts(truth, neighbours, ended, np.random.default_rng(seed)) for seed in range(500))
    return next(prompts for prompts in drawn if prompts.kind == kind)


@pytest.fixture(scope="module")
def truth():
    return np.stack([s.masks[0] for s, _ in zip(samples(64, 1, 2), range(2), strict=False)])


@pytest.mark.parametrize("kind", ["click", "box", "mask", "neighbour"])
def test_first_prompts_of_every_kind(truth, kind):
    prompts = first_prompts(kind, truth)
    assert prompts.ambiguous == (kind == "click")
    assert (prompts.boxes is not None) == (kind == "box")
    assert (prompts.mask_logits is not None) == (kind in ("mask", "neighbour"))
    if kind in ("box", "neighbour"):
        assert prompts.points is None
    else:
        assert prompts.points[0].shape == (2, 1, 2)
        for mask, (x, y) in zip(truth, prompts.points[0][:, 0].int().tolist(), strict=True):
            assert kind == "mask" or mask[y, x]


def test_mask_with_nothing_right_is_taken_away(truth):
    prompts = first_prompts("empty", truth)
    assert not prompts.truth.any()
    assert (prompts.mask_logits > 0).any()
    prompts.click(np.zeros_like(truth))  # already right: clicked outside once more
    points, labels = prompts.points
    assert points.shape == (2, 2, 2)
    assert not labels.any()


def test_neighbour_is_shown_and_what_ended_there_is_to_become_empty(truth):
    shifted = np.roll(truth, 2, axis=1)
    followed = first_prompts("neighbour", truth, shifted)
    assert np.array_equal(followed.truth, truth)
    shown = torch.from_numpy(shifted)[:, None].float()
    assert torch.equal(followed.mask_logits > 0, torch.nn.functional.avg_pool2d(shown, 2) > 0.5)

    disk = np.zeros_like(truth)
    disk[0, 20:30, 20:30] = 1  # the second sample has nothing that ended
    drawn = (SimulatedPrompts(truth, shifted, disk, np.random.default_rng(seed)) for seed in range(500))
    ended = next(p for p in drawn if p.kind == "neighbour" and not p.truth[0].any())
    assert np.array_equal(ended.truth[1], truth[1])
    assert (ended.mask_logits[0, 0, 10:15, 10:15] > 0).all()
    assert (ended.mask_logits[0, 0] > 0).sum() == 25


def launched(out: Path, minutes: float, *before: str) -> list[dict]:
    return run_script("pretrain_compact.py", "compact.yaml", out, *before, minutes=minutes, validation=2, structures=1)


def test_weights_of_another_shape_are_left_out(tmp_path):
    other = {k: v + 1 for k, v in build_compact().state_dict().items()}
    key = "mask_decoder.iou_prediction_head.layers.0.weight"
    other[key] = torch.zeros(3, 3)
    save_file({k: v.contiguous() for k, v in other.items()}, tmp_path / "other.safetensors")
    taken = PretrainingObjective(1e-3, tmp_path / "other.safetensors").model.sam.state_dict()
    assert torch.equal(taken["image_encoder.stage1.0.weight"], other["image_encoder.stage1.0.weight"])
    assert taken[key].shape != (3, 3)


def test_perfect_masks_cost_least():
    target = torch.zeros(1, 1, 16, 16)
    target[..., 4:9, 4:9] = 1
    good, bad = 20 * (target - 0.5), 20 * (0.5 - target)
    logits = torch.cat([good, torch.zeros_like(good), bad], dim=1)
    loss = hard_pixel_loss(logits, target)[0]
    assert loss[0] < 0.01 < loss[1] < loss[2]
    assert true_iou(logits, target)[0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.slow
def test_two_processes_train_one_model_stop_and_resume(tmp_path):
    first = launched(tmp_path, 0.001, *TORCHRUN)
    # However long a step takes here, this leaves time for one more.
    again = launched(tmp_path, first[-1]["minutes"] + 0.01, *TORCHRUN)
    assert again[: len(first)] == first
    assert again[-1]["step"] > first[-1]["step"]
    assert 0 <= again[-1]["dice@1"] <= 1
    CausalSam(build_compact(), "compact").sam.load_state_dict(load_file(tmp_path / "compact.safetensors"))
