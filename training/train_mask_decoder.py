"""Train the compact model's prompt encoder and mask decoder further, on slices of rendered bodies, with LAD.

    python training/train_mask_decoder.py sample_configs/training/mask_decoder.yaml --set folders=[PATH]

The encoder stays as it is, since the volume context reads its embeddings. Another process renders bodies from label
maps (`causal_sam.phantom.bodies`), encodes their slices, and asks the volume context for coarse masks; the training
draws from the newest of them and waits for nothing. Stopped at any time, training continues with the same command from
its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, TensorBoard events, and with each checkpoint `compact.safetensors`,
the averaged weights. The first record of the log has the figures of the model before the training.
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
from torch import Tensor

from causal_sam.sam.loading import checked_device, load_model, trains_in_mixed_precision
from causal_sam.text.loading import load_text_encoder
from causal_sam.training.config_file import run_script
from causal_sam.training.encoded_bodies import Reservoir
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.log import TrainingLog
from causal_sam.training.mask_decoder import MaskDecoderObjective, batches, validate
from causal_sam.training.pretraining import WEIGHTS
from causal_sam.training.prompted_slices import PromptedSlice, PromptedSlices

# Slices of each held-out body that are measured.
VALIDATED_SLICES = 3


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/mask_decoder.yaml` explains each key."""

    out: Path
    folders: list[Path] = field(default_factory=list)
    validation: list[Path] = field(default_factory=list)
    validated: int = 16
    init: Path | None = None
    minutes: float = 60.0
    learning_rate: float = 2e-4
    batch: int = 6
    workers: int = 1
    reservoir: int = 40
    reuse: float = 40.0
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

    model = load_model("compact", config.init, device=checked_device(config.device))
    objective = MaskDecoderObjective(model, encode, encoder.dimension, config.learning_rate)
    objective.to(model.device)
    held_out: list[PromptedSlice] = []
    if config.validation and rank == 0:
        bodies = itertools.islice(PromptedSlices(config.validation, 0, styles=1, shapes=0.0), config.validated)
        held_out = [one for body in bodies for one in body.slices[:VALIDATED_SLICES]]

    def measured(objective: MaskDecoderObjective) -> dict[str, float]:
        return validate(objective.model.eval(), held_out)

    def validated(averaged: MaskDecoderObjective, step: int) -> dict[str, float]:
        averaged.save_weights(config.out / WEIGHTS, step)
        return {"bodies": reservoir.made, **measured(averaged)}

    loop = LoopConfig(
        minutes=config.minutes,
        warm_up_steps=60,
        floor=0.02,
        amp=trains_in_mixed_precision(model.device),
        ema=True,
        save_minutes=config.save_minutes,
    )
    log = TrainingLog(config.out).write if rank == 0 else None
    engine = TrainingEngine(objective, loop, config.out, log=log, validate=validated)
    if log and not engine.step:
        log({"step": 0, "minutes": 0.0, **measured(objective)})
    seed = config.seed + 1000 * engine.step + rank
    objective.reseed(seed)
    reservoir = Reservoir(
        PromptedSlices(config.folders, 1 + seed), config.reservoir, config.workers, config.reuse, seed
    )
    engine.run(batches(iter(reservoir), config.batch, seed))


if __name__ == "__main__":
    run_script(train, RunConfig, __doc__, "mask_decoder.yaml")
