"""Linguistic Adversarial Disentanglement: features that say where organs are, and no longer how the image was made.

After Causal-SAM-LLM (arXiv 2507.03585). Each batch holds anatomies under two styles, and for each image the text vector
of its style description. The terms that act on the features contrast images or structures with others, because what is
the same for every image would otherwise satisfy them all:

* the adversary looks for an image's own description among others, and the adapters hide it (gradient reversal after
  Ganin and Lempitsky, 2015), without letting the features of different images become alike;
* of the variance of the features, no share may come from the style: this is the invariance that the adversary is to
  bring about, asked of each pair of views directly, and it holds from the first step on, before there is an adversary
  that has learnt anything;
* features inside a structure point to its name, and not to the names of other structures or to any style;
* masks of one anatomy under its two styles agree with each other, in what is true.
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
MIN_STRUCTURE = 1.0


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
    """Share of the weights, from 0 at the beginning of training to nearly 1 at its end.

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


def consistency_loss(first: Tensor, second: Tensor, truth: Tensor) -> Tensor:
    """Masks of one anatomy under its two styles must agree: what both hold, and what either holds, must be the truth.

    The mean of 1 - Dice of p q and of 1 - Dice of p + q - p q, for probabilities p and q, so that it falls only where
    both styles are decided alike and rightly. Agreement alone, 1 - Dice of p and q, would have its best value for masks
    that do not depend on the image.

    Args:
        first: BxNxhxw logits of N labels, which exclude each other, under the first style.
        second: the same anatomies under the second.
        truth: BxNxhxw in [0, 1].

    Returns:
        N losses; the overlap of a label is taken over the whole batch.
    """
    p, q = _shares(first), _shares(second)
    return 1 - (_overlap(p * q, truth) + _overlap(p + q - p * q, truth)) / 2


def _shares(logits: Tensor) -> Tensor:
    """Probabilities BxNxhxw of labels that exclude each other, by softmax over these and the background's logit 0."""
    return with_background(logits).softmax(1)[:, 1:]


def with_background(logits: Tensor) -> Tensor:
    """Put the background's logit 0 before those of N labels that exclude each other: BxNxhxw -> Bx(1+N)xhxw."""
    return torch.cat([logits.new_zeros(len(logits), 1, *logits.shape[2:]), logits], 1)


def _overlap(masks: Tensor, truth: Tensor) -> Tensor:
    """Dice of each label over the batch, BxNxhxw -> N; what is absent in both overlaps fully."""
    both = (masks * truth).sum((0, 2, 3))
    return (2 * both + 1) / (masks.square().sum((0, 2, 3)) + truth.square().sum((0, 2, 3)) + 1)


def spread(features: Tensor) -> Tensor:
    """Standard deviation of features BxC over the batch, all channels together; 0 for a constant feature."""
    return features.var(0, unbiased=False).sum().clamp(min=1e-12).sqrt()


def style_share(first: Tensor, second: Tensor) -> Tensor:
    """Share of the variance of features that the style makes: 0 if the same anatomy has the same feature under both.

    Var_style / (Var_style + Var_anatomy) of each channel, averaged: Var_style is the variance about the mean of an
    anatomy's two styles, Var_anatomy that of these means. A constant feature has 1/2.

    Args:
        first: NxC features of N anatomies, or places of these, under the first style.
        second: the same under the second.
    """
    by_style = (first - second).square().mean(0) / 4
    by_anatomy = ((first + second) / 2).var(0, unbiased=False)
    least = 1e-6
    return ((by_style + least) / (by_style + by_anatomy + 2 * least)).mean()


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
    return sums / area.clamp(min=MIN_STRUCTURE)[..., None], area >= MIN_STRUCTURE


