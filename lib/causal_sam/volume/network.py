"""The context network: slice embeddings of a volume to context features, coarse masks by prompt and by name.

A light 3D head over the stack of a frozen 2D encoder's embeddings. `ContextNetwork.encode` runs once a volume (or once
for a crop); `decode` answers prompts and `name_logits` answers names from its result.

All grids are (slices, rows, columns). A grid has a stride of 4 pixels of the encoder's input frame for a whole volume,
and of 2 pixels for the finer pass on a crop.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.sam.embedding import Embedding
from causal_sam.volume.prompt_maps import MAP_CHANNELS, GridPrompts, draw_prompts

# Channels of the encoder's features at stride 8, skips at stride 4 and 2 (the brightness is the last), and the wide
# window's brightness at stride 2.
INPUT_CHANNELS = (128, 32, 17, 1)
PROJECTED = (32, 16, 12)
WIDTHS = (24, 64, 96)
POSITIONS = 9
DESCRIPTORS = 24
NAME_DIM = 64
TEXT_DIM = 384
DECODER_WIDTHS = (16, 40, 64)
# Slices are joined for the next level of the network only while they are about as thick as its cells are wide.
JOIN_SLICES_BELOW = 1.5
# Cells of the encoder's features in pixels of its input.
FEATURE_STRIDE = 8


class FeatureStack(NamedTuple):
    """Encoder output of Z slices, in canonical order, cropped to the picture.

    Attributes:
        features: Zx128xh8xw8 at stride 8.
        skip4: Zx32xh4xw4 at stride 4.
        skip2: Zx17xh2xw2 at stride 2; the last channel is the brightness.
        wide: Zx1xh2xw2, the brightness in a wide window (all of CT), in [0, 1].
    """

    features: Tensor
    skip4: Tensor
    skip2: Tensor
    wide: Tensor

    @classmethod
    def of(cls, embedding: Embedding, wide: Tensor) -> FeatureStack:
        """Return the stack of B slices, in half precision.

        Args:
            embedding: embedding of the slices by the compact model.
            wide: Bx1xHxW brightness in the wide window, from `padded_picture`; the embedding is cut to its size.
        """
        h, w = (side // FEATURE_STRIDE for side in wide.shape[-2:])
        skip2, skip4 = embedding.skips
        return cls(
            embedding.features[..., :h, :w].half(),
            skip4[..., : 2 * h, : 2 * w].half(),
            skip2[..., : 4 * h, : 4 * w].half(),
            F.avg_pool2d(wide, 2).half(),
        )

    @classmethod
    def joined(cls, stacks: Iterable[FeatureStack]) -> FeatureStack:
        """Return the slices of several stacks as one."""
        return cls(*(torch.cat(maps) for maps in zip(*stacks, strict=True)))

    def crop(self, slices: slice, rows: slice, columns: slice) -> FeatureStack:
        """Return a part; rows and columns are in cells of stride 8."""

        def part(x: Tensor, scale: int) -> Tensor:
            return x[
                slices,
                :,
                rows.start * scale : rows.stop * scale,
                columns.start * scale : columns.stop * scale,
            ]

        return FeatureStack(part(self.features, 1), part(self.skip4, 2), part(self.skip2, 4), part(self.wide, 4))


@dataclass(frozen=True)
class GridGeometry:
    """Place and size of a grid.

    Attributes:
        cell_mm: size of a cell in mm: slices, rows, columns.
        centre: centre of the grid relative to the centre of the whole volume in mm, same order.
        extent_mm: size of the whole volume in mm, same order.
        plane: "axial", "coronal" or "sagittal".
    """

    cell_mm: tuple[float, float, float]
    centre: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    plane: str

    @classmethod
    def of_part(
        cls,
        part: Sequence[tuple[int, int]],
        whole: Sequence[int],
        mm: Sequence[float],
        cell_mm: tuple[float, float, float],
        plane: str,
    ) -> GridGeometry:
        """Return the geometry of a grid over a part of a volume.

        Args:
            part: first slice, row and column of the part, each with the one after the last.
            whole: number of slices, rows and columns of the volume.
            mm: their distances.
            cell_mm: size of a cell.
            plane: "axial", "coronal" or "sagittal".
        """
        z, y, x = (((a + b) / 2 - count / 2) * own for (a, b), count, own in zip(part, whole, mm, strict=True))
        depth, height, width = (count * own for count, own in zip(whole, mm, strict=True))
        return cls(cell_mm, (z, y, x), (depth, height, width), plane)


class Context(NamedTuple):
    """Output of `ContextNetwork.encode` for one grid.

    Attributes:
        features: 1xCxZxYxX.
        descriptors: 1xDxZxYxX, unit vectors in groups, for the likeness to prompted places.
        names: 1xNxZxYxX features in the space of names.
        brightness: 1x2xZxYxX brightness in the narrow and the wide window.
        cell_mm: size of a cell in mm.
    """

    features: Tensor
    descriptors: Tensor
    names: Tensor
    brightness: Tensor
    cell_mm: tuple[float, float, float]

    def crop(self, part: tuple[slice, slice, slice]) -> Context:
        """Return a part of the grid: slices, rows and columns in cells."""
        z, y, x = part
        features, descriptors, names, brightness = (maps[..., z, y, x] for maps in self[:4])
        return Context(features, descriptors, names, brightness, self.cell_mm)


class Block(nn.Module):
    """Residual block of two 3x3x3 convolutions with group normalisation: 1xCxZxYxX -> 1xCxZxYxX."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, channels)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(x + f(x))``."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(x + self.norm2(self.conv2(y)), inplace=True)


