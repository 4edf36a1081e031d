"""Speed-up of training with several processes over one, at the same total batch size."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import torch

from causal_sam.benchmark.ood.clock import StepClock
from causal_sam.benchmark.ood.protocols import PHANTOM_LABELS, phantom_scan
from causal_sam.errors import InputError
from causal_sam.prompting.named import name_vectors
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.sam.loading import load_model
from causal_sam.text import load_text_encoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.processes import fitting_backend
from causal_sam.training.style_pairs import labelled_slices

PATIENTS = 2


@dataclass(frozen=True)
class Scaling:
    """Speed of training with one number of processes.

    Attributes:
        processes: number of processes that share the batch.
        step_seconds: median seconds per step, including making the images.
        speedup: ratio to the speed of one process.
    """

    processes: int
    step_seconds: float
    speedup: float


def measure_scaling(
    counts: Sequence[int], batch: int, pairs: int, steps: int, image_size: int | None, announce: Callable[[str], object]
) -> list[Scaling]:
    """Train on generated abdomens with each number of processes, with LAD; gloo or nccl, one thread each.

    Args:
        counts: numbers of processes; 1 is always measured.
        batch: images per step of all processes together.
        pairs: anatomies per step that are shown in two styles, of all processes together.
        steps: number of steps to time.
        image_size: side of compact's input in pixels; None for the default.
        announce: called with a description of the current step.

    Raises:
        InputError: a number of processes does not divide the batch.
    """
    counts = sorted({1, *counts})
    if odd := [count for count in counts if batch % count or pairs % count]:
        raise InputError(f"{odd[0]} processes cannot share {batch} images and {pairs} pairs evenly: choose multiples.")
    found: dict[int, float] = {}
    for count in counts:
        announce(f"{count} process{'es' if count > 1 else ''}")
        config = TrainingConfig(steps=steps, batch=batch // count, pairs=pairs // count)
        with tempfile.TemporaryDirectory() as folder:
            if count == 1:
                _train(0, config, image_size, folder)
            else:
                backend = fitting_backend(None)
                with idist.Parallel(backend=backend, nproc_per_node=count, start_method="spawn") as parallel:
                    parallel.run(_train, config, image_size, folder)
            found[count] = json.loads((Path(folder) / "seconds.json").read_text())
    return [Scaling(count, seconds, found[1] / seconds) for count, seconds in found.items()]


def _train(local_rank: int, config: TrainingConfig, image_size: int | None, folder: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(config.seed)
        model = load_model("compact", image_size=image_size, device=None if torch.cuda.is_available() else "cpu")
        encoder = load_text_encoder()
        scans = [phantom_scan(str(n), "ct-portal-venous") for n in range(PATIENTS)]
        cases = [labelled_slices(s.volume, s.structures, PHANTOM_LABELS, model.image_size) for s in scans]
        prompt = new_label_prompt(model, encoder.dimension)
        objective = AdapterObjective(model, prompt, name_vectors(PHANTOM_LABELS, encoder), config)
        loader = batches(cases, model.image_size, encoder.encode, config, styled=True, seed=0)
        engine = adapter_engine(objective)
        clock = StepClock(lambda done: None)
        clock.attach(engine.trainer)
        engine.run(loader)
        if idist.get_rank() == 0:
            (Path(folder) / "seconds.json").write_text(json.dumps(clock.step_seconds))
    finally:
        torch.set_num_threads(threads)
