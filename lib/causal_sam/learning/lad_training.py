"""Training of adapters and label prompts, with or without LAD, in one process or in many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.errors import InputError
from causal_sam.learning.losses import MaskLoss
from causal_sam.prompting.annotator import deepest_point
from causal_sam.sam.adapters import LARGEST_SHARE, AdapterConfig, add_adapters
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.label_prompt import DRAFT_CLAMP, LabelPrompt
from causal_sam.style.lad import LadConfig, LadLoss, reversal_ramp

# Share of the decoded masks whose label is on the slice.
DECODED_PRESENT = 0.8
LARGEST_GRADIENT = 1.0
# Power of the areas in the loss of masks when training begins; it rises to 1.
SMALL_MATTER = 0.5
# Remembered features in each of the adversary's own steps.
REMEMBERED_BATCH = 64


@dataclass(frozen=True)
class TrainingConfig:
    """How adapters are trained.

    Attributes:
        steps: of the optimiser.
        batch: anatomies of a step in each process. Without a second style, twice as many are seen, so that a step
            costs the same.
        learning_rate: of the label prompt and the heads, the highest one; it falls to 0 along a cosine.
        adapter_rate: of the adapters.
        decoded: how many anatomies of a step go through the mask decoder, with one label each.
        clicked: share of the decoded masks that are prompted by a click, not by the name.
        amp: automatic mixed precision.
        seed: of all that is drawn.
        adapters: their size.
        lad: which terms count how much.

    Raises:
        InputError: a number is out of range.
    """

    steps: int = 2000
    batch: int = 4
    learning_rate: float = 3e-3
    adapter_rate: float = 1e-3
    decoded: int = 2
    clicked: float = 0.4
    amp: bool = False
    seed: int = 0
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    lad: LadConfig = field(default_factory=LadConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or not 1 <= self.decoded <= self.batch:
            raise InputError(
                "Training needs at least one step, a batch of at least 2 and decoded between 1 and the batch, not "
                f"{self.steps}, {self.batch} and {self.decoded}."
            )
        if not 0 <= self.clicked <= 1:
            raise InputError(f"clicked is a share, so between 0 and 1, and not {self.clicked}.")
        if not (self.learning_rate > 0 and self.adapter_rate > 0):
            raise InputError("learning_rate and adapter_rate must be above 0.")


class Learner(nn.Module):
    """All that trains, and the frozen model around it, as one module whose output is the loss.

    Args:
        model: without adapters; gets them.
        prompt: the label prompt.
        vectors: LxD, of the names to be taught.
        config: see there.

    Attributes:
        trainable_share: what trains of all that is kept after training; the heads of LAD are not.
        groups: parameters for the optimiser, without the adversary's.

    Raises:
        InputError: 9 % of the model or more would train.
    """

    def __init__(self, model: CausalSam, prompt: LabelPrompt, vectors: Tensor, config: TrainingConfig) -> None:
        super().__init__()
        adapters = add_adapters(model, config.adapters)
        self.model, self.prompt, self.config = model, prompt, config
        self.lad = LadLoss(prompt.embed_dim, prompt.text_dim, config.lad)
        self.register_buffer("vectors", vectors, persistent=False)
        self.mask_loss = MaskLoss()
        heads = [p for name, p in self.lad.named_parameters() if not name.startswith("adversary.")]
        self.groups = [
            {"params": adapters, "lr": config.adapter_rate},
            {"params": [*prompt.parameters(), *heads], "lr": config.learning_rate},
        ]
        kept = [*model.parameters(), *prompt.parameters()]
        self.trainable_share = sum(p.numel() for p in kept if p.requires_grad) / sum(p.numel() for p in kept)
        if self.trainable_share >= LARGEST_SHARE:
            raise InputError(
                f"{self.trainable_share:.1%} of the parameters of {model.name} would train, and it must be under "
                f"{LARGEST_SHARE:.0%}: choose a lower rank."
            )
        self.to(model.device)

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        """Return the loss of a batch of samples of `Views`, and its parts.

        Args:
            batch: ``image`` BxVx3xSxS, ``label`` Bx1xSxS, ``known`` BxL, ``style`` BxVxD.
            progress: share of the training that is done, 0..1.
        """
        model, device = self.model, self.vectors.device
        views = batch["image"].shape[1]
        # All first views, then all second ones, in the same order.
        images = batch["image"].to(device).transpose(0, 1).flatten(0, 1)
        styles = batch["style"].to(device).transpose(0, 1).flatten(0, 1)
        known = batch["known"].to(device)
        embedding = model.encode(images)
        tokens, drafts = self.prompt(embedding, model.sam.prompt_encoder.get_dense_pe(), self.vectors, model.mask_size)
        # Overlaps are sums over many pixels, which half precision does not hold.
        drafts = drafts.float()
        values = torch.arange(1, len(self.vectors) + 1, device=device)[:, None, None]
        truth = F.adaptive_avg_pool2d((batch["label"].to(device) == values).float(), model.mask_size)
        target, asked = (x.repeat(views, *[1] * (x.ndim - 1)) for x in (truth, known[..., None, None]))
        # Nothing is found where nothing is known, and so nothing is learnt there.
        asked_drafts, target = drafts.where(asked, drafts.new_tensor(-DRAFT_CLAMP)), target * asked
        # At first small structures must be found at all, at the end they must have the right size.
        power = SMALL_MATTER + (1 - SMALL_MATTER) * progress
        parts = {"drafts": self.mask_loss(asked_drafts, target, power)}
        parts["decoded"] = self._decoded(embedding, tokens, drafts, truth, known, views, power)
        total = parts["drafts"] + parts["decoded"]
        if views == 2 and self.config.lad.is_on:
            ramp = reversal_ramp(progress)
            here = target[: len(truth)]
            with torch.autocast(device.type, enabled=False):
                terms = self.lad(embedding.features.float(), styles, here, self.vectors, asked_drafts, ramp)
            total = total + self.lad.weighted(terms, ramp)
            parts |= terms._asdict()
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    def _decoded(
        self,
        embedding: Embedding,
        tokens: Tensor,
        drafts: Tensor,
        truth: Tensor,
        known: Tensor,
        views: int,
        power: float,
    ) -> Tensor:
        """Loss of the decoder's masks of a few labels, under every view, from their names or from a click."""
        named, clicked = [], []
        for b, n in self._choose(truth, known):
            click = self._click(truth[b, n]) if torch.rand(()) < self.config.clicked else None
            (named if click is None else clicked).append((b, n, click))
        losses = []
        for group in filter(None, (named, clicked)):
            rows = torch.tensor([view * len(truth) + b for b, _, _ in group for view in range(views)])
            labels = torch.tensor([n for _, n, _ in group]).repeat_interleave(views)
            if group is named:
                prompts = {"tokens": tokens[labels], "mask_logits": drafts[rows, labels][:, None]}
            else:
                points = torch.cat([click for _, _, click in group]).repeat_interleave(views, 0)
                prompts = {"points": points, "point_labels": points.new_ones(len(points), 1)}
            logits = self._decode(embedding, rows, prompts).float().split(views)
            for (b, n, _), under_views in zip(group, logits, strict=True):
                losses.append(self.mask_loss(under_views, truth[b, n].expand_as(under_views), power))
        return torch.stack(losses).mean()

    def _decode(self, embedding: Embedding, rows: Tensor, prompts: dict[str, Tensor]) -> Tensor:
        """Logits Kx1xLxL of K prompts, each on the slice of its row."""
        if embedding.skips:
            return self.model.decode(embedding.at(rows), **prompts).logits
        # One after the other: SAM's decoder takes several prompts of one slice, not several slices.
        logits = []
        for k in range(len(rows)):
            one = {key: value[k : k + 1] for key, value in prompts.items()}
            logits.append(self.model.decode(embedding.at(rows[k : k + 1]), **one).logits)
        return torch.cat(logits)

    def _choose(self, truth: Tensor, known: Tensor) -> list[tuple[int, int]]:
        """Slices and labels to decode, mostly such that are there."""
        present = truth.flatten(2).amax(2) > 0.5
        chosen = []
        for _ in range(self.config.decoded):
            wanted = known & (present if torch.rand(()) < DECODED_PRESENT else ~present)
            pairs = torch.nonzero(wanted if wanted.any() else known)
            b, n = pairs[torch.randint(len(pairs), ())].tolist()
            chosen.append((b, n))
        return chosen

    def _click(self, target: Tensor) -> Tensor | None:
        """The click 1x1x2 that a person would make on a structure; None if it is not there."""
        inside = (target > 0.5).to("cpu", torch.uint8).numpy()
        if not inside.any():
            return None
        row, column = deepest_point(inside, np.random.default_rng(int(torch.randint(2**31, ()))))
        scale = self.model.image_size / len(inside)
        return torch.tensor([[[(column + 0.5) * scale - 0.5, (row + 0.5) * scale - 0.5]]], device=target.device)


