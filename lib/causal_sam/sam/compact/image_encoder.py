"""Image encoder of the compact model: convolutions down to stride 16, ViT blocks there, a pyramid back to stride 8."""

from __future__ import annotations

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.sam.embedding import Embedding

# The input is normalised as SAM's is, with the same numbers for all three slices.
PIXEL_MEAN, PIXEL_STD = 127.5, 63.75
SKIP_CHANNELS = (17, 32)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation and a residual path; BxCxHxW -> BxCxHxW."""

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or channels
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(x + f(x))``."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(x + self.norm2(self.conv2(y)), inplace=True)


class Stage(nn.Sequential):
    """Halve the resolution with one strided convolution, then refine with residual blocks."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(8, channels_out),
            nn.ReLU(inplace=True),
            *(ResidualBlock(channels_out) for _ in range(blocks)),
        )


class CompactImageEncoder(nn.Module):
    """Slice -> embedding at stride 8 with two finer skip features.

    The attention blocks are `segment_anything`'s own, so that adapters find the same ``attn.qkv`` and ``attn.proj``
    layers here as in ViT-B, ViT-L and ViT-H. The neck is SAM's too, and like there the embedding ends with a
    normalisation of each position: with a rectifier in its place, channels that fall silent in training stay so.

    Args:
        img_size: side S of the square input in pixels; a multiple of 16.
        embed_dim: channels C of the embedding.
        widths: channels at stride 2, 4, 8 and 16.
        depth: number of attention blocks at stride 16.
        skip_channels: channels of the skip features at stride 2 and stride 4; the last one at stride 2 is the
            brightness of the slice itself.
    """

    def __init__(
        self,
        img_size: int = 256,
        embed_dim: int = 128,
        widths: tuple[int, int, int, int] = (32, 64, 128, 192),
        depth: int = 4,
        skip_channels: tuple[int, int] = SKIP_CHANNELS,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.skip_channels = skip_channels
        self.stage1 = Stage(3, widths[0], 1)
        self.stage2 = Stage(widths[0], widths[1], 2)
        self.stage3 = Stage(widths[1], widths[2], 2)
        self.stage4 = Stage(widths[2], widths[3], 1)
        grid = (img_size // 16, img_size // 16)
        self.blocks = nn.ModuleList(
            Block(widths[3], num_heads=6, mlp_ratio=3.0, use_rel_pos=True, input_size=grid) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(widths[3])
        self.lateral16 = nn.Conv2d(widths[3], embed_dim, 1)
        self.lateral8 = nn.Conv2d(widths[2], embed_dim, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 1, bias=False),
            LayerNorm2d(embed_dim),
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False),
            LayerNorm2d(embed_dim),
        )
        self.skip4 = nn.Conv2d(widths[1], skip_channels[1], 1)
        self.skip2 = nn.Conv2d(widths[0], skip_channels[0] - 1, 1)

    def forward(self, x: Tensor) -> Embedding:
        """Encode normalised slices.

        Args:
            x: Bx3xSxS; the channels are the previous, this and the next slice.

        Returns:
            `Embedding` with features BxCx(S/8)x(S/8) and skips at S/2 and S/4 (finest first).
        """
        x2 = self.stage1(x)
        x4 = self.stage2(x2)
        x8 = self.stage3(x4)
        tokens = self.stage4(x8).permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens = block(tokens)
        x16 = self.norm(tokens).permute(0, 3, 1, 2)
        top_down = F.interpolate(self.lateral16(x16), scale_factor=2.0, mode="bilinear", align_corners=False)
        features = self.neck(self.lateral8(x8) + top_down)
        brightness = F.avg_pool2d(x[:, 1:2], 2) * PIXEL_STD / 255 + PIXEL_MEAN / 255
        return Embedding(features, (torch.cat([self.skip2(x2), brightness], 1), self.skip4(x4)))
