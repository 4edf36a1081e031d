"""Label names as prompts: a name and a slice give a prompt token and a coarse mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding

# Small, since prompt and adapters together must stay below 9 % of the parameters.
HIDDEN = 64
# Limit of the logits of coarse masks.
MAX_COARSE_LOGIT = 12.0


class LabelPrompt(nn.Module):
    """Prompts a frozen SAM with the name of a structure.

    A name does not say where the structure is, and the mask decoder was trained on clicks, which do. So a name gives
    two prompts: a token beside the tokens of clicks, and a coarse mask, which compares the name with every position of
    the embedding. The decoder takes the coarse mask as it takes the mask of an earlier answer.

    If the embedding has skip features, the coarse mask uses them, since a small organ covers only a few positions of
    the embedding.

    Args:
        text_dim: length D of the names' vectors.
        embed_dim: channels C of the embedding.
        skip_channels: channels of the embedding's skips, finest first; () if it has none.
    """

    def __init__(self, text_dim: int, embed_dim: int, skip_channels: Sequence[int] = ()) -> None:
        super().__init__()
        self.text_dim, self.embed_dim, self.skip_channels = text_dim, embed_dim, tuple(skip_channels)
        self.reduce = nn.Conv2d(2 * embed_dim, HIDDEN, 1)
        self.norm1 = nn.GroupNorm(8, HIDDEN)
        self.wide = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=2, dilation=2)
        self.norm2 = nn.GroupNorm(8, HIDDEN)
        self.fine = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1)
        self.from_text = nn.Sequential(nn.Linear(text_dim, 2 * HIDDEN), nn.LayerNorm(2 * HIDDEN), nn.GELU())
        # Coarsest first, in the order of upsampling.
        self.joins = nn.ModuleList()
        channels = HIDDEN
        for skip in reversed(self.skip_channels):
            narrower = 3 * channels // 4
            join = nn.Conv2d(channels + skip, narrower, 3, padding=1)
            self.joins.append(nn.Sequential(join, nn.GroupNorm(4, narrower), nn.ReLU()))
            channels = narrower
        self.to_filter = nn.Linear(2 * HIDDEN, channels + 1)
        self.to_token = nn.Linear(2 * HIDDEN, embed_dim)
        # An untrained prompt finds no name, and its token is zero.
        nn.init.zeros_(self.to_token.weight)
        nn.init.zeros_(self.to_token.bias)
        nn.init.constant_(self.to_filter.bias[-1:], -2.0)

    @property
    def outputs_masks(self) -> bool:
        """True if the coarse masks are the answer; if not, they only prompt the mask decoder.

        Coarse masks from skip features are better than what the decoder makes of them, since its upscaling is frozen.
        """
        return bool(self.skip_channels)

    def forward(self, embedding: Embedding, position: Tensor, names: Tensor, mask_size: int) -> tuple[Tensor, Tensor]:
        """Prompt B slices with N names each.

        Args:
            embedding: embedding of the slices.
            position: 1xCxhxw, the positional encoding of the embedding.
            names: NxD unit vectors of the names.
            mask_size: side L of the model's mask grid.

        Returns:
            Tokens Nx1xC, the same for all slices, and logits BxNxLxL of the coarse masks.
        """
        x = self.reduce(torch.cat([embedding.features, position.expand_as(embedding.features)], 1))
        x = F.relu(self.norm1(x))
        x = x + F.relu(self.norm2(self.wide(x)))
        x = self.fine(x)
        skips = reversed(embedding.skips) if self.skip_channels else ()
        for join, skip in zip(self.joins, skips, strict=True):
            x = F.interpolate(F.relu(x), skip.shape[-2:], mode="bilinear", align_corners=False)
            x = join(torch.cat([x, skip], 1))
        # The components of a unit vector are tiny, and those of similar names differ by even less.
        text = self.from_text(names * self.text_dim**0.5)
        filters = self.to_filter(text)
        coarse = torch.einsum("nc,bchw->bnhw", filters[:, :-1], x) / x.shape[1] ** 0.5 + filters[:, -1, None, None]
        coarse = F.interpolate(coarse, (mask_size, mask_size), mode="bilinear", align_corners=False)
        return self.to_token(text)[:, None], coarse.clamp(-MAX_COARSE_LOGIT, MAX_COARSE_LOGIT)


def new_label_prompt(model: CausalSam, text_dim: int) -> LabelPrompt:
    """Return an untrained prompt for the embeddings of a model, on its device."""
    return LabelPrompt(text_dim, model.sam.prompt_encoder.embed_dim, model.spec.skip_channels).to(model.device)


def trainable_share(model: CausalSam, trained: Iterable[nn.Module]) -> float:
    """Parameters that train, as a share of all: those of ``trained`` against them and the model together."""
    count = sum(parameter.numel() for module in trained for parameter in module.parameters())
    return count / (count + sum(parameter.numel() for parameter in model.parameters()))
