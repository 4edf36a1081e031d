"""Linguistic Adversarial Disentanglement (LAD): features that encode anatomy but not imaging style.

After Causal-SAM-LLM (arXiv 2507.03585). Each batch has anatomies under two styles, and the text vector of the style
description of each image. All terms on features contrast images or structures with others, since constant features
would otherwise satisfy them:

* an adversary finds the description of an image among others, and the adapters hide it (gradient reversal after Ganin
  and Lempitsky, 2015), while the features of different anatomies must keep their spread;
* the share of the features' variance that is due to style is minimised directly on each pair of styles, which acts from
  the first step on, before the adversary is trained;
* features inside a structure point to its name, not to the names of other structures or to styles;
* masks of one anatomy under its two styles agree with each other and with the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.errors import InputError

# Steepness of the ramp of the weights, as in Ganin and Lempitsky.
RAMP_STEEPNESS = 10.0
HIDDEN = 256
# Number of descriptions of earlier batches for the contrast.
BANK_SIZE = 256
# Minimum spread of the adapted features, as a share of that of the frozen features.
MIN_SPREAD_SHARE = 0.5
# Number of first batches over which the spread of the frozen features is measured, while the adapters are the identity.
MEASURED_BATCHES = 10
# Minimum area of a structure for pooling, in pixels of the embedding.
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
    """Return ``x``, with its gradient multiplied by ``-weight`` in the backward pass."""
    return _Reversal.apply(x, weight)


def reversal_ramp(progress: float) -> float:
    """Return the share of the weights, which rises from 0 at the start of training to nearly 1 at its end.

    2 / (1 + exp(-10 p)) - 1, as in Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation" (2015).

    Args:
        progress: completed share p of the training, in [0, 1].
    """
    return 2.0 / (1.0 + math.exp(-RAMP_STEEPNESS * progress)) - 1.0


def info_nce(queries: Tensor, bank: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of each query with its own entry in a bank, by cosine similarity (InfoNCE).

    Args:
        queries: BxD vectors of any norm.
        bank: KxD vectors of any norm.
        own: B indices of the queries' own entries.
        temperature: divisor of the similarities.

    Returns:
        B losses; log K for an uninformative query.
    """
    similarity = F.normalize(queries, dim=-1) @ F.normalize(bank, dim=-1).T
    return F.cross_entropy(similarity / temperature, own, reduction="none")


def anatomical_loss(projected: Tensor, names: Tensor, own: Tensor, styles: Tensor, temperature: float) -> Tensor:
    """Return the loss that pulls features of structures to their names, away from other names and from styles.

    -log(e^{cos(Pg, t_label)/τ} / (e^{cos(Pg, t_label)/τ} + Σ_j e^{cos(Pg, t_j)/τ})), where j runs over the style
    descriptions and the other names. With styles alone as negatives, one feature for all structures would suffice,
    since names of organs are nearer to each other than to descriptions of styles.

    Args:
        projected: NxD, features Pg of N structures in text space.
        names: LxD text vectors of the label names.
        own: N indices into ``names``.
        styles: KxD text vectors of the style descriptions.
        temperature: τ.

    Returns:
        N losses.
    """
    return info_nce(projected, torch.cat([names, styles]), own, temperature)


def consistency_loss(first: Tensor, second: Tensor, truth: Tensor) -> Tensor:
    """Return the loss for masks of an anatomy under two styles: their intersection and union must equal the truth.

    It is the mean of 1 - Dice of p q and of 1 - Dice of p + q - p q, for probabilities p and q, and falls only if both
    masks agree and are correct. Agreement alone, 1 - Dice of p and q, is optimal for masks that ignore the image.

    Args:
        first: BxNxhxw logits of N mutually exclusive labels under the first style.
        second: logits of the same anatomies under the second style.
        truth: BxNxhxw true masks in [0, 1].

    Returns:
        N losses; the Dice of a label is taken over the whole batch.
    """
    p, q = _label_probabilities(first), _label_probabilities(second)
    return 1 - (_batch_dice(p * q, truth) + _batch_dice(p + q - p * q, truth)) / 2


