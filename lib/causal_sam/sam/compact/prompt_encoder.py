"""Prompt encoder of the compact model: SAM's tokens, and the same clicks and boxes drawn as maps."""

from __future__ import annotations

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.prompt_encoder import PromptEncoder
from torch import Tensor, nn

from causal_sam.sam.compact.guidance import GUIDANCE_CHANNELS, Guidance
from causal_sam.sam.compact.image_encoder import SKIP_CHANNELS

# Radii, in pixels of the mask grid, at which a click falls to 1/e in its two maps: one that marks the place, one that
# reaches over a small organ.
CLICK_RADII = (2.0, 8.0)


class CompactPromptEncoder(PromptEncoder):
    """SAM's prompt encoder whose dense embedding also carries clicks and boxes.

    A decoder that sees clicks as tokens alone needs millions of images before it uses their place well. Drawn as
    maps they are local features from the first step on, at the cost of three small convolutions; so is what `Guidance`
    tells about them. The contract is SAM's: the sparse BxNxC and the dense BxCxhxw embedding.

    Args:
        embed_dim: channels C of the embedding.
        image_embedding_size: (h, w) of the embedding.
        input_image_size: (H, W) of the padded input in pixels.
        mask_in_chans: hidden channels of the mask path, as in SAM.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
    ) -> None:
        super().__init__(embed_dim, image_embedding_size, input_image_size, mask_in_chans)
        self.guidance = Guidance(SKIP_CHANNELS)
        maps = 2 * len(CLICK_RADII) + 2 + GUIDANCE_CHANNELS
        self.prompt_downscaling = nn.Sequential(
            nn.Conv2d(maps, 2 * mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(2 * mask_in_chans),
            nn.GELU(),
            nn.Conv2d(2 * mask_in_chans, 4 * mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(4 * mask_in_chans),
            nn.GELU(),
            nn.Conv2d(4 * mask_in_chans, embed_dim, kernel_size=1),
        )

    def guide(
        self, skips: tuple[Tensor, Tensor], points: tuple[Tensor, Tensor] | None, masks: Tensor | None, batch: int
    ) -> Tensor:
        """Compare the slice with what was clicked on it; see `Guidance`.

        Args:
            skips: skip features of the slice's embedding.
            points: see `forward`.
            masks: see `forward`.
            batch: number B of prompts.
        """
        if points is None:
            nothing = skips[0].new_zeros(batch, 0, 2), skips[0].new_zeros(batch, 0)
            return self.guidance(skips, *nothing, masks)
        height, width = self.input_image_size
        size = points[0].new_tensor([width, height])
        return self.guidance(skips, (points[0] + 0.5) * (2 / size) - 1, points[1], masks)

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
        guidance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Embed prompts.

        Args:
            points: BxNx2 (x, y) in pixels of the padded input, and BxN labels: 1 foreground, 0 background, -1 padding.
            boxes: Bx4 (x0, y0, x1, y1) in the same pixels.
            masks: Bx1x4hx4w logits of an earlier mask.
            guidance: B x `GUIDANCE_CHANNELS` x4hx4w, from `guide`.

        Returns:
            Sparse embeddings BxNxC and the dense embedding BxCxhxw.
        """
        sparse, dense = super().forward(points, boxes, masks)
        if points is None and boxes is None:  # a mask alone, perhaps of a window
            drawn = guidance.new_zeros(guidance.shape[0], 2 * len(CLICK_RADII) + 2, *guidance.shape[-2:])
        else:
            drawn = self.draw(points, boxes, guidance.shape[0])
        maps = torch.cat([drawn, guidance], 1)
        return sparse, dense + self.prompt_downscaling(maps)

    def draw(self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, batch: int) -> Tensor:
        """Draw clicks and boxes on the mask grid.

        Returns:
            Bx6x4hx4w: foreground and background clicks at the two radii, inside of the box, and whether a box is
            given at all.
        """
        device = self.no_mask_embed.weight.device
        height, width = self.mask_input_size
        # Pixel centres of the mask grid in input pixels.
        ys = (torch.arange(height, device=device) + 0.5) * (self.input_image_size[0] / height)
        xs = (torch.arange(width, device=device) + 0.5) * (self.input_image_size[1] / width)
        maps = []
        if points is not None:
            coords, labels = points[0] + 0.5, points[1]
            pixel = self.input_image_size[0] / height
            dy2 = (ys - coords[..., 1:]) ** 2
            dx2 = (xs - coords[..., :1]) ** 2
            for radius in CLICK_RADII:
                scale = (radius * pixel) ** 2
                # A Gaussian is separable: the outer product is cheaper than exp() of the whole grid for each click.
                rows, columns = torch.exp(-dy2 / scale), torch.exp(-dx2 / scale)
                spots = rows[..., :, None] * columns[..., None, :]
                for wanted in (1, 0):
                    chosen = (labels == wanted).to(spots.dtype)[..., None, None]
                    maps.append((spots * chosen).amax(dim=1))
        else:
            maps += [torch.zeros(batch, height, width, device=device)] * (2 * len(CLICK_RADII))
        if boxes is not None:
            x0, y0, x1, y1 = (boxes[:, n, None] for n in range(4))
            rows = ((ys >= y0) & (ys <= y1 + 1)).float()
            columns = ((xs >= x0) & (xs <= x1 + 1)).float()
            maps += [rows[:, :, None] * columns[:, None, :], torch.ones(batch, height, width, device=device)]
        else:
            maps += [torch.zeros(batch, height, width, device=device)] * 2
        return torch.stack(maps, dim=1)
