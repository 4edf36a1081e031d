"""Training of adapters: what changes, what stays, and what a step is made of."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from two_blocks import SIZE

from causal_sam.errors import InputError
from causal_sam.sam.adapters import AdapterConfig
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.style.lad import LadConfig, reversal_ramp
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.style_pairs import LabelledSlices, with_neighbours

TEXT = 8
LOGGED = {"step", "minutes", "learning_rate", "loss", "drafts", "decoded"}
OFF = LadConfig(adversary=0, spread=0, invariance=0, anatomy=0, consistency=0)


def encode(texts: list[str]) -> torch.Tensor:
    vectors = [torch.randn(TEXT, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
    return torch.nn.functional.normalize(torch.stack(vectors), dim=1)


def objective_of(model: CausalSam, config: TrainingConfig) -> AdapterObjective:
    torch.manual_seed(config.seed)
    return AdapterObjective(model, new_label_prompt(model, TEXT), torch.eye(3, TEXT), config)


def first_batch(case: LabelledSlices, config: TrainingConfig) -> dict[str, torch.Tensor]:
    return next(iter(batches([case], SIZE, encode, config, styled=True, seed=0)))


def train(objective: AdapterObjective, case: LabelledSlices, styled: bool = True) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []
    engine = adapter_engine(objective, log=seen.append, log_every=1)
    engine.run(batches([case], SIZE, encode, objective.config, styled=styled, seed=0))
    return seen


def test_it_learns_with_all_terms_and_leaves_the_encoder_alone(
    small_model: CausalSam, labelled: LabelledSlices
) -> None:
    fingerprint = small_model.encoder_hash()
    objective = objective_of(small_model, TrainingConfig(steps=40, batch=4, pairs=2, adapters=AdapterConfig(rank=2)))
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    seen = train(objective, labelled)
    terms = {"adversary", "spread", "invariance", "anatomy", "consistency"}
    assert seen[0].keys() == LOGGED | terms
    drafts = [s["drafts"] for s in seen]
    assert sum(drafts[-5:]) < 0.75 * sum(drafts[:5])
    assert small_model.encoder_hash() == fingerprint
    changed = {k for k, v in objective.state_dict().items() if k in before and not torch.equal(v, before[k])}
    trained = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
    assert all(name in trained or name.startswith("lad.") for name in changed)
    assert {name.split(".")[0] for name in changed} == {"model", "prompt", "lad"}


def test_the_power_of_areas_rises_to_1_from_where_it_begins(small_model: CausalSam, labelled: LabelledSlices) -> None:
    config = TrainingConfig(steps=3, batch=4, pairs=2, adapters=AdapterConfig(rank=2), lad=OFF)
    objective, batch = objective_of(small_model, config), first_batch(labelled, config)
    found = {}
    for begins in (0.0, 0.5, 1.0):
        objective.config = replace(config, area_power=begins)
        for progress in (0.0, 0.5, 1.0):
            found[begins, progress] = objective(batch, progress)["drafts"].item()
    assert found[0.0, 0.0] != pytest.approx(found[0.0, 1.0], rel=1e-3)
    assert found[1.0, 0.0] == found[1.0, 1.0] == found[0.0, 1.0]
    assert found[0.5, 0.0] == found[0.0, 0.5]
    with pytest.raises(InputError, match="area_power must be between 0 and 1, and not 2"):
        TrainingConfig(area_power=2)


def test_names_are_learned_without_adapters_and_the_model_stays_as_it_is(
    small_model: CausalSam, labelled: LabelledSlices
) -> None:
    before = {key: value.clone() for key, value in small_model.state_dict().items()}
    config = TrainingConfig(steps=60, batch=4, pairs=2, adapters=None, clicked=0.0, lad=OFF)
    objective = objective_of(small_model, config)
    seen = train(objective, labelled, styled=False)
    assert seen[-1]["loss"] < 0.5 * seen[0]["loss"]
    assert all(torch.equal(value, before[key]) for key, value in small_model.state_dict().items())
    assert objective.metadata(("a",), Mock(), {}).adapters is None
    with torch.inference_mode():
        image = with_neighbours(labelled.image, 10)
        embedding = small_model.encode(torch.from_numpy(image)[None])
        position = small_model.sam.prompt_encoder.get_dense_pe()
        _, coarse = objective.prompt(embedding, position, torch.eye(3, TEXT), small_model.mask_size)
    size = small_model.mask_size
    left, right = (coarse[0, n].sigmoid() for n in range(2))
    # The patient's left is on the right of the picture.
    assert left[:, size // 2 :].mean() > left[:, : size // 2].mean()
    assert right[:, : size // 2].mean() > right[:, size // 2 :].mean()


def test_models_of_the_kind_of_vit_b_are_trained_too(small_vit: CausalSam, labelled: LabelledSlices) -> None:
    fingerprint = small_vit.encoder_hash()
    objective = objective_of(small_vit, TrainingConfig(steps=3, batch=4, pairs=2, adapters=AdapterConfig(rank=2)))
    before = {k: v.clone() for k, v in objective.model.state_dict().items() if "lora_" in k}
    seen = train(objective, labelled)
    assert all(torch.isfinite(torch.tensor(list(step.values()))).all() for step in seen)
    after = objective.model.state_dict()
    assert any(not torch.equal(after[k], before[k]) for k in before)
    assert small_vit.encoder_hash() == fingerprint


def test_what_trains_is_under_nine_percent_and_told(small_model: CausalSam) -> None:
    objective = objective_of(small_model, TrainingConfig())
    kept = [*objective.model.parameters(), *objective.prompt.parameters()]
    share = sum(p.numel() for p in kept if p.requires_grad) / sum(p.numel() for p in kept)
    assert objective.trainable_share == share < 0.09


def test_too_many_trainable_parameters_are_refused(small_model: CausalSam) -> None:
    with pytest.raises(InputError, match="must be under 9%"):
        objective_of(small_model, TrainingConfig(adapters=AdapterConfig(rank=64)))


def test_what_was_not_annotated_is_not_learnt(small_model: CausalSam, labelled: LabelledSlices) -> None:
    objective = objective_of(small_model, TrainingConfig(lad=OFF))
    batch = first_batch(labelled, objective.config)
    torch.manual_seed(0)
    before = objective(batch, 0.0)
    other = {**batch, "label": torch.where(batch["label"] == 0, 3, batch["label"])}  # 3 is the name nobody annotated
    torch.manual_seed(0)
    after = objective(other, 0.0)
    torch.testing.assert_close(before["drafts"], after["drafts"])


def test_without_lad_there_are_no_heads_and_no_terms(small_model: CausalSam, labelled: LabelledSlices) -> None:
    objective = objective_of(small_model, TrainingConfig(steps=2, batch=4, pairs=2, lad=OFF))
    assert list(objective.lad.parameters()) == []
    assert train(objective, labelled, styled=False)[0].keys() == LOGGED


def test_the_loss_is_the_sum_of_its_parts(small_model: CausalSam, labelled: LabelledSlices) -> None:
    config = TrainingConfig(lad=LadConfig(spread=0.5, invariance=0.4, anatomy=0.2, consistency=0.7))
    objective = objective_of(small_model, config)
    batch = first_batch(labelled, objective.config)
    with torch.no_grad():
        found = objective(batch, 0.3)
    ramp = reversal_ramp(0.3)
    expected = found["drafts"] + found["decoded"] + found["adversary"] + ramp * 0.4 * found["invariance"]
    # The spread is that of the frozen features still: nothing lost.
    expected = expected + ramp * (0.2 * found["anatomy"] + 0.7 * found["consistency"])
    assert found["spread"] == 0
    torch.testing.assert_close(found["loss"], expected)


def test_losses_are_float32_in_mixed_precision(small_model: CausalSam, labelled: LabelledSlices) -> None:
    """Overlaps of masks in bfloat16 teach next to nothing: they are sums over many pixels."""
    objective = objective_of(small_model, TrainingConfig())
    batch = first_batch(labelled, objective.config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = objective(batch, 0.5)
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(found, torch.float32)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch": 3}, {"pairs": 5}, {"pairs": 1}, {"decoded": 6}, {"clicked": 1.5}, {"learning_rate": 0.0}],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        replace(TrainingConfig(), **wrong)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])  # those of processors and of GPUs
def test_steps_in_mixed_precision(small_model: CausalSam, labelled: LabelledSlices, half: torch.dtype) -> None:
    config = TrainingConfig(steps=2, batch=4, pairs=2, amp=True, adapters=AdapterConfig(rank=2))
    before = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", half)
    try:
        seen = train(objective_of(small_model, config), labelled)
    finally:
        torch.set_autocast_dtype("cpu", before)
    assert all(np.isfinite(value) for step in seen for value in step.values())