@dataclass(frozen=True)
class LadConfig:
    """Highest weights of the terms, which are ramped up; 0 switches a term off.

    Attributes:
        adversary: weight of the reversed gradient.
        spread: weight of what keeps the adversary from being defeated by features that are all alike.
        invariance: weight of the share of the features' variance that the style makes.
        anatomy: weight of the anatomical term.
        consistency: weight of the agreement of the two masks.
        temperature: of the contrasts in text space.
        adversary_steps: updates of the adversary alone in each step, on remembered features.

    Raises:
        InputError: a number is out of range.
    """

    adversary: float = 0.05
    spread: float = 1.0
    invariance: float = 1.0
    anatomy: float = 0.05
    consistency: float = 0.3
    temperature: float = 0.1
    adversary_steps: int = 2

    def __post_init__(self) -> None:
        for name in ("adversary", "spread", "invariance", "anatomy", "consistency", "adversary_steps"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} of the LAD loss must not be negative, and {getattr(self, name)} is.")
        if not self.temperature > 0:
            raise InputError(f"temperature of the LAD loss must be above 0, not {self.temperature}.")

    @property
    def is_on(self) -> bool:
        """Whether any term counts."""
        return self.adversary > 0 or self.invariance > 0 or self.anatomy > 0 or self.consistency > 0


# All terms off: what is trained without LAD.
NO_LAD = LadConfig(adversary=0, spread=0, invariance=0, anatomy=0, consistency=0)


class LadTerms(NamedTuple):
    """The terms of one batch, before their weights; zero where a term is off.

    Attributes:
        adversary: of the adversary: its cross-entropy, the lower the better it finds the style.
        spread: by how much the features of different anatomies have come closer to each other than they may; 0..1.
        invariance: see `style_share`; mean of that of whole slices and that of all places.
        anatomy: see `anatomical_loss`.
        consistency: see `consistency_loss`.
    """

    adversary: Tensor
    spread: Tensor
    invariance: Tensor
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
        truth: Tensor,
        names: Tensor,
        drafts: Tensor,
        ramp: float,
    ) -> LadTerms:
        """Return the terms of a batch of B anatomies under two styles.

        Args:
            features: 2BxCxhxw adapted features, all first styles, then all second ones in the same order.
            styles: 2BxD vectors of the style descriptions.
            truth: BxNxLxL of N labels, in [0, 1]; both styles show the same.
            names: NxD vectors of the labels' names.
            drafts: 2BxNxLxL logits of the N labels.
            ramp: 0..1, share of the weights.
        """
        config, zero = self.config, features.new_zeros(())
        bank, own = self._look_up(styles)
        pooled = features.mean((-2, -1))
        adversary = spread = invariance = anatomy = consistency = zero
        if config.adversary:
            found = self.adversary(reverse_gradient(pooled, config.adversary * ramp))
            adversary = info_nce(found, bank, own, config.temperature).mean()
            spread = self._lost_spread(pooled.unflatten(0, (2, -1)).mean(0))
            self._remember(pooled.detach(), styles)
        if config.invariance:
            # Of the slices, which is what tells scanners apart, and of every place, which is what masks are made of.
            dense = features.movedim(1, -1).flatten(1, 2).unflatten(0, (2, -1)).flatten(1, 2)
            invariance = (style_share(*pooled.chunk(2)) + style_share(*dense)) / 2
        if config.anatomy:
            masks = F.adaptive_avg_pool2d(truth, features.shape[-2:]).repeat(2, 1, 1, 1)
            inside, present = pool_inside(features, masks)
            which = present.nonzero()[:, 1]
            if len(which):
                projected = self.projection(inside[present])
                anatomy = anatomical_loss(projected, names, which, bank, config.temperature).mean()
        if config.consistency:
            first, second = drafts.chunk(2)
            consistency = consistency_loss(first, second, truth).mean()
        return LadTerms(adversary, spread, invariance, anatomy, consistency)

    def weighted(self, terms: LadTerms, ramp: float) -> Tensor:
        """Return the sum to minimise; the adversary's own loss is never ramped, only what the features get of it."""
        config = self.config
        return (
            terms.adversary
            + ramp * config.spread * terms.spread
            + ramp * config.invariance * terms.invariance
            + ramp * config.anatomy * terms.anatomy
            + ramp * config.consistency * terms.consistency
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
