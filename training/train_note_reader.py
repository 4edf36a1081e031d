"""Train the reading network of notes.

    python training/train_note_reader.py sample_configs/training/note_reader.yaml

Stopped at any time, training continues with the same command from its last checkpoint. In the output folder:
`checkpoint.pt`, `log.jsonl`, TensorBoard events, and with each checkpoint `reader.safetensors`, the averaged weights to
ship.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ignite.distributed as idist
import torch

from causal_sam.benchmark.notes import NoteCase, Reading, read_notes
from causal_sam.errors import InputError
from causal_sam.notes import Plan
from causal_sam.notes.features import EncodeTokens
from causal_sam.notes.learned import LearnedReader, load_network
from causal_sam.notes.network import ReadingNetwork, Words
from causal_sam.sam.loading import trains_in_mixed_precision
from causal_sam.text.loading import load_token_encoder
from causal_sam.training.config_file import run_script
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.log import TrainingLog
from causal_sam.training.note_reading import WEIGHTS, NoteBatches, NoteReadingObjective, learned_notes, new_network


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/note_reader.yaml` explains each key."""

    out: Path
    notes: list[Path] = field(default_factory=list)
    halved: list[Path] = field(default_factory=list)
    validation: list[Path] = field(default_factory=list)
    init: Path | None = None
    minutes: float = 50.0
    cells: int = 1800
    joined: float = 0.35
    learning_rate: float = 6e-4
    language_factor: float = 0.2
    save_minutes: float = 5.0
    seed: int = 0
    device: str = "cpu"


def train(local_rank: int, config: RunConfig) -> None:
    """Train in this process, together with all others."""
    rank = idist.get_rank()
    if config.device != "cpu":
        raise InputError(f"The reading network is trained on the processor: device must be cpu, not {config.device!r}.")
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    encode = load_token_encoder()
    cases: list[NoteCase] = [case for path in config.notes for case in read_notes(path)]
    cases += [case for path in config.halved for case in read_notes(path, "tune")]
    held_out = [case for path in config.validation for case in read_notes(path)]
    notes = list(learned_notes([(case.request, case.expected) for case in cases], encode))
    if config.init is None:
        network = new_network(Words.of([note.features for note in notes]))
    else:
        network = load_network(config.init)
    objective = NoteReadingObjective(network, config.learning_rate, config.language_factor)

    def validated(averaged: NoteReadingObjective, step: int) -> dict[str, float]:
        averaged.save_weights(config.out / WEIGHTS)
        return {"right": right_share(averaged.network, held_out, encode)} if held_out else {}

    loop = LoopConfig(
        minutes=config.minutes,
        warm_up_steps=60,
        floor=0.03,
        amp=trains_in_mixed_precision(torch.device("cpu")),
        ema=True,
        save_minutes=config.save_minutes,
        log_every=100,
    )
    log = TrainingLog(config.out).write if rank == 0 else None
    engine = TrainingEngine(objective, loop, config.out, log=log, validate=validated)
    engine.run(NoteBatches(notes, config.cells, config.joined, config.seed + 1000 * engine.step + rank))


def right_share(network: ReadingNetwork, cases: Sequence[NoteCase], encode: EncodeTokens) -> float:
    """Return the share of notes that the network alone reads right, by effect (`causal_sam.benchmark.note_effects`)."""
    reader = LearnedReader(network, encode)
    right = 0
    for case in cases:
        note = next(learned_notes([(case.request, case.expected)], encode), None)
        acts = reader.read_features(note.features).interventions if note else ()
        plan = Plan(interventions=acts) if acts else Plan(question="What is to be corrected?")
        right += Reading(case, plan).verdict == "right"
    return right / len(cases)


if __name__ == "__main__":
    run_script(train, RunConfig, __doc__, "note_reader.yaml")
