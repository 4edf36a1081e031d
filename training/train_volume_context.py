"""Train the volume context on rendered bodies.

    python training/train_volume_context.py sample_configs/training/volume_context.yaml --set folders=[PATH]

The bodies are rendered on the fly from label maps (`causal_sam.phantom.bodies`) and encoded by the frozen compact model
in other processes; the training draws from the newest of them and waits for nothing. Stopped at any time, training
continues with the same command from its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, TensorBoard events, and with each checkpoint `context.safetensors`,
the averaged weights to ship.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ignite.distributed as idist
import torch
from safetensors.torch import load_file
from torch import Tensor

from causal_sam.sam.loading import checked_device, trains_in_mixed_precision
from causal_sam.text.loading import load_text_encoder
from causal_sam.training.config_file import run_script
from causal_sam.training.encoded_bodies import EncodedBodies, EncodedBody, Reservoir
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.log import TrainingLog
from causal_sam.training.volume_context import WEIGHTS, VolumeContextObjective, validate


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/volume_context.yaml` explains each key."""

    out: Path
    folders: list[Path] = field(default_factory=list)
    validation: list[Path] = field(default_factory=list)
    validated: int = 8
    init: Path | None = None
    minutes: float = 720.0
    learning_rate: float = 1.5e-3
    workers: int = 1
    reservoir: int = 24
    reuse: float = 3.0
    paired: float = 0.2
    save_minutes: float = 5.0
    seed: int = 0
    device: str = "cpu"


def train(local_rank: int, config: RunConfig) -> None:
    """Train in this process, together with all others."""
    rank = idist.get_rank()
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    encoder = load_text_encoder()

    def encode(texts: Sequence[str]) -> Tensor:  # a function, since the average copies the objective
        return encoder.encode(texts)

    objective = VolumeContextObjective(encode, encoder.dimension, config.learning_rate)
    if config.init:
        objective.network.load_state_dict({k: v.float() for k, v in load_file(config.init).items()})
    objective.to(checked_device(config.device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    device = next(objective.parameters()).device
    amp = trains_in_mixed_precision(device)

    def validated(averaged: VolumeContextObjective, step: int) -> dict[str, float]:
        with torch.autocast(device.type, enabled=amp):
            scores, found = validate(averaged.network, held_out, encode)
        averaged.save_weights(config.out / WEIGHTS, step, reservoir.names, found)
        return {"bodies": reservoir.made, **scores}

    loop = LoopConfig(
        minutes=config.minutes, warm_up_steps=60, floor=0.02, amp=amp, ema=True, save_minutes=config.save_minutes
    )
    log = TrainingLog(config.out).write if rank == 0 else None
    engine = TrainingEngine(objective, loop, config.out, log=log, validate=validated)
    seed = config.seed + 1000 * engine.step + rank
    objective.reseed(seed)
    bodies = EncodedBodies(config.folders, seed, config.paired)
    held_out: list[EncodedBody] = []
    if config.validation and rank == 0:
        held_out = list(itertools.islice(EncodedBodies(config.validation, 0, 0.0), config.validated))
    reservoir = Reservoir(bodies, config.reservoir, config.workers, config.reuse, seed)
    engine.run(reservoir)


if __name__ == "__main__":
    run_script(train, RunConfig, __doc__, "volume_context.yaml")
