"""The training loop: schedule, exact resume, averaged weights, log, and what it does when something goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from causal_sam.training import engine as engine_module
from causal_sam.training.engine import CHECKPOINT, LoopConfig, Objective, TrainingEngine


class Line(Objective):
    """Fits a line through noisy points; a frozen parameter, a buffer, dropout, and a group that is not scheduled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line, self.constant = nn.Linear(3, 1), nn.Linear(1, 1)
        self.frozen = nn.Parameter(torch.ones(1000), requires_grad=False)
        self.dropout = nn.Dropout(0.3)
        self.register_buffer("seen", torch.zeros(()))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": [*self.line.parameters()], "lr": 0.1},
            {"params": [*self.constant.parameters()], "lr": 0.01, "scheduled": False},
        ]

    def forward(self, batch: Tensor, progress: float) -> dict[str, Tensor]:
        self.seen += 1
        found = self.line(self.dropout(batch)) + self.constant(batch[:, :1])
        loss = (found - batch.sum(1, keepdim=True)).square().mean()
        return {"loss": loss, "progress": loss.new_tensor(progress)}


def points(step: int) -> Iterator[Tensor]:
    """Batches that depend on the step alone."""
    while True:
        yield torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        step += 1


def trained(folder: Path | None, steps: int, until: float = 1.0, **options: Any) -> TrainingEngine:
    engine = TrainingEngine(Line(), LoopConfig(steps=steps, warm_up=0.2, ema=True, log_every=1), folder, **options)
    engine.run(points(engine.step), until)
    return engine


def state(engine: TrainingEngine) -> dict[str, Tensor]:
    average = {f"average {name}": value for name, value in engine.average.module.state_dict().items()}
    moments = engine.optimizer.state_dict()["state"]
    return {**engine.objective.state_dict(), **average} | {
        f"{number} {name}": value for number, one in moments.items() for name, value in one.items()
    }


def test_a_stopped_training_continues_to_the_bit(tmp_path: Path) -> None:
    whole: list[dict[str, float]] = []
    records: list[dict[str, float]] = []
    expected = state(trained(None, 20, log=whole.append))
    for until in (0.3, 0.55, 1.0):  # a new engine each time, as in a new process
        torch.manual_seed(99)
        engine = trained(tmp_path, 20, until, log=records.append)
    found = state(engine)
    assert engine.step == 20
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [{**r, "minutes": 0} for r in records] == [{**r, "minutes": 0} for r in whole]


def test_each_process_continues_with_its_own_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.Generator().manual_seed(seed).get_state() for seed in (0, 1)]
    monkeypatch.setattr(engine_module.idist, "get_rank", lambda: 1)
    monkeypatch.setattr(engine_module.idist, "get_world_size", lambda: 2)
    engine_module._set_random_states([torch.stack(states)], torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), states[1])


def test_the_checkpoint_lacks_what_is_frozen_and_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    trained(tmp_path, 4)
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)["objective"]
    assert kept.keys() == {"line.weight", "line.bias", "constant.weight", "constant.bias", "seen"}
    assert TrainingEngine(Line(), LoopConfig(steps=8), tmp_path).step == 4
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 no checkpoint")
    assert TrainingEngine(Line(), LoopConfig(steps=8), tmp_path).step == 0
    torch.save({"steps": 3}, tmp_path / CHECKPOINT)  # of another version
    assert TrainingEngine(Line(), LoopConfig(steps=8), tmp_path).step == 0


def test_rates_rise_and_fall_along_a_cosine_but_for_groups_that_keep_theirs() -> None:
    engine = TrainingEngine(Line(), LoopConfig(steps=10, warm_up=0.2))
    rates = []
    engine.trainer.add_event_handler(
        engine_module.Events.ITERATION_STARTED,
        lambda _: rates.append([group["lr"] for group in engine.optimizer.param_groups]),
    )
    engine.run(points(0))
    falling = [0.05 * (1 + math.cos(math.pi * n / 10)) for n in range(10)]
    rising = [0.0, 0.5] + 8 * [1.0]
    assert [one for one, _ in rates] == pytest.approx([a * b for a, b in zip(falling, rising, strict=True)])
    assert {other for _, other in rates} == {0.01}
    by_steps = LoopConfig(warm_up_steps=4, floor=0.1)
    assert [by_steps.rate(step, 0.0) for step in (0, 3, 9)] == [0.25, 1.0, 1.0]
    assert by_steps.rate(9, 1.0) == pytest.approx(0.1)


def test_the_average_begins_with_the_initial_weights() -> None:
    first = Line().line.weight.clone()
    engine = trained(None, 2, until=0.5)
    decay = 2 / 21
    torch.testing.assert_close(
        engine.average.module.line.weight, decay * first + (1 - decay) * engine.objective.line.weight
    )


def test_time_ends_training_and_validation_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 1.0
        return now

    def validate(objective: Objective, step: int) -> dict[str, float]:
        nonlocal now
        now += 1000.0
        return {"step of validation": step}

    monkeypatch.setattr(engine_module.time, "monotonic", monotonic)
    records: list[dict[str, float]] = []
    config = LoopConfig(minutes=0.1, save_minutes=0.05, log_every=2)
    engine = TrainingEngine(Line(), config, tmp_path, log=records.append, validate=validate)
    engine.run(points(0))
    assert (engine.step, engine.seconds) == (6, 6.0)
    assert [r["step"] for r in records] == [2, 3, 4, 6, 6]
    assert [r["step of validation"] for r in records if "step of validation" in r] == [3, 6]
    engine.run(points(0))  # it is done already
    assert engine.step == 6


def test_steps_whose_gradients_are_no_numbers_are_left_out() -> None:
    engine = TrainingEngine(Line(), LoopConfig(steps=1))
    before = {name: value.clone() for name, value in engine.objective.named_parameters()}
    engine.run(torch.full((1, 8, 3), float("nan")))
    assert all(torch.equal(value, before[name]) for name, value in engine.objective.named_parameters())
