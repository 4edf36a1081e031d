"""The training loop that all objectives share.

An `Objective` says what is learned: its parameters and the loss of a batch. `TrainingEngine` says how: learning rates,
gradient clipping, averaged weights, mixed precision, several processes, checkpoints and log.

    engine = TrainingEngine(objective, LoopConfig(minutes=10), folder, log=TrainingLog(folder).write)
    engine.run(batches)

A run that was killed continues from its last checkpoint when the same code runs again.
"""

from __future__ import annotations

import io
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from causal_sam.atomic import atomic_write
from causal_sam.training.processes import summed

logger = logging.getLogger(__name__)

CHECKPOINT, FORMAT = "checkpoint.pt", 1
MAX_GRADIENT_NORM, WEIGHT_DECAY = 1.0, 0.01
MAX_EMA_DECAY = 0.999


class Objective(nn.Module):
    """Training objective: a module whose forward pass returns the loss of a batch.

    Checkpoints hold its buffers and the parameters that are trained.
    """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups for AdamW, each with ``params`` and ``lr``, the highest learning rate.

        A group with ``scheduled=False`` keeps its learning rate, and its gradients are not clipped.
        """
        raise NotImplementedError

    def forward(self, batch: Any, progress: float) -> dict[str, Tensor]:
        """Return ``loss``, and further scalars for the log.

        Args:
            batch: one of the batches that `TrainingEngine.run` is given.
            progress: completed share of the training, 0 to 1.
        """
        raise NotImplementedError

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make further steps of the optimizer, if this objective needs any."""


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop.

    Attributes:
        steps: number of optimizer steps, if ``minutes`` is 0.
        minutes: time of training over all restarts, without validation; 0 to train for a number of steps.
        warm_up: share of the training in which the learning rates rise from 0.
        warm_up_steps: number of steps in which they rise, where ``warm_up`` is 0.
        floor: share of the highest learning rate that remains at the end of the cosine.
        amp: True for automatic mixed precision: float16 with a scaled loss on GPUs, bfloat16 on processors.
        ema: True to keep an exponential moving average of the weights.
        log_every: steps between two records of the log, which are means over these steps.
        save_every: steps between checkpoints; 0 if only time decides.
        save_minutes: minutes between checkpoints.
    """

    steps: int = 1
    minutes: float = 0.0
    warm_up: float = 0.0
    warm_up_steps: int = 1
    floor: float = 0.0
    amp: bool = False
    ema: bool = False
    log_every: int = 50
    save_every: int = 0
    save_minutes: float = math.inf

    def rate(self, step: int, progress: float) -> float:
        """Return the share of the highest learning rate for a step, counted from 0: warm-up, then a cosine."""
        rising = min(1.0, progress / self.warm_up) if self.warm_up else min(1.0, (step + 1) / self.warm_up_steps)
        return rising * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class TrainingEngine:
    """Trains an objective, in this process or together with all processes of `ignite.distributed`.

    Args:
        objective: objective on its device, the same in all processes.
        config: settings of the loop.
        folder: folder of the checkpoint, from which training continues; None for no checkpoints.
        log: called in the leading process with records of numbers, with ``step`` and ``minutes``.
        validate: called in the leading process at each checkpoint with the objective, averaged if ``ema`` is on, and
            the step; returns figures for the log.

    Attributes:
        step: number of steps that were made, over all restarts.
        seconds: seconds of training, over all restarts, as the leading process measures them.
        average: the averaged objective in its ``module``; None without ``ema``.
        trainer: ignite's engine, for further handlers; its output is the record of a step.
    """

    def __init__(
        self,
        objective: Objective,
        config: LoopConfig,
        folder: Path | None = None,
        *,
        log: Callable[[Mapping[str, float]], object] | None = None,
        validate: Callable[[Any, int], Mapping[str, float]] | None = None,
    ) -> None:
        self.objective, self.config, self.folder = objective, config, folder
        self.step, self.seconds = 0, 0.0
        self._log, self._validate = log, validate
        self._device = next(objective.parameters()).device
        groups = [{**group, "initial_lr": group["lr"]} for group in objective.parameter_groups() if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
        scheduled = [group.get("scheduled", True) for group in groups]
        self._rates = [self._rate if changes else (lambda step: 1.0) for changes in scheduled]
        self._clipped = [p for group, clip in zip(groups, scheduled, strict=True) if clip for p in group["params"]]
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        self._frozen = {name for name, parameter in objective.named_parameters() if id(parameter) not in trained}
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=config.amp and self._device.type == "cuda")
        self.average = None
        if config.ema:
            self.average = AveragedModel(objective, avg_fn=_moving_average)
            self.average.update_parameters(objective)  # the initial weights are the first of the average
        self._records: list[dict[str, float]] = []
        self._until, self._since, self._saved = 1.0, 0.0, 0.0
        self.trainer = Engine(self._train_step)
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._finish_step)
        self._resume()

    @property
    def progress(self) -> float:
        """Completed share of the training, 0 to 1; the same in all processes."""
        config = self.config
        return min(1.0, self.seconds / (60 * config.minutes) if config.minutes else self.step / config.steps)

    def run(self, batches: Iterable[Any], until: float = 1.0) -> None:
        """Train; at least one step if none was made yet, and none if it is done already.

        Args:
            batches: batches of this process, without end.
            until: share of the training at which to stop.
        """
        if self.step and self.progress >= until:
            return
        self._until = until
        # Which parts are used differs from step to step: a click has no use for the token of a name.
        distributed = idist.get_world_size() > 1
        self._network = (
            DistributedDataParallel(self.objective, find_unused_parameters=True) if distributed else self.objective
        )
        self._schedule = LambdaLR(self.optimizer, self._rates, last_epoch=self.step - 1)
        length = sys.maxsize if self.config.minutes else self.config.steps
        self.trainer.load_state_dict({"iteration": self.step, "epoch_length": length, "max_epochs": 1})
        self._since = time.monotonic()
        self.trainer.run(batches)

    def save(self) -> None:
        """Write a checkpoint, whole or not at all; all processes take part.

        Raises:
            OSError: it cannot be written.
        """
        state = {
            "format": FORMAT,
            "step": self.step,
            "seconds": self.seconds,
            "objective": self._trained_state(self.objective),
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self._scaler.state_dict(),
            "average": self._trained_state(self.average.module) if self.average else None,
            "random": _random_states(self._device),
        }
        if idist.get_rank() == 0:
            assert self.folder is not None
            # To memory first: torch.save does not say that a disk is full.
            content = io.BytesIO()
            torch.save(state, content)
            with atomic_write(self.folder / CHECKPOINT) as part:
                part.write_bytes(content.getbuffer())

    def _resume(self) -> None:
        """Continue from the checkpoint, if it can be read, with the learning rates of the configuration."""
        path = self.folder and self.folder / CHECKPOINT
        if path is None or not path.is_file():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state.get("format") != FORMAT:
                raise ValueError("another format")
        except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            logger.warning("The checkpoint %s cannot be used (%s): training starts from the beginning.", path, error)
            return
        self.step, self.seconds, self._saved = state["step"], state["seconds"], state["seconds"]
        self.objective.load_state_dict(state["objective"], strict=False)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state["optimizer"]})
        self._scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.module.load_state_dict(state["average"], strict=False)
            self.average.n_averaged.fill_(self.step + 1)
        _set_random_states(state["random"], self._device)

    def _trained_state(self, objective: nn.Module) -> dict[str, Tensor]:
        """Return the state of the objective, or of its average, without frozen parameters."""
        return {name: value for name, value in objective.state_dict().items() if name not in self._frozen}

    def _rate(self, step: int) -> float:
        return self.config.rate(step, self.progress)

    def _train_step(self, trainer: Engine, batch: Any) -> dict[str, float]:
        self._network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, enabled=self.config.amp):
            losses = self._network(batch, self.progress)
        self._scaler.scale(losses["loss"]).backward()
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._clipped, MAX_GRADIENT_NORM)
        # A scaler skips steps whose gradients overflow, and then lowers its scale.
        if self._scaler.is_enabled() or norm.isfinite():
            self._scaler.step(self.optimizer)
        self._scaler.update()
        self.objective.after_step(self.optimizer)
        if self.average:
            self.average.update_parameters(self.objective)
        # Average over the processes, as for gradients; values that already cover all processes are equal and stay so.
        means = summed(torch.stack([*losses.values()]).detach()) / idist.get_world_size()
        self.step += 1
        self._measure_time()
        self._schedule.step()
        record = dict(zip(losses, means.tolist(), strict=True))
        self._records.append(record)
        return record

    def _measure_time(self) -> None:
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        if idist.get_world_size() > 1:
            seconds = idist.broadcast(self.seconds, src=0)
            assert isinstance(seconds, float)
            self.seconds = seconds

    def _finish_step(self) -> None:
        """Log, save and validate where it is time, and stop at the end."""
        config, leads, ended = self.config, idist.get_rank() == 0, self.progress >= self._until
        if self.step % config.log_every == 0 or (ended and self._log):
            records, self._records = self._records, []
            if leads and self._log:
                means = {name: sum(record[name] for record in records) / len(records) for name in records[0]}
                self._report({**means, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        is_due = config.save_every and self.step % config.save_every == 0
        if self.folder and (ended or is_due or self.seconds - self._saved >= 60 * config.save_minutes):
            self._saved = self.seconds
            self.save()
            if leads and self._validate:
                shown = self.average.module if self.average else self.objective
                self._report(self._validate(shown, self.step))
            idist.barrier()
            self._since = time.monotonic()
        if ended:
            self.trainer.terminate()

    def _report(self, figures: Mapping[str, float]) -> None:
        if figures and self._log:
            self._log({"step": self.step, "minutes": self.seconds / 60, **figures})


def _moving_average(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """Exponential moving average of weights, short at first."""
    decay = min(MAX_EMA_DECAY, (1 + int(count)) / (20 + int(count)))
    return mean.lerp(new, 1 - decay)


def _random_states(device: torch.device) -> list[Tensor]:
    """Return the states of torch's generators in all processes, one row for each process."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    if idist.get_world_size() == 1:
        return [state[None] for state in states]
    everywhere = []
    for state in states:
        rows = idist.all_gather(state[None])
        assert isinstance(rows, Tensor)
        everywhere.append(rows.cpu())
    return everywhere


def _set_random_states(states: list[Tensor], device: torch.device) -> None:
    """Restore the generators, unless the number of processes has changed."""
    rank = idist.get_rank()
    if len(states[0]) == idist.get_world_size():
        own = [rows[rank].clone() for rows in states]  # torch crashes with a view of a later row
        torch.set_rng_state(own[0])
        if device.type == "cuda" and len(own) > 1:
            torch.cuda.set_rng_state(own[1], device)