class Optimizers:
    """The optimiser of what is kept, and that of the adversary, which must keep up with the features.

    Args:
        learner: whose parameters they change.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.main = idist.auto_optim(torch.optim.AdamW(learner.groups, weight_decay=0.01))
        adversary = learner.lad.adversary.parameters() if learner.config.lad.adversary else ()
        self._opponents = list(adversary)
        self.adversary = (
            torch.optim.AdamW(self._opponents, lr=learner.config.learning_rate) if self._opponents else None
        )
        self._all = [optimizer for optimizer in (self.main, self.adversary) if optimizer is not None]
        self._highest = [group["lr"] for group in self.main.param_groups]

    def set_progress(self, progress: float) -> None:
        """Let the learning rates fall from the highest to 0 along a cosine; the adversary's stays."""
        for group, rate in zip(self.main.param_groups, self._highest, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress))

    def zero_grad(self) -> None:
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)

    def step(self, scaler: torch.amp.GradScaler | None) -> None:
        """Change all parameters by their gradients, unscaled and limited; then let the adversary catch up."""
        if scaler is not None:
            for optimizer in self._all:
                scaler.unscale_(optimizer)
        parameters = [p for group in self.main.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        for optimizer in self._all:
            optimizer.step() if scaler is None else scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
        if self.adversary is not None:
            self._catch_up()

    def _catch_up(self) -> None:
        config = self._learner.config
        for _ in range(config.lad.adversary_steps):
            loss = self._learner.lad.adversary_loss(REMEMBERED_BATCH)
            if loss is None:
                return
            self.adversary.zero_grad(set_to_none=True)
            loss.backward()
            for parameter in self._opponents:  # outside of what averages the gradients of all processes by itself
                parameter.grad = idist.all_reduce(parameter.grad) / idist.get_world_size()
            self.adversary.step()

    def state_dict(self) -> dict[str, Any]:
        adversary = None if self.adversary is None else self.adversary.state_dict()
        return {"main": self.main.state_dict(), "adversary": adversary}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.main.load_state_dict(state["main"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])


def make_trainer(learner: Learner, samples: Iterable[dict[str, Any]]) -> tuple[SupervisedTrainer, Optimizers]:
    """Make the engine that trains a learner for the steps of its configuration.

    Args:
        learner: on its device.
        samples: batches, for ever.

    Returns:
        The engine, with one epoch of all steps, whose ``state.output`` has the loss and its parts as numbers, and the
        optimisers, whose state belongs into checkpoints.
    """
    config = learner.config
    optimizers = Optimizers(learner)
    # Which parts are used differs from step to step: a click has no use for the token of a name.
    network = idist.auto_model(learner, find_unused_parameters=True)
    device = learner.vectors.device

    def update(engine: SupervisedTrainer, batch: dict[str, Any]) -> dict[str, float]:
        network.train()
        progress = (engine.state.iteration - 1) / config.steps
        optimizers.set_progress(progress)
        optimizers.zero_grad()
        with torch.autocast(device.type, enabled=config.amp):
            losses = network(batch, progress)
        loss = losses["loss"]
        (loss if engine.scaler is None else engine.scaler.scale(loss)).backward()
        optimizers.step(engine.scaler)
        return {name: value.item() for name, value in losses.items()}

    trainer = SupervisedTrainer(
        device=device,
        max_epochs=1,
        epoch_length=config.steps,
        train_data_loader=samples,
        network=network,
        optimizer=optimizers.main,
        loss_function=learner.mask_loss,
        iteration_update=update,
        # Scales the loss where float16 needs it; bfloat16, on processors, does not.
        amp=config.amp and device.type == "cuda",
        decollate=False,
    )
    return trainer, optimizers
