"""Training on a job, in one process or in several, from the last checkpoint if there is one."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from causal_sam.prompting.named import name_vectors
from causal_sam.sam.adapter_bundle import AdapterBundle, LabelPart
from causal_sam.sam.adapters import AdapterConfig
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import Progress, SitePaths, UpdateConfig, UpdateError, progress_of
from causal_sam.site.training_set import TrainingSet, load_job, load_slices
from causal_sam.site.versions import version_name
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.training.adapters import Learner, TrainableState, TrainingConfig, batches, make_trainer

CHECKPOINT, RESULT, LOSSES = "checkpoint.pt", "trained.safetensors", "losses.jsonl"
SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Share of the learning rates where training starts with what was learnt before.
CONTINUED = 0.4
# Power of the areas at its beginning, if the version that it goes on from has found all labels already.
ALL_FOUND = 0.5


def train(local_rank: int, site: SitePaths, config: UpdateConfig, folder: Path) -> None:
    """Train in this process, together with all others, and write what was learnt to `RESULT`.

    Args:
        local_rank: of this process on its machine.
        site: where versions are, and the model.
        config: how to learn.
        folder: of the job.

    Raises:
        InputError: the parent was trained with another text encoder.
        StoreError: the parent cannot be read.
        UpdateError: the loss is not a number any more.
        OSError: the folder cannot be written.
    """
    job = load_job(folder)
    if (folder / RESULT).is_file():
        return
    torch.manual_seed(config.seed)
    model = site.load()
    encoder = load_text_encoder()
    cases = [load_slices(folder, case, job.names) for case in job.cases]
    amp = model.device.type == "cuda" or model.encodes_in_bfloat16
    steps = sys.maxsize
    if config.epochs:
        slices = sum(len(case.label_map) for case in cases)
        shown = (config.batch - (config.pairs if config.lad else 0)) * idist.get_world_size()
        steps = math.ceil(config.epochs * slices / shown)
    learner = _learner(site, job, model, encoder, config.steps(steps, amp=amp))
    fingerprint = model.encoder_hash()
    clock = _Clock(60 * config.minutes, steps if config.epochs else None)
    state = _read_checkpoint(folder / CHECKPOINT, model.device)
    done = 0 if state is None else state["steps"]
    loader = batches(
        cases,
        model.image_size,
        encoder.encode,
        learner.config,
        styled=config.lad,
        seed=config.seed + done,  # others than those that were seen before a stop
        weights=[case.weight for case in job.cases],
    )
    trainer, optimizers = make_trainer(learner, loader, clock)
    kept = TrainableState(learner)
    if state is not None:
        kept.load_state_dict(state["learner"])
        optimizers.load_state_dict(state["optimizers"])
        clock.earlier = state["seconds"]
        trainer.load_state_dict({"iteration": done, "epoch_length": steps, "max_epochs": 1})
    if idist.get_rank() == 0:
        _keep_losses(folder / LOSSES, done)
        _attach(trainer, _Recorder(folder, kept, optimizers, clock))
    if not done or clock(done) < 1:
        trainer.run()
    if model.encoder_hash() != fingerprint:
        raise UpdateError("The frozen encoder has changed in training, so nothing was published.")
    if idist.get_rank() == 0:
        _save_result(folder, job, learner, encoder)


def _learner(
    site: SitePaths, job: TrainingSet, model: CausalSam, encoder: TextEncoder, config: TrainingConfig
) -> Learner:
    """What trains: new, or as the parent has left it."""
    if not job.continues:
        prompt = new_label_prompt(model, encoder.dimension)
        return Learner(model, prompt, name_vectors(job.names, encoder), config)
    with AdapterStore(site.store).lease(job.parent) as version:
        parent = AdapterBundle.read(version.adapter).labels
    taught = parent.metadata
    if taught.text_fingerprint != encoder.fingerprint:
        raise InputError(f"{version_name(job.parent)} was trained with the text encoder {taught.text_encoder}: use it.")
    prompt = new_label_prompt(model, encoder.dimension)
    learner = Learner(
        model,
        prompt,
        name_vectors(job.names, encoder),
        replace(
            config,
            adapters=taught.adapters or AdapterConfig(),
            area_power=ALL_FOUND if set(job.names) <= set(taught.names) else config.area_power,
            learning_rate=CONTINUED * config.learning_rate,
            adapter_rate=CONTINUED * config.adapter_rate,
        ),
    )
    learner.start_from(parent.prompt, parent.adapters)
    return learner


class _Clock:
    """The schedule of an update: by time as the leading process measures it, or by steps."""

    def __init__(self, seconds: float, steps: int | None) -> None:
        self.earlier = 0.0
        self._budget, self._steps = seconds, steps
        self._began = time.monotonic()
        self._told: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Time of training, with that before a stop."""
        return self.earlier + time.monotonic() - self._began

    def __call__(self, steps: int) -> float:
        """Share of the training that is done."""
        if self._steps is not None:
            return steps / self._steps
        if self._told is None or self._told[0] != steps:
            share = self.seconds / self._budget
            self._told = (steps, float(idist.broadcast(share, src=0)) if idist.get_world_size() > 1 else share)
        return self._told[1]