def _label_probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of N mutually exclusive labels, by softmax with background: BxNxhxw -> BxNxhxw."""
    return with_background(logits).softmax(1)[:, 1:]


def with_background(logits: Tensor) -> Tensor:
    """Prepend the background's logit 0 to those of N mutually exclusive labels: BxNxhxw -> Bx(1+N)xhxw."""
    return torch.cat([logits.new_zeros(len(logits), 1, *logits.shape[2:]), logits], 1)


def _batch_dice(masks: Tensor, truth: Tensor) -> Tensor:
    """Return the Dice of each label over the batch, BxNxhxw -> N; 1 for labels that are absent in both."""
    both = (masks * truth).sum((0, 2, 3))
    return (2 * both + 1) / (masks.square().sum((0, 2, 3)) + truth.square().sum((0, 2, 3)) + 1)


def spread(features: Tensor) -> Tensor:
    """Return the standard deviation of features BxC over the batch, for all channels together."""
    return features.var(0, unbiased=False).sum().clamp(min=1e-12).sqrt()


def style_share(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of the features' variance that is due to style; 0 for features independent of style.

    It is the mean over channels of Var_style / (Var_style + Var_anatomy): Var_style is the variance about the mean of
    an anatomy's two styles, Var_anatomy that of these means. A constant feature has 1/2.

    Args:
        first: NxC features of N anatomies, or positions of these, under the first style.
        second: the same under the second style.
    """
    by_style = (first - second).square().mean(0) / 4
    by_anatomy = ((first + second) / 2).var(0, unbiased=False)
    epsilon = 1e-6
    return ((by_style + epsilon) / (by_style + by_anatomy + 2 * epsilon)).mean()


def pool_inside(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Average features inside structures.

    Args:
        features: BxCxhxw.
        masks: BxNxhxw in [0, 1], share of each position inside the structure.

    Returns:
        BxNxC means, and bool BxN: whether the structure is large enough.
    """
    area = masks.flatten(2).sum(-1)
    sums = torch.einsum("bchw,bnhw->bnc", features, masks)
    return sums / area.clamp(min=MIN_STRUCTURE)[..., None], area >= MIN_STRUCTURE


@dataclass(frozen=True)
class LadConfig:
    """Final weights of the terms, which are ramped up; 0 disables a term.

    Attributes:
        adversary: weight of the reversed gradient.
        spread: weight of the term that prevents features of different anatomies from collapsing.
        invariance: weight of the share of variance due to style.
        anatomy: weight of the anatomical term.
        consistency: weight of the consistency of the masks under two styles.
        temperature: temperature of the contrasts in text space.
        adversary_steps: updates of the adversary alone in each step, on features of earlier batches.

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
    def is_enabled(self) -> bool:
        """Return whether any term is enabled."""
        return self.adversary > 0 or self.invariance > 0 or self.anatomy > 0 or self.consistency > 0


# Training without LAD.
NO_LAD = LadConfig(adversary=0, spread=0, invariance=0, anatomy=0, consistency=0)


class LadTerms(NamedTuple):
    """The unweighted terms of one batch; 0 for disabled terms.

    Attributes:
        adversary: cross-entropy of the adversary.
        spread: missing share of the minimum spread of different anatomies, in [0, 1].
        invariance: mean of `style_share` of pooled features and of all positions.
        anatomy: see `anatomical_loss`.
        consistency: see `consistency_loss`.
    """

    adversary: Tensor
    spread: Tensor
    invariance: Tensor
    anatomy: Tensor
    consistency: Tensor


class LadLoss(nn.Module):
    """The LAD loss with its heads, which are used in training only.

    Args:
        channels: number of channels C of the embedding.
        text_dim: dimension D of the text vectors.
        config: weights of the terms.
    """

    frozen_spread: Tensor
    measured: Tensor

    def __init__(self, channels: int, text_dim: int, config: LadConfig) -> None:
        super().__init__()
        self.config = config
        if config.adversary:
            # Standardised input spares the adversary from tracking the scale of the features.
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
        # Descriptions and features of the latest batches. Not buffers: an average of the weights copies buffers, which
        # must keep their size.
        self.bank = torch.zeros(0, text_dim)
        self.past_features = torch.zeros(0, channels)
        self.past_styles = torch.zeros(0, text_dim)

    def forward(
        self, features: Tensor, styles: Tensor, truth: Tensor, names: Tensor, logits: Tensor, ramp: float
    ) -> LadTerms:
        """Return the terms of a batch of B anatomies under two styles.

        Args:
            features: 2BxCxhxw adapted features: all first styles, then all second ones in the same order.
            styles: 2BxD text vectors of the style descriptions.
            truth: BxNxLxL true masks of N labels in [0, 1], equal for both styles.
            names: NxD text vectors of the label names.
            logits: 2BxNxLxL logits of the N labels.
            ramp: share of the weights, in [0, 1].
        """
        config, zero = self.config, features.new_zeros(())
        bank, own = self._look_up(styles)
        pooled = features.mean((-2, -1))
        adversary = spread = invariance = anatomy = consistency = zero
        if config.adversary:
            found = self.adversary(reverse_gradient(pooled, config.adversary * ramp))
            adversary = info_nce(found, bank, own, config.temperature).mean()
            spread = self._missing_spread(pooled.unflatten(0, (2, -1)).mean(0))
            self._remember(pooled.detach(), styles)
        if config.invariance:
            # Pooled features distinguish scanners; features of all positions determine masks.
            dense = features.movedim(1, -1).flatten(1, 2).unflatten(0, (2, -1)).flatten(1, 2)
            invariance = (style_share(*pooled.chunk(2)) + style_share(*dense)) / 2
        if config.anatomy:
            masks = F.adaptive_avg_pool2d(truth, (features.shape[-2], features.shape[-1])).repeat(2, 1, 1, 1)
            inside, present = pool_inside(features, masks)
            which = present.nonzero()[:, 1]
            if len(which):
                projected = self.projection(inside[present])
                anatomy = anatomical_loss(projected, names, which, bank, config.temperature).mean()
        if config.consistency:
            first, second = logits.chunk(2)
            consistency = consistency_loss(first, second, truth).mean()
        return LadTerms(adversary, spread, invariance, anatomy, consistency)

    def weighted(self, terms: LadTerms, ramp: float) -> Tensor:
        """Return the weighted sum; the adversary's own loss is not ramped, only its gradient on the features."""
        config = self.config
        return (
            terms.adversary
            + ramp * config.spread * terms.spread
            + ramp * config.invariance * terms.invariance
            + ramp * config.anatomy * terms.anatomy
            + ramp * config.consistency * terms.consistency
        )

    @property
    def adversary_parameters(self) -> list[nn.Parameter]:
        """Parameters of the adversary; none if it is disabled."""
        return list(self.adversary.parameters()) if self.config.adversary else []

    @property
    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters of the other heads."""
        return [p for name, p in self.named_parameters() if not name.startswith("adversary.")]

    def adversary_loss(self, count: int) -> Tensor | None:
        """Return the adversary's loss on ``count`` features of earlier batches; None for fewer than two."""
        if len(self.past_features) < 2:
            return None
        chosen = torch.randperm(len(self.past_features), device=self.past_features.device)[:count]
        bank, own = self._look_up(self.past_styles[chosen])
        return info_nce(self.adversary(self.past_features[chosen]), bank, own, self.config.temperature).mean()

    def _missing_spread(self, anatomies: Tensor) -> Tensor:
        """Return the missing share of the minimum spread, for BxC means over both styles of each anatomy."""
        found = spread(anatomies)
        if self.training and self.measured < MEASURED_BATCHES:
            self.frozen_spread += (found.detach() - self.frozen_spread) / (self.measured + 1)
            self.measured += 1
        return F.relu(1 - found / (MIN_SPREAD_SHARE * self.frozen_spread).clamp(min=1e-6))

    def _look_up(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bank of distinct descriptions including ``styles``, and the indices of ``styles`` in it."""
        bank, index = torch.unique(torch.cat([styles, self.bank.to(styles)]), dim=0, return_inverse=True)
        return bank, index[: len(styles)]

    @torch.no_grad()
    def _remember(self, pooled: Tensor, styles: Tensor) -> None:
        self.bank = torch.unique(torch.cat([styles, self.bank.to(styles)]), dim=0)
        if len(self.bank) > BANK_SIZE:
            keep = torch.randperm(len(self.bank), device=self.bank.device)[:BANK_SIZE]
            self.bank = self.bank[keep]
        self.past_features = torch.cat([pooled.float(), self.past_features.to(pooled.device)])[: 2 * BANK_SIZE]
        self.past_styles = torch.cat([styles, self.past_styles.to(styles)])[: 2 * BANK_SIZE]
