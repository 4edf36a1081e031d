"""Training on the accepted labels of an update, in one process or in several, from the last checkpoint if any."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ignite.distributed as idist
import torch

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from causal_sam.prompting.named import name_vectors
from causal_sam.sam.adapter_bundle import AdapterBundle, LabelPart
from causal_sam.sam.adapters import AdapterConfig
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.case_files import load_slices
from causal_sam.site.paths import Progress, SitePaths, UpdateConfig, UpdateError, progress_of
from causal_sam.site.training_set import TrainingSet, load_training_set
from causal_sam.site.versions import version_name
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.engine import TrainingEngine

RESULT, LOSSES = "trained.safetensors", "losses.jsonl"
SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Share of the learning rates where training starts from the parent version.
CONTINUED = 0.4
# Power of the areas when training begins, if the parent has found all labels already.
ALL_FOUND = 0.5


def train(local_rank: int, site: SitePaths, config: UpdateConfig, folder: Path) -> None:
    """Train in this process, together with all others, and write the result to `RESULT`.

    Args:
        local_rank: rank of this process on its machine.
        site: folder of the versions, and the model.
        config: settings of the training.
        folder: folder of the training set.

    Raises:
        InputError: the parent was trained with another text encoder.
        StoreError: the parent cannot be read.
        UpdateError: the loss is not a number any more.
        OSError: the folder cannot be written.
    """
    training_set = load_training_set(folder)
    if (folder / RESULT).is_file():
        return
    torch.manual_seed(config.seed)
    model = site.load()
    encoder = load_text_encoder()
    cases = [
        load_slices(folder, case.files, [name in case.record.names for name in training_set.names])
        for case in training_set.cases
    ]
    steps = 1
    if config.epochs:
        slices = sum(len(case.label_map) for case in cases)
        shown = (config.batch - (config.pairs if config.lad else 0)) * idist.get_world_size()
        steps = math.ceil(config.epochs * slices / shown)
    amp = model.device.type == "cuda" or model.encodes_in_bfloat16
    objective = _objective(site, training_set, model, encoder, config.training(steps, amp=amp))
    fingerprint = model.encoder_hash()
    recorder = _Recorder(folder)
    engine: TrainingEngine = adapter_engine(
        objective,
        folder,
        log=lambda record: recorder.step(record, engine.progress),
        log_every=1,
        save_minutes=SECONDS_BETWEEN_CHECKPOINTS / 60,
    )
    if idist.get_rank() == 0:
        _keep_losses(folder / LOSSES, engine.step)
    loader = batches(
        cases,
        model.image_size,
        encoder.encode,
        objective.config,
        styled=config.lad,
        seed=config.seed + engine.step,  # others than those that were seen before a stop
        weights=[case.weight for case in training_set.cases],
    )
    engine.run(loader)
    if model.encoder_hash() != fingerprint:
        raise UpdateError("The frozen encoder has changed in training, so nothing was published.")
    if idist.get_rank() == 0:
        _save_result(folder, training_set, objective, encoder)


def _objective(
    site: SitePaths, training_set: TrainingSet, model: CausalSam, encoder: TextEncoder, config: TrainingConfig
) -> AdapterObjective:
    """Return what is trained: new, or as the parent has left it."""
    prompt, vectors = new_label_prompt(model, encoder.dimension), name_vectors(training_set.names, encoder)
    if not training_set.continues:
        return AdapterObjective(model, prompt, vectors, config)
    assert training_set.parent is not None
    with AdapterStore(site.store).lease(training_set.parent) as version:
        labels = AdapterBundle.read(version.adapter).labels
    assert labels is not None  # an update gives each version labels
    parent = labels.metadata
    if parent.text_fingerprint != encoder.fingerprint:
        number = version_name(training_set.parent)
        raise InputError(f"{number} was trained with the text encoder {parent.text_encoder}: use it.")
    continued = replace(
        config,
        adapters=parent.adapters or AdapterConfig(),
        area_power=ALL_FOUND if set(training_set.names) <= set(parent.names) else config.area_power,
        learning_rate=CONTINUED * config.learning_rate,
        adapter_rate=CONTINUED * config.adapter_rate,
    )
    objective = AdapterObjective(model, prompt, vectors, continued)
    objective.start_from(labels.prompt, labels.adapters)
    return objective


class _Recorder:
    """Writes the losses and the progress of the update, in the leading process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._progress = Progress(folder.parent, _print_line, progress_of(folder.parent.parent))
        self._printed = time.monotonic()

    def step(self, record: Mapping[str, float], share: float) -> None:
        """Record a step; ``share`` is the completed share of the training.

        Raises:
            UpdateError: the loss is not a number.
        """
        step, loss = record["step"], record["loss"]
        if not math.isfinite(loss):
            raise UpdateError(
                f"The loss of step {step} is not a number, so nothing was published: lower the learning rate."
            )
        with (self._folder / LOSSES).open("a") as file:
            file.write(json.dumps(record) + "\n")
        text, now = "", time.monotonic()
        if now - self._printed >= SECONDS_BETWEEN_CHECKPOINTS:
            self._printed, text = now, f"Training: {share:.0%} done, step {step}, loss {loss:.3f}."
        self._progress("training", 0.1 + 0.7 * share, text, loss=loss, step=step)


def _print_line(line: str) -> None:
    # A training in its own process can report only by printing; standard output is for its result.
    print(line, file=sys.stderr, flush=True)


def _keep_losses(path: Path, done: int) -> None:
    """Keep the losses of the first steps; later ones are computed again, and the last one may be cut off."""
    kept = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except ValueError:
            break
    with atomic_write(path) as part:
        part.write_text("".join(kept))


def _save_result(folder: Path, training_set: TrainingSet, objective: AdapterObjective, encoder: TextEncoder) -> None:
    counts = {name: sum(case.slices.get(name, 0) for case in training_set.cases) for name in training_set.names}
    metadata = objective.metadata(training_set.names, encoder, counts)
    AdapterBundle(LabelPart.from_training(objective.prompt, metadata, objective.model)).write(folder / RESULT)
