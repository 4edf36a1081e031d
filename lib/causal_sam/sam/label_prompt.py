"""Label names as prompts: from the vector of a name and a slice to a prompt token and a draft of the mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding

# Kept small, beside what adapters may add: fewer than 9 % of a model's parameters are trained at a site.
HIDDEN = 64
# Mask prompts are no surer than this.
MAX_COARSE_LOGIT = 12.0


class LabelPrompt(nn.Module):
    """Prompts a frozen SAM with the name of a structure.

    The name alone does not say where the structure is, and a mask decoder that was trained on clicks looks for places.
    So a name gives two prompts: a token beside the tokens of clicks, and a draft of the mask, found by comparing the
    name with every position of the embedding, which the decoder takes as it takes the mask of an earlier answer.

    Where the embedding has finer skip features the draft is drawn with them, since a small organ covers but a few
    positions of the embedding.

    Args:
        text_dim: length D of the names' vectors.
        embed_dim: channels C of the embedding.
        skip_channels: of the embedding's skips, finest first; () if it has none.
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
        # Coarsest first, as they are met on the way up.
        self.joins = nn.ModuleList()
        channels = HIDDEN
        for skip in reversed(self.skip_channels):
            narrower = 3 * channels // 4
            join = nn.Conv2d(channels + skip, narrower, 3, padding=1)
            self.joins.append(nn.Sequential(join, nn.GroupNorm(4, narrower), nn.ReLU()))
            channels = narrower
        self.to_filter = nn.Linear(2 * HIDDEN, channels + 1)
        self.to_token = nn.Linear(2 * HIDDEN, embed_dim)
        # At first no name is anywhere, and its token says nothing.
        nn.init.zeros_(self.to_token.weight)
        nn.init.zeros_(self.to_token.bias)
        nn.init.constant_(self.to_filter.bias[-1:], -2.0)

    @property
    def outputs_masks(self) -> bool:
        """Whether its drafts are as fine as masks, and so are the answer; else they only prompt the mask decoder.

        What of the decoder trains is little, and what upscales its features is frozen: where the draft has fine
        features of its own, the decoder's version of it is worse.
        """
        return bool(self.skip_channels)

    def forward(self, embedding: Embedding, position: Tensor, names: Tensor, mask_size: int) -> tuple[Tensor, Tensor]:
        """Prompt B slices with N names each.

        Args:
            embedding: of the slices.
            position: 1xCxhxw, the positional encoding of the embedding.
            names: NxD unit vectors of the names.
            mask_size: side L of the model's mask grid.

        Returns:
            Tokens Nx1xC, the same for all slices, and drafts BxNxLxL, logits.
        """
        x = self.reduce(torch.cat([embedding.features, position.expand_as(embedding.features)], 1))
        x = F.relu(self.norm1(x))
        x = x + F.relu(self.norm2(self.wide(x)))
        x = self.fine(x)
        skips = reversed(embedding.skips) if self.skip_channels else ()
        for join, skip in zip(self.joins, skips, strict=True):
            x = F.interpolate(F.relu(x), skip.shape[-2:], mode="bilinear", align_corners=False)
            x = join(torch.cat([x, skip], 1))
        # Components of a unit vector are tiny, and differ by less still between similar names.
        text = self.from_text(names * self.text_dim**0.5)
        filters = self.to_filter(text)
        draft = torch.einsum("nc,bchw->bnhw", filters[:, :-1], x) / x.shape[1] ** 0.5 + filters[:, -1, None, None]
        draft = F.interpolate(draft, (mask_size, mask_size), mode="bilinear", align_corners=False)
        return self.to_token(text)[:, None], draft.clamp(-MAX_COARSE_LOGIT, MAX_COARSE_LOGIT)


def new_label_prompt(model: CausalSam, text_dim: int) -> LabelPrompt:
    """Make an untrained prompt for the embeddings of a model, on its device."""
    return LabelPrompt(text_dim, model.sam.prompt_encoder.embed_dim, model.spec.skip_channels).to(model.device)


def trainable_share(model: CausalSam, trained: Iterable[nn.Module]) -> float:
    """Parameters that train, as a share of all: those of ``trained`` against them and the model together."""
    count = sum(parameter.numel() for module in trained for parameter in module.parameters())
    return count / (count + sum(parameter.numel() for parameter in model.parameters()))