class _Recorder:
    """Keeps checkpoints and losses, and tells how far training is; for the leading process."""

    def __init__(self, job: Path, kept: TrainableState, optimizers: Any, clock: _Clock) -> None:
        self._job, self._kept, self._optimizers, self._clock = job, kept, optimizers, clock
        self._progress = Progress(job.parent, _tell, progress_of(job.parent.parent))
        self._saved = time.monotonic()

    def step(self, engine: Engine) -> None:
        """After each step."""
        done = engine.state.iteration
        share, losses = self._clock(done), engine.state.output
        if not math.isfinite(losses["loss"]):
            raise UpdateError(
                f"The loss of step {done} is not a number, so nothing was published: lower the learning rate."
            )
        with (self._job / LOSSES).open("a") as file:
            file.write(json.dumps({"step": done, **losses}) + "\n")
        now = time.monotonic()
        text = ""
        if now - self._saved >= SECONDS_BETWEEN_CHECKPOINTS:
            self._saved = now
            self.save(done)
            text = f"Training: {min(share, 1):.0%} done, step {done}, loss {losses['loss']:.3f}."
        self._progress("training", 0.1 + 0.7 * min(share, 1.0), text, loss=losses["loss"], step=done)

    def save(self, done: int) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "steps": done,
            "seconds": self._clock.seconds,
            "learner": self._kept.state_dict(),
            "optimizers": self._optimizers.state_dict(),
        }
        # Into memory first: where the disk is full, torch says something that nobody understands.
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_write(self._job / CHECKPOINT) as part:
            part.write_bytes(content.getbuffer())


def _tell(line: str) -> None:
    # This may be a process of its own, so there is nobody else to tell; what is printed belongs to the result.
    print(line, file=sys.stderr, flush=True)


def _attach(trainer: Engine, recorder: _Recorder) -> None:
    trainer.add_event_handler(Events.ITERATION_COMPLETED, recorder.step)


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What a stopped training has left; None if it left nothing that can be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None
    except (RuntimeError, EOFError, ValueError, UnpicklingError):
        return None


def _keep_losses(path: Path, done: int) -> None:
    """Leave the losses of the first steps; those behind them are made again, and the last one may be cut off."""
    kept = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except ValueError:
            break
    with atomic_write(path) as part:
        part.write_text("".join(kept))


def _save_result(folder: Path, job: TrainingSet, learner: Learner, encoder: TextEncoder) -> None:
    counts = {name: sum(case.slices.get(name, 0) for case in job.cases) for name in job.names}
    metadata = learner.taught(job.names, encoder, counts)
    AdapterBundle(LabelPart.from_training(learner.prompt, metadata, learner.model)).write(folder / RESULT)
