"""The objective of a site's labels: label prompts and adapters, with or without LAD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor
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
from causal_sam.training.adversary import train_adversary
from causal_sam.training.engine import LoopConfig, Objective, TrainingEngine
from causal_sam.training.losses import label_map_loss
from causal_sam.training.processes import gathered, summed
from causal_sam.training.style_pairs import LabelledSlices, StylePairDataset

# Share of the training in which the learning rates rise: Adam does not know at first how large gradients are, and would
# undo what was learned before.
WARM_UP = 0.05


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training of label prompts and adapters.

    Attributes:
        steps: number of optimizer steps, if ``minutes`` is 0.
        minutes: time of training instead of a number of steps, if above 0.
        batch: images per step in each process.
        pairs: anatomies per step that are seen twice, under their own style and under a second one; all others, or all
            where there are no second styles, are seen once. So a step costs the same with and without them.
        learning_rate: highest learning rate of the label prompt and the heads.
        adapter_rate: highest learning rate of the adapters.
        decoded: anatomies per step that go through the mask decoder, with one label each, in all their styles.
        clicked: share of the decoded masks that are prompted by a click, not by the name.
        amp: True for automatic mixed precision.
        seed: seed of all random choices.
        area_power: power of the labels' areas in the loss when training begins; it rises to 1. At 0 small structures
            count as much as large ones and are found at all, at 1 they get the right size.
        varied: True to deform anatomies and to change intensities, beside moving them: few patients do not show what
            others look like.
        adapters: size of the adapters; None to train the label prompt alone.
        lad: weights of the terms of LAD.

    Raises:
        InputError: a number is out of range.
    """

    steps: int = 2000
    minutes: float = 0.0
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
    adapters: AdapterConfig | None = field(default_factory=AdapterConfig)
    lad: LadConfig = field(default_factory=LadConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 4:
            raise InputError(
                f"Training needs at least one step and a batch of at least 4, not {self.steps} and {self.batch}."
            )
        if not self.minutes >= 0:
            raise InputError(f"minutes must be above 0, or 0 for a number of steps, and not {self.minutes}.")
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


class AdapterObjective(Objective):
    """A frozen model with label prompt and adapters, and the loss that trains these.

    Args:
        model: without adapters; gets them, if the configuration has some.
        prompt: the label prompt.
        vectors: LxD, text vectors of the L label names.
        config: parts that are trained, and the weights of the loss.

    Attributes:
        trainable_share: share of the kept parameters that train; the heads of LAD are not kept.

    Raises:
        InputError: 9 % of the model or more would train.
    """

    vectors: Tensor

    def __init__(self, model: CausalSam, prompt: LabelPrompt, vectors: Tensor, config: TrainingConfig) -> None:
        super().__init__()
        model.requires_grad_(False)
        self._adapters = [] if config.adapters is None else add_adapters(model, config.adapters)
        self.model, self.prompt, self.config = model, prompt, config
        self.lad = LadLoss(prompt.embed_dim, prompt.text_dim, config.lad)
        self.register_buffer("vectors", vectors, persistent=False)
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
            raise CheckpointError(f"These learned labels belong to another model than {self.model.name}.") from error
        if adapters:
            load_adapters(self.model, adapters)

    def metadata(self, names: Sequence[str], encoder: TextEncoder, slices: Mapping[str, int]) -> BundleMetadata:
        """Return the metadata of the bundle of label prompt and adapters.

        Args:
            names: label names, in the order of their vectors.
            encoder: text encoder of the vectors.
            slices: number of training slices of each label.
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
            self.model.decoder_hash(),
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Objective`; the adversary must keep up with the features all the time, so its rate stays."""
        return [
            {"params": self._adapters, "lr": self.config.adapter_rate},
            {"params": [*self.prompt.parameters(), *self.lad.head_parameters], "lr": self.config.learning_rate},
            {"params": self.lad.adversary_parameters, "lr": self.config.learning_rate, "scheduled": False},
        ]

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the loss of a batch of `StylePairDataset`, and its terms; of several processes, that of all batches.

        Args:
            batch: A anatomies, P of them in pairs.
            progress: completed share of the training, 0 to 1.
        """
        model, device = self.model, self.vectors.device
        batch = {key: value.to(device) for key, value in batch.items()}
        known = batch["known"]
        anatomies = len(known)
        pairs = len(batch["image"]) - anatomies
        shown = torch.cat([torch.arange(anatomies), torch.arange(pairs)]).to(device)
        embedding = model.encode(batch["image"])
        tokens, coarse = self.prompt(embedding, model.sam.prompt_encoder.get_dense_pe(), self.vectors, model.mask_size)
        # Overlaps are sums over many pixels, which half precision cannot represent.
        coarse = coarse.float()
        values = torch.arange(1, len(self.vectors) + 1, device=device)[:, None, None]
        truth = F.adaptive_avg_pool2d((batch["label"] == values).float(), model.mask_size)
        target, annotated = truth[shown], known[shown][..., None, None]
        # Labels that were not annotated are neither found nor there, so they add nothing to the loss.
        annotated_coarse = coarse.where(annotated, coarse.new_tensor(-MAX_COARSE_LOGIT))
        target = target * annotated
        power = self.config.area_power + (1 - self.config.area_power) * progress
        parts = {"drafts": label_map_loss(annotated_coarse, target, power, summed)}
        parts["decoded"] = self._decoded_loss(embedding, tokens, coarse, truth, batch, power)
        total = parts["drafts"] + parts["decoded"]
        if pairs and self.config.lad.is_enabled:
            ramp = reversal_ramp(progress)
            paired = torch.cat([torch.arange(pairs), anatomies + torch.arange(pairs)]).to(device)
            features, styles, found = (
                torch.cat([gathered(view) for view in x[paired].split(pairs)])
                for x in (embedding.features.float(), batch["style"], annotated_coarse)
            )
            with torch.autocast(device.type, enabled=False):
                terms = self.lad(features, styles, gathered(target[:pairs]), self.vectors, found, ramp)
            total = total + self.lad.weighted(terms, ramp)
            parts |= terms._asdict()
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """See `train_adversary`."""
        train_adversary(self.lad, optimizer)

    def _decoded_loss(
        self,
        embedding: Embedding,
        tokens: Tensor,
        coarse: Tensor,
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
                prompts = {"tokens": tokens[labels], "mask_logits": coarse[rows, labels][:, None]}
            logits = self._decode(embedding, rows, prompts).float()
            for anatomy in anatomies:
                views = logits[shown == anatomy]
                wanted = truth[anatomy, batch["decode"][anatomy]]
                losses.append(label_map_loss(views, wanted.expand_as(views), power))
        return torch.stack(losses).mean()

    def _decode(self, embedding: Embedding, rows: Tensor, prompts: dict[str, Any]) -> Tensor:
        """Logits Kx1xLxL of K prompts, each on the slice of its row."""
        if embedding.skips:
            return self.model.decode(embedding.at(rows), **prompts).logits
        # One after the other: SAM's decoder takes several prompts of one slice, not several slices.
        logits = []
        for k in range(len(rows)):
            one = {key: value[k : k + 1] for key, value in prompts.items()}
            logits.append(self.model.decode(embedding.at(rows[k : k + 1]), **one).logits)
        return torch.cat(logits)


def adapter_engine(objective: AdapterObjective, folder: Path | None = None, **options: Any) -> TrainingEngine:
    """Make the engine that trains an objective as its configuration says.

    Args:
        objective: objective on its device.
        folder: folder of the checkpoint; None for none.
        options: ``log`` and ``validate`` of `TrainingEngine`, and further fields of `LoopConfig`.
    """
    config = objective.config
    calls = {name: options.pop(name) for name in ("log", "validate") if name in options}
    loop = LoopConfig(steps=config.steps, minutes=config.minutes, amp=config.amp, warm_up=WARM_UP, **options)
    return TrainingEngine(objective, loop, folder, **calls)


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
    """Return the batches of this process, without end.

    Args:
        cases: labelled slices of the training cases.
        image_size: side of the model's input in pixels.
        encode: texts -> NxD vectors of descriptions.
        config: gives the composition of a batch.
        styled: True to show some anatomies under a second style.
        seed: seed of all random choices.
        workers: processes that make the batches; 0 for this one.
        weights: share of the samples that each case gives; equal shares by default.
    """
    pairs = config.pairs if styled else 0
    views = StylePairDataset(
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
