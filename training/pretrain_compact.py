"""Train the compact model from generated images alone.

    python training/pretrain_compact.py sample_configs/training/compact.yaml --set out=runs/compact

Several processes share the work, each with its own images: on a processor one for each core is faster than one for all
of them, because no core waits for another within a step.

    torchrun --nproc-per-node 2 training/pretrain_compact.py sample_configs/training/compact.yaml

The images are drawn on the fly (`causal_sam.phantom`); `causal_sam.training.pretraining` says what is learned when.
Stopped at any time, training continues with the same command from its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, `examples-*.png`, TensorBoard events, and with each checkpoint
`compact.safetensors`, the averaged weights to ship.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import itertools
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import torch

from causal_sam.sam.loading import checked_device, trains_in_mixed_precision
from causal_sam.training.config_file import run_script
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.log import TrainingLog
from causal_sam.training.pretraining import STAGES, WEIGHTS, PretrainingObjective, batches, validate


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/compact.yaml` explains each key."""

    out: Path
    init: Path | None = None
    minutes: float = 90.0
    structures: int = 3
    learning_rate: float = 1e-3
    save_minutes: float = 5.0
    validation: int = 40
    device: str = "cpu"


def train(local_rank: int, config: RunConfig) -> None:
    """Train in this process, together with all others: all stages within the time given."""
    rank, processes = idist.get_rank(), idist.get_world_size()
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    objective = PretrainingObjective(config.learning_rate, config.init)
    objective.to(checked_device(config.device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    amp = trains_in_mixed_precision(objective.model.device)

    def validated(averaged: PretrainingObjective, step: int) -> dict[str, float]:
        averaged.save_weights(config.out / WEIGHTS, step)
        size = averaged.model.image_size
        picture = config.out / f"examples-{step:06d}.png"
        return {"size": size, **validate(averaged.model, size, config.validation, picture)}

    loop = LoopConfig(
        minutes=config.minutes, warm_up_steps=200, floor=0.02, amp=amp, ema=True, save_minutes=config.save_minutes
    )
    log = TrainingLog(config.out).write if rank == 0 else None
    engine = TrainingEngine(objective, loop, config.out, log=log, validate=validated)
    ends = itertools.accumulate(stage.share for stage in STAGES)
    for stage, end in zip(STAGES, ends, strict=True):
        if engine.progress >= end or not (stage.decoded or objective.new):
            continue
        for each in (objective, engine.average.module):
            each.enter(stage, (engine.step, stage.size, rank))
        engine.run(batches(stage, config.structures, engine.step, rank, processes), until=min(1.0, end))


if __name__ == "__main__":
    run_script(train, RunConfig, __doc__, "compact.yaml")
