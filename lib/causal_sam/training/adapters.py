"""Training of adapters and label prompts, with or without LAD, in one process or in many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from causal_sam.errors import CheckpointError, InputError
from causal_sam.sam.adapter_bundle import BundleMetadata
from causal_sam.sam.adapters import MAX_SHARE, AdapterConfig, add_adapters, load_adapters
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.label_prompt import MAX_COARSE_LOGIT, LabelPrompt
from causal_sam.style.lad import LadConfig, LadLoss, reversal_ramp
from causal_sam.text import TextEncoder
from causal_sam.training.losses import LabelMapLoss, MaskLoss
from causal_sam.training.processes import gathered, summed
from causal_sam.training.style_pairs import LabelledSlices, Views

MAX_GRADIENT = 1.0
# Share of the training in which the learning rates rise: Adam does not know at first how large gradients are, and would
# undo what was learnt before.
WARM_UP = 0.05
# Remembered features in each of the adversary's own steps.
REMEMBERED_BATCH = 64


@dataclass(frozen=True)
class TrainingConfig:
    """How adapters are trained.

    Attributes:
        steps: of the optimiser.
        batch: images of a step in each process.
        pairs: how many anatomies of a step are seen twice, under their own style and under a second one; all others,
            or all where there are no second styles, are seen once. So a step costs the same with and without them.
        learning_rate: of the label prompt and the heads, the highest one; it falls to 0 along a cosine.
        adapter_rate: of the adapters.
        decoded: how many anatomies of a step go through the mask decoder, with one label each, in all their styles.
        clicked: share of the decoded masks that are prompted by a click, not by the name.
        amp: automatic mixed precision.
        seed: of all that is drawn.
        area_power: power of the labels' areas in the loss of masks when training begins; it rises to 1. At 0 small
            structures count as much as large ones and are found at all, at 1 they get the right size.
        varied: whether anatomies are bent, and images exposed differently, and not only moved: few patients are not all
            that there are.
        adapters: their size.
        lad: which terms count how much.

    Raises:
        InputError: a number is out of range.
    """

    steps: int = 2000
    batch: int = 8
    pairs: int = 3
    learning_rate: float = 3e-3
    adapter_rate: float = 1e-3
    decoded: int = 2
    clicked: float = 0.4
    amp: bool = False
    seed: int = 0
    area_power: float = 0.0
    varied: bool = False
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    lad: LadConfig = field(default_factory=LadConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 4:
            raise InputError(
                f"Training needs at least one step and a batch of at least 4, not {self.steps} and {self.batch}."
            )
        if not 2 <= self.pairs <= self.batch // 2:
            raise InputError(f"pairs must be 2 to {self.batch // 2}, half of the batch, and not {self.pairs}.")
        if not 1 <= self.decoded <= self.batch - self.pairs:
            raise InputError(
                f"decoded must be 1 to {self.batch - self.pairs}, the anatomies of a step, and not {self.decoded}."
            )
        for name in ("clicked", "area_power"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be between 0 and 1, and not {getattr(self, name)}.")
        if not (0 < self.learning_rate <= 1 and 0 < self.adapter_rate <= 1):
            raise InputError(
                "learning_rate and adapter_rate must be above 0 and at most 1, "
                f"not {self.learning_rate} and {self.adapter_rate}."
            )


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
        self.map_loss, self.mask_loss = LabelMapLoss(), MaskLoss()
        heads = [p for name, p in self.lad.named_parameters() if not name.startswith("adversary.")]
        self.groups = [
            {"params": adapters, "lr": config.adapter_rate},
            {"params": [*prompt.parameters(), *heads], "lr": config.learning_rate},
        ]
        kept = [*model.parameters(), *prompt.parameters()]
        self.trainable_share = sum(p.numel() for p in kept if p.requires_grad) / sum(p.numel() for p in kept)
        if self.trainable_share >= MAX_SHARE:
            raise InputError(
                f"{self.trainable_share:.1%} of the parameters of {model.name} would train, and it must be under "
                f"{MAX_SHARE:.0%}: choose a lower rank."
            )
        self.to(model.device)

    def start_from(self, prompt: dict[str, Tensor], adapters: dict[str, Tensor]) -> None:
        """Begin with what was trained before.

        Args:
            prompt: weights of the label prompt.
            adapters: weights of adapters of the same size; {} for new ones.

        Raises:
            CheckpointError: they belong to another model.
        """
        try:
            self.prompt.load_state_dict(prompt)
        except RuntimeError as error:
            raise CheckpointError(f"These taught labels belong to another model than {self.model.name}.") from error
        if adapters:
            load_adapters(self.model, adapters)

    def taught(self, names: Sequence[str], encoder: TextEncoder, slices: Mapping[str, int]) -> BundleMetadata:
        """What is to be said of the label prompt and the adapters when they are used.

        Args:
            names: of the labels, as the vectors are.
            encoder: that made the vectors.
            slices: how many slices of each label were learnt.
        """
        return BundleMetadata(
            tuple(names),
            encoder.name,
            encoder.fingerprint,
            self.model.encoder_hash(),
            self.prompt.text_dim,
            self.prompt.embed_dim,
            dict(slices),
            self.prompt.skip_channels,
            self.config.adapters,
        )

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the loss of a batch of `Views`, and its parts; of several processes, that of all their batches.

        Args:
            batch: of A anatomies, P of them in pairs.
            progress: share of the training that is done, 0..1.
        """
        model, device = self.model, self.vectors.device
        batch = {key: value.to(device) for key, value in batch.items()}
        known = batch["known"]
        anatomies = len(known)
        pairs = len(batch["image"]) - anatomies
        shown = torch.cat([torch.arange(anatomies), torch.arange(pairs)]).to(device)
        embedding = model.encode(batch["image"])
        tokens, drafts = self.prompt(embedding, model.sam.prompt_encoder.get_dense_pe(), self.vectors, model.mask_size)
        # Overlaps are sums over many pixels, which half precision does not hold.
        drafts = drafts.float()
        values = torch.arange(1, len(self.vectors) + 1, device=device)[:, None, None]
        truth = F.adaptive_avg_pool2d((batch["label"] == values).float(), model.mask_size)
        target, asked = truth[shown], known[shown][..., None, None]
        # Nothing is found where nothing is known, and so nothing is learnt there.
        asked_drafts, target = drafts.where(asked, drafts.new_tensor(-MAX_COARSE_LOGIT)), target * asked
        power = self.config.area_power + (1 - self.config.area_power) * progress
        parts = {"drafts": self.map_loss(asked_drafts, target, power, summed)}
        parts["decoded"] = self._decoded(embedding, tokens, drafts, truth, batch, power)
        total = parts["drafts"] + parts["decoded"]
        if pairs and self.config.lad.is_enabled:
            ramp = reversal_ramp(progress)
            paired = torch.cat([torch.arange(pairs), anatomies + torch.arange(pairs)]).to(device)
            features, styles, found = (
                torch.cat([gathered(view) for view in x[paired].split(pairs)])
                for x in (embedding.features.float(), batch["style"], asked_drafts)
            )
            with torch.autocast(device.type, enabled=False):
                terms = self.lad(features, styles, gathered(target[:pairs]), self.vectors, found, ramp)
            total = total + self.lad.weighted(terms, ramp)
            parts |= terms._asdict()
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    def _decoded(
        self,
        embedding: Embedding,
        tokens: Tensor,
        drafts: Tensor,
        truth: Tensor,
        batch: dict[str, Tensor],
        power: float,
    ) -> Tensor:
        """Loss of the decoder's masks of the chosen labels, in all their styles, from their names or from a click."""
        pairs = len(batch["image"]) - len(truth)
        chosen = torch.nonzero(batch["decode"] >= 0).flatten()
        clicked = ~batch["click"][chosen].isnan().any(-1).any(-1)
        losses = []
        for anatomies, by_click in ((chosen[~clicked], False), (chosen[clicked], True)):
            if not len(anatomies):
                continue
            second = anatomies[anatomies < pairs]
            rows = torch.cat([anatomies, len(truth) + second])
            shown = torch.cat([anatomies, second])
            labels = batch["decode"][shown]
            if by_click:
                points = batch["click"][shown]
                prompts = {"points": points, "point_labels": points.new_ones(len(points), 1)}
            else:
                prompts = {"tokens": tokens[labels], "mask_logits": drafts[rows, labels][:, None]}
            logits = self._decode(embedding, rows, prompts).float()
            for anatomy in anatomies:
                views = logits[shown == anatomy]
                wanted = truth[anatomy, batch["decode"][anatomy]]
                losses.append(self.mask_loss(views, wanted.expand_as(views), power))
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
        """Let the learning rates rise to the highest and fall to 0 along a cosine; the adversary's stays."""
        share = min(1.0, progress / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))
        for group, rate in zip(self.main.param_groups, self._highest, strict=True):
            group["lr"] = rate * share

    def zero_grad(self) -> None:
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)

    def step(self, scaler: torch.amp.GradScaler | None) -> None:
        """Change all parameters by their gradients, unscaled and limited; then let the adversary catch up."""
        if scaler is not None:
            for optimizer in self._all:
                scaler.unscale_(optimizer)
        parameters = [p for group in self.main.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
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


def batches(
    cases: Sequence[LabelledSlices],
    image_size: int,
    encode: Callable[[Sequence[str]], Tensor],
    config: TrainingConfig,
    *,
    styled: bool,
    seed: int,
    workers: int = 0,
    weights: Sequence[float] | None = None,
) -> DataLoader:
    """Make the batches of this process, for ever.

    Args:
        cases: to learn from.
        image_size: side of the model's input in pixels.
        encode: texts -> NxD vectors of descriptions.
        config: says what is in a batch.
        styled: whether some anatomies are seen under a second style.
        seed: of all that is drawn.
        workers: processes that make the batches; 0 for this one.
        weights: how often each case is shown, as shares; all alike by default.
    """
    pairs = config.pairs if styled else 0
    views = Views(
        cases,
        image_size,
        encode,
        anatomies=config.batch - pairs,
        pairs=pairs,
        seed=seed,
        decoded=config.decoded,
        clicked=config.clicked,
        weights=weights,
        varied=config.varied,
        rank=idist.get_rank(),
        processes=idist.get_world_size(),
    )
    return DataLoader(views, batch_size=None, num_workers=workers)


def make_trainer(
    learner: Learner, samples: Iterable[dict[str, Any]], schedule: Callable[[int], float] | None = None
) -> tuple[SupervisedTrainer, Optimizers]:
    """Make the engine that trains a learner.

    Args:
        learner: on its device.
        samples: batches, for ever.
        schedule: steps done -> share of the training that is done, the same in all processes; at 1 training ends, if
            it has not come to the last step before. By default the share of the steps.

    Returns:
        The engine, with one epoch of all steps, whose ``state.output`` has the loss and its parts as numbers, and the
        optimisers, whose state belongs into checkpoints.
    """
    config = learner.config
    schedule = schedule or (lambda steps: steps / config.steps)
    optimizers = Optimizers(learner)
    # Which parts are used differs from step to step: a click has no use for the token of a name.
    network = idist.auto_model(learner, find_unused_parameters=True)
    device = learner.vectors.device

    def update(engine: SupervisedTrainer, batch: dict[str, Any]) -> dict[str, float]:
        network.train()
        progress = min(schedule(engine.state.iteration - 1), 1.0)
        optimizers.set_progress(progress)
        optimizers.zero_grad()
        with torch.autocast(device.type, enabled=config.amp):
            losses = network(batch, progress)
        loss = losses["loss"]
        (loss if engine.scaler is None else engine.scaler.scale(loss)).backward()
        optimizers.step(engine.scaler)
        # Most parts are of the batches of all processes; what is not is averaged, as the gradients are.
        means = idist.all_reduce(torch.stack([*losses.values()]).detach()) / idist.get_world_size()
        return dict(zip(losses, means.tolist(), strict=True))

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
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(lambda _, step: config.steps > step and schedule(step) >= 1), trainer.terminate
    )
    return trainer, optimizers


class TrainableState:
    """What of a learner belongs into a checkpoint: all but the frozen weights."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._names = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}

    def state_dict(self) -> dict[str, Any]:
        state = self._learner.state_dict()
        return {name: state[name] for name in state if name in self._names or name.startswith("lad.")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._learner.load_state_dict(state, strict=False)
