"""Linguistic Adversarial Disentanglement: features that say where organs are, and no longer how the image was made.

After Causal-SAM-LLM (arXiv 2507.03585). Each batch holds anatomies under two styles, and for each image the text vector
of its style description. Three terms act on the features, and each of them contrasts images or structures with others,
because what is the same for every image would otherwise satisfy all three:

* the adversary looks for an image's own description among others, and the adapters hide it (gradient reversal after
  Ganin and Lempitsky, 2015), without letting the features of different images become alike;
* features inside a structure point to its name, and not to the names of other structures or to any style;
* masks of one anatomy under its two styles agree with each other, more than with masks of other anatomies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.errors import InputError

# Steepness of the ramp of the adversary's weight, as Ganin and Lempitsky have it.
RAMP_STEEPNESS = 10.0
HIDDEN = 256
# Descriptions remembered beside those of the batch.
BANK_SIZE = 256
# Share of the spread of the frozen features that must be left, when style no longer adds to it.
SPREAD_KEPT = 0.5
# Batches over which the frozen features' spread is measured, at the beginning, when the adapters do nothing yet.
MEASURED_BATCHES = 10
# Pixels of the embedding, in all, below which a structure is too small to be pooled.
SMALLEST_STRUCTURE = 1.0


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """Return ``x``; on the way back its gradient is multiplied by ``-weight``."""
    return _Reversal.apply(x, weight)


def reversal_ramp(progress: float) -> float:
    """Weight of the reversed gradient, from 0 at the beginning of training to nearly 1 at its end.

    2 / (1 + exp(-10 p)) - 1, as in Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation" (2015).

    Args:
        progress: share p of the training that is done, 0..1.
    """
    return 2.0 / (1.0 + math.exp(-RAMP_STEEPNESS * progress)) - 1.0


def info_nce(queries: Tensor, bank: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each query's own entry in a bank by cosine similarity.

    Args:
        queries: BxD, of any length.
        bank: KxD, of any length.
        own: B indices into the bank.
        temperature: divides the similarities.

    Returns:
        B losses; log K where the query says nothing.
    """
    similarity = F.normalize(queries, dim=-1) @ F.normalize(bank, dim=-1).T
    return F.cross_entropy(similarity / temperature, own, reduction="none")


def anatomical_loss(projected: Tensor, names: Tensor, own: Tensor, styles: Tensor, temperature: float) -> Tensor:
    """Pull features pooled inside structures to the structures' names, away from other names and from styles.

    -log(e^{cos(Pg, t_label)/τ} / (e^{cos(Pg, t_label)/τ} + Σ_j e^{cos(Pg, t_j)/τ})), where j runs over the style
    descriptions and over the other names. With styles alone as negatives, one and the same feature for every structure
    would do: names of organs are nearer to each other than to any description of a style.

    Args:
        projected: NxD, features Pg of N structures in text space.
        names: LxD vectors of the label names.
        own: N indices into ``names``.
        styles: KxD vectors of style descriptions.
        temperature: τ.

    Returns:
        N losses.
    """
    return info_nce(projected, torch.cat([names, styles]), own, temperature)