class Attention(nn.Module):
    """Transformer block over all cells of the coarsest level: 1xCxZxYxX -> 1xCxZxYxX."""

    def __init__(self, channels: int, heads: int = 6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Let every cell attend to every other."""
        tokens = x.flatten(2).transpose(1, 2)
        batch, count, channels = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        tokens = tokens + self.proj(attended.transpose(1, 2).reshape(batch, count, channels))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)


def _factors(cell_mm: tuple[float, float, float], levels: int) -> list[tuple[int, int, int]]:
    """Return the pooling of each level: slices are joined only while they are no thicker than cells are wide."""
    step, side = cell_mm[0], min(cell_mm[1:])
    factors = []
    for _ in range(levels):
        joins = 2 if step < JOIN_SLICES_BELOW * side else 1
        factors.append((joins, 2, 2))
        step, side = step * joins, side * 2
    return factors


def _pool(x: Tensor, factor: tuple[int, int, int]) -> Tensor:
    # Where a volume has a single slice, there is nothing to join.
    sides = tuple(min(each, side) for each, side in zip(factor, x.shape[2:], strict=True))
    return F.avg_pool3d(x, sides, ceil_mode=True, count_include_pad=False)


def _grow(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="trilinear", align_corners=False)


class UNet3d(nn.Module):
    """A 3D U-Net whose pooling follows the thickness of the slices.

    Args:
        widths: channels of the levels, finest first.
        blocks: residual blocks on the way down at each level; the way up has one at each.
        attention: number of transformer blocks at half the resolution of the coarsest level.
    """

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], attention: int = 0) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(count))) for width, count in zip(widths, blocks, strict=True)
        )
        self.widen = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in itertools.pairwise(widths))
        self.narrow = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(Block(width) for width in widths[:-1])
        self.attention = nn.ModuleList(Attention(widths[-1]) for _ in range(attention))

    def forward(self, x: Tensor, cell_mm: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
        """Map 1xCxZxYxX to features of the same shape, and to those of the next coarser level."""
        factors = _factors(cell_mm, len(self.widen) + 1)
        x = self.down[0](x)
        levels = [x]
        for level, widen in enumerate(self.widen):
            x = self.down[level + 1](widen(_pool(x, factors[level])))
            levels.append(x)
        if self.attention:
            y = _pool(x, factors[-1])
            for block in self.attention:
                y = block(y)
            x = x + _grow(y, x)
        for level in reversed(range(len(self.widen))):
            coarser = x
            x = self.up[level](levels[level] + _grow(self.narrow[level](x), levels[level]))
        return x, coarser


class ContextNetwork(nn.Module):
    """Slice embeddings to coarse masks by prompt and by name.

    Args:
        text_dim: length of the text encoder's vectors.
    """

    def __init__(self, text_dim: int = TEXT_DIM) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(INPUT_CHANNELS[:3], PROJECTED, strict=True)
        )
        self.stem = nn.Sequential(
            nn.Conv3d(sum(PROJECTED) + 2 + POSITIONS, WIDTHS[0], 1, bias=False),
            nn.GroupNorm(8, WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        self.trunk = UNet3d(WIDTHS, (1, 2, 2), attention=3)
        self.to_descriptors = nn.Conv3d(WIDTHS[0], DESCRIPTORS, 1)
        # A name is a matter of surroundings, its border one of the finest level.
        self.name_surroundings = nn.Conv3d(WIDTHS[1], NAME_DIM, 1)
        self.name_border = nn.Conv3d(WIDTHS[0], NAME_DIM, 1)
        self.to_names = nn.Conv3d(NAME_DIM, NAME_DIM, 1)
        to_name = nn.Linear(2 * NAME_DIM, NAME_DIM + 1)
        self.from_text = nn.Sequential(nn.Linear(text_dim, 2 * NAME_DIM), nn.GELU(), to_name)
        # Before training no name and no prompt finds anything.
        nn.init.constant_(to_name.bias[-1:], -3.0)
        self.text_dim = text_dim
        first, second, third = DECODER_WIDTHS
        self.enter = nn.Sequential(
            nn.Conv3d(WIDTHS[0] + MAP_CHANNELS, first, 1, bias=False), nn.GroupNorm(8, first), nn.ReLU(inplace=True)
        )
        self.decoder = UNet3d((first, second, third), (1, 2, 2))
        self.to_logits = nn.Conv3d(first, 1, 1)
        nn.init.constant_(cast(Tensor, self.to_logits.bias), -3.0)
        self.to_certainty = nn.Sequential(nn.Linear(first + 2, 32), nn.GELU(), nn.Linear(32, 1))

    def encode(self, stack: FeatureStack, geometry: GridGeometry, stride: int) -> Context:
        """Return the context of the grid that covers ``stack``.

        Args:
            stack: features of the slices.
            geometry: geometry of the grid.
            stride: 4 or 2 pixels of the encoder's input per cell.
        """
        size = tuple(side * 2 // stride for side in stack.skip2.shape[-2:])
        parts = [
            _resized(project(x.float()), size)
            for project, x in zip(self.project, (stack.features, stack.skip4, stack.skip2), strict=True)
        ]
        brightness = _resized(torch.cat([stack.skip2[:, -1:].float(), stack.wide.float()], 1), size)
        x = torch.cat([*parts, brightness], 1).transpose(0, 1)[None]
        x = torch.cat([x, _positions(x.shape[2:], geometry, x.device)], 1)
        x, coarser = self.trunk(self.stem(x), geometry.cell_mm)
        names = self.to_names(F.relu(self.name_border(x) + _grow(self.name_surroundings(coarser), x)))
        return Context(x, self.to_descriptors(x), names, brightness.transpose(0, 1)[None], geometry.cell_mm)

    def name_logits(self, context: Context, names: Tensor) -> Tensor:
        """Return coarse logits of names.

        Args:
            context: context of a volume.
            names: Nxtext_dim unit vectors.

        Returns:
            NxZxYxX.
        """
        # The components of a unit vector are tiny, and those of similar names differ by even less.
        text = self.from_text(names * self.text_dim**0.5)
        features = context.names[0].float()
        logits = torch.einsum("nc,czyx->nzyx", text[:, :-1].float(), features) / NAME_DIM**0.5
        return logits + text[:, -1, None, None, None].float()

    def decode(self, context: Context, prompts: GridPrompts) -> tuple[Tensor, Tensor]:
        """Answer the prompts of one structure.

        Returns:
            Logits ZxYxX of the coarse mask, and the logit of its expected Dice.
        """
        maps = draw_prompts(context.descriptors, context.brightness, prompts, context.cell_mm)
        x = self.enter(torch.cat([context.features, maps.to(context.features.dtype)], 1))
        x, _ = self.decoder(x, context.cell_mm)
        logits = self.to_logits(x)[0, 0].float()
        inside = logits.detach().sigmoid()
        pooled = (x[0].float() * inside).flatten(1).sum(1) / inside.sum().clamp(min=1)
        sure = (inside * (1 - inside)).sum() / inside.sum().clamp(min=1)
        summary = torch.cat([pooled, sure[None], inside.sum().clamp(min=1).log()[None] / 10])
        return logits, self.to_certainty(summary)[0].float()


def padded_picture(images: Tensor, height: int, width: int) -> Tensor:
    """Scale images BxCxHxW in [0, 1] to a size in pixels, padded below and on the right to whole feature cells."""
    images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
    return F.pad(images, (0, padded_side(width) - width, 0, padded_side(height) - height))


def padded_side(side: int) -> int:
    """Return a number of pixels, rounded up to whole feature cells.

    >>> padded_side(205), padded_side(256)
    (208, 256)
    """
    return -(-side // FEATURE_STRIDE) * FEATURE_STRIDE


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize ZxCxHxW to another size of the grid: averaged down by whole factors, interpolated up."""
    if x.shape[-1] > size[-1]:
        return F.avg_pool2d(x, x.shape[-1] // size[-1])
    if x.shape[-1] < size[-1]:
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    return x


def _positions(shape: torch.Size, geometry: GridGeometry, device: torch.device) -> Tensor:
    """Return 1x`POSITIONS`xZxYxX: place in mm and relative to the volume, thickness and size of cells, plane."""
    maps = []
    for axis, count in enumerate(shape):
        mm = (torch.arange(count, device=device) + 0.5 - count / 2) * geometry.cell_mm[axis] + geometry.centre[axis]
        view = [-1 if a == axis else 1 for a in range(3)]
        # The slab says nothing about where its slices lie in the body, so only rows and columns have a place in mm.
        if axis:
            maps.append((mm / 150).view(view).expand(shape))
        maps.append((mm * 2 / geometry.extent_mm[axis]).view(view).expand(shape))
    step, side = geometry.cell_mm[0], geometry.cell_mm[1]
    constants = [math.log(side / 4), math.log(step / side)]
    constants += [float(geometry.plane == plane) for plane in ("sagittal", "coronal")]
    maps += [torch.full((), value, device=device).expand(shape) for value in constants]
    return torch.stack(maps)[None]
