"""Modulation of the frozen mask decoder by text (FiLM), inside a region.

After Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer" (2018), and Causal-SAM-LLM (arXiv
2507.03585). Features F of some levels of the decoder become F (1 + s r gamma) + s r beta: gamma and beta come from the
sentence, s is the strength and r the region. Strength 0 and region 0 are the identity to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.sam.causal_sam import CausalSam

HIDDEN = 128
# Attribute of decoders with the hooks of `make_modulable`.
_MODULABLE = "causal_sam_is_modulable"


class Modulation(NamedTuple):
    """Scale and shift of the features of B prompts.

    Attributes:
        gammas: scales of each level, BxC.
        betas: the same.
        region: Bx1xLxL in [0, 1], on the model's mask grid, times the strength.
    """

    gammas: tuple[Tensor, ...]
    betas: tuple[Tensor, ...]
    region: Tensor

    def apply(self, level: int, features: Tensor) -> Tensor:
        """Modulate the features BxCxhxw of a level."""
        region = F.adaptive_avg_pool2d(self.region, (features.shape[-2], features.shape[-1])).to(features.dtype)
        gamma, beta = (each[level][..., None, None].to(features.dtype) for each in (self.gammas, self.betas))
        return features * (1 + region * gamma) + region * beta


# The modulation of this thread, since threads share a model.
_current: ContextVar[Modulation | None] = ContextVar("modulation", default=None)


class Film(nn.Module):
    """Maps sentences to modulations.

    Args:
        text_dim: length D of the sentences' vectors.
        channels: channels of each level, from `film_channels`.
    """

    def __init__(self, text_dim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.text_dim, self.channels = text_dim, tuple(channels)
        self.from_text = nn.Sequential(nn.Linear(text_dim, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU())
        self.to_levels = nn.Linear(HIDDEN, 2 * sum(channels))
        # An untrained film changes nothing.
        nn.init.zeros_(self.to_levels.weight)
        nn.init.zeros_(self.to_levels.bias)

    def forward(self, sentences: Tensor, strength: Tensor, region: Tensor) -> Modulation:
        """Return the modulation of B prompts.

        Args:
            sentences: BxD unit vectors of the interventions' canonical sentences.
            strength: B, at least 0; 0 changes nothing.
            region: Bx1xLxL in [0, 1] on the model's mask grid.
        """
        # The components of a unit vector are tiny.
        parts = self.to_levels(self.from_text(sentences * self.text_dim**0.5)).split([2 * c for c in self.channels], 1)
        gammas, betas = zip(*(part.chunk(2, 1) for part in parts), strict=True)
        return Modulation(gammas, betas, region * strength[:, None, None, None])


def film_channels(model: CausalSam) -> tuple[int, ...]:
    """Return the channels of the levels of a model's mask decoder that are modulated."""
    decoder = model.sam.mask_decoder
    return tuple(decoder.get_submodule(convolution).out_channels for _, convolution in model.spec.film_levels)


def make_modulable(model: CausalSam) -> None:
    """Add the hooks of the modulation to a model's mask decoder, in place. Outside of `modulated` they do nothing.

    Args:
        model: any of the registry.
    """
    decoder: MaskDecoder = model.sam.mask_decoder
    if getattr(decoder, _MODULABLE, False):
        return
    setattr(decoder, _MODULABLE, True)
    for number, (level, _) in enumerate(model.spec.film_levels):

        def modulate(module: nn.Module, given: tuple, features: Tensor, number: int = number) -> Tensor | None:
            modulation = _current.get()
            return None if modulation is None else modulation.apply(number, features)

        decoder.get_submodule(level).register_forward_hook(modulate)


@contextmanager
def modulated(modulation: Modulation) -> Iterator[None]:
    """Modulate all decoding of this thread until the block ends."""
    token = _current.set(modulation)
    try:
        yield
    finally:
        _current.reset(token)