def soft_dice(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of every mask of one set with every mask of another: 2<a, b> / (<a, a> + <b, b>).

    Args:
        a: BxP probabilities of P pixels.
        b: CxP.

    Returns:
        BxC in [0, 1]; 1 for equal masks, also for equal unsure ones.
    """
    squares = a.square().sum(-1)[:, None] + b.square().sum(-1)[None]
    return 2 * (a @ b.T) / squares.clamp(min=1e-6)


def consistency_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Masks of one anatomy under two styles must agree, and more so than masks of different anatomies do.

    Args:
        first: BxNxhxw logits of N labels under the first style.
        second: the same anatomies under the second.
        temperature: of the contrast between anatomies; their similarity is the masks' overlap.

    Returns:
        B losses: 1 - overlap of the two masks, plus the cross-entropy of finding the second among all of the batch,
        in both directions. The latter is log B for masks that do not depend on the image.
    """
    a, b = first.sigmoid().flatten(1), second.sigmoid().flatten(1)
    overlap = soft_dice(a, b)
    own = torch.arange(len(a), device=a.device)
    contrast = F.cross_entropy(overlap / temperature, own, reduction="none")
    contrast = contrast + F.cross_entropy(overlap.T / temperature, own, reduction="none")
    return 1 - overlap.diagonal() + contrast / 2


def spread(features: Tensor) -> Tensor:
    """Standard deviation of features BxC over the batch, all channels together; 0 for a constant feature."""
    return features.var(0, unbiased=False).sum().clamp(min=1e-12).sqrt()


def pool_inside(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Average features inside structures.

    Args:
        features: BxCxhxw.
        masks: BxNxhxw in [0, 1], the share of each position that is inside.

    Returns:
        BxNxC means (zero where the structure is hardly there), and bool BxN, which of them are large enough to count.
    """
    area = masks.flatten(2).sum(-1)
    sums = torch.einsum("bchw,bnhw->bnc", features, masks)
    return sums / area.clamp(min=SMALLEST_STRUCTURE)[..., None], area >= SMALLEST_STRUCTURE


@dataclass(frozen=True)
class LadConfig:
    """Weights of the terms; 0 switches a term off.

    Attributes:
        adversary: highest weight of the reversed gradient; it is ramped up.
        spread: weight of what keeps the adversary from being defeated by features that are all alike.
        anatomy: weight of the anatomical term.
        consistency: weight of the agreement of the two masks.
        temperature: of all contrasts in text space.
        overlap_temperature: of the contrast between masks.
        adversary_steps: updates of the adversary alone in each step, on remembered features.

    Raises:
        InputError: a number is out of range.
    """

    adversary: float = 1.0
    spread: float = 1.0
    anatomy: float = 0.3
    consistency: float = 0.3
    temperature: float = 0.1
    overlap_temperature: float = 0.2
    adversary_steps: int = 2

    def __post_init__(self) -> None:
        for name in ("adversary", "spread", "anatomy", "consistency", "adversary_steps"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} of the LAD loss must not be negative, and {getattr(self, name)} is.")
        for name in ("temperature", "overlap_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} of the LAD loss must be above 0, not {getattr(self, name)}.")

    @property
    def is_on(self) -> bool:
        """Whether any term counts."""
        return self.adversary > 0 or self.anatomy > 0 or self.consistency > 0


class LadTerms(NamedTuple):
    """The terms of one batch, before their weights; zero where a term is off.

    Attributes:
        adversary: of the adversary: its cross-entropy, the lower the better it finds the style.
        spread: by how much the features of different anatomies have come closer to each other than they may; 0..1.
        anatomy: see `anatomical_loss`.
        consistency: see `consistency_loss`.
    """

    adversary: Tensor
    spread: Tensor
    anatomy: Tensor
    consistency: Tensor


class LadLoss(nn.Module):
    """The loss and its heads, which are needed in training only.

    Args:
        channels: C of the embedding.
        text_dim: D of the text vectors.
        config: which terms count how much.
    """

    def __init__(self, channels: int, text_dim: int, config: LadConfig) -> None:
        super().__init__()
        self.config = config
        if config.adversary:
            # Standardised input: an adversary that must first find the scale of the features lags behind them.
            self.adversary = nn.Sequential(
                nn.BatchNorm1d(channels, affine=False, track_running_stats=False),
                nn.Linear(channels, HIDDEN),
                nn.GELU(),
                nn.Linear(HIDDEN, text_dim),
            )
        if config.anatomy:
            self.projection = nn.Linear(channels, text_dim)
        self.register_buffer("frozen_spread", torch.zeros(()))
        self.register_buffer("measured", torch.zeros((), dtype=torch.long))
        # Filled with what was seen last.
        self.register_buffer("bank", torch.zeros(0, text_dim), persistent=False)
        self.register_buffer("remembered", torch.zeros(0, channels), persistent=False)
        self.register_buffer("remembered_styles", torch.zeros(0, text_dim), persistent=False)

    def forward(
        self,
        features: Tensor,
        styles: Tensor,
        masks: Tensor,
        names: Tensor,
        drafts: Tensor,
        ramp: float,
    ) -> LadTerms:
        """Return the terms of a batch of B anatomies under two styles.

        Args:
            features: 2BxCxhxw adapted features, all first styles, then all second ones in the same order.
            styles: 2BxD vectors of the style descriptions.
            masks: 2BxNxhxw truth of N labels at the features' resolution, in [0, 1].
            names: NxD vectors of the labels' names.
            drafts: 2BxNxLxL logits of the N labels.
            ramp: 0..1, share of the adversary's weight.
        """
        config, zero = self.config, features.new_zeros(())
        bank, own = self._look_up(styles)
        pooled = features.mean((-2, -1))
        adversary = spread = anatomy = consistency = zero
        if config.adversary:
            found = self.adversary(reverse_gradient(pooled, config.adversary * ramp))
            adversary = info_nce(found, bank, own, config.temperature).mean()
            spread = self._lost_spread(pooled.unflatten(0, (2, -1)).mean(0))
            self._remember(pooled.detach(), styles)
        if config.anatomy:
            inside, present = pool_inside(features, masks)
            which = present.nonzero()[:, 1]
            if len(which):
                projected = self.projection(inside[present])
                anatomy = anatomical_loss(projected, names, which, bank, config.temperature).mean()
        if config.consistency:
            first, second = drafts.chunk(2)
            consistency = consistency_loss(first, second, config.overlap_temperature).mean()
        return LadTerms(adversary, spread, anatomy, consistency)

    def weighted(self, terms: LadTerms, ramp: float) -> Tensor:
        """Return the sum to minimise; the adversary's own term is never ramped, only what the features get of it."""
        config = self.config
        return (
            terms.adversary
            + config.spread * ramp * terms.spread
            + config.anatomy * terms.anatomy
            + config.consistency * terms.consistency
        )

    def adversary_loss(self, count: int) -> Tensor | None:
        """Return the adversary's loss on ``count`` features of earlier batches; None before there are two."""
        if len(self.remembered) < 2:
            return None
        chosen = torch.randperm(len(self.remembered), device=self.remembered.device)[:count]
        bank, own = self._look_up(self.remembered_styles[chosen])
        return info_nce(self.adversary(self.remembered[chosen]), bank, own, self.config.temperature).mean()

    def _lost_spread(self, anatomies: Tensor) -> Tensor:
        """Share of the spread that is missing, of BxC features that are means over both styles of an anatomy."""
        found = spread(anatomies)
        if self.training and self.measured < MEASURED_BATCHES:
            self.frozen_spread += (found.detach() - self.frozen_spread) / (self.measured + 1)
            self.measured += 1
        return F.relu(1 - found / (SPREAD_KEPT * self.frozen_spread).clamp(min=1e-6))

    def _look_up(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """The bank with the styles in it, each once, and where each of them is."""
        bank, index = torch.unique(torch.cat([styles, self.bank.to(styles)]), dim=0, return_inverse=True)
        return bank, index[: len(styles)]

    @torch.no_grad()
    def _remember(self, pooled: Tensor, styles: Tensor) -> None:
        self.bank = torch.unique(torch.cat([styles, self.bank]), dim=0)
        if len(self.bank) > BANK_SIZE:
            keep = torch.randperm(len(self.bank), device=self.bank.device)[:BANK_SIZE]
            self.bank = self.bank[keep]
        self.remembered = torch.cat([pooled.float(), self.remembered])[: 2 * BANK_SIZE]
        self.remembered_styles = torch.cat([styles, self.remembered_styles])[: 2 * BANK_SIZE]
