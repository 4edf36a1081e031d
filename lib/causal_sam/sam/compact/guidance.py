"""Per-pixel maps from clicks and an earlier mask: position, similarity to them, connectedness with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Differences of brightness (the image is 0 to 1) at which two pixels no longer look alike: strictly and loosely.
BRIGHTNESS_WIDTHS = (0.04, 0.15)
# A path of pixels hangs together with a click as long as their brightness differs by less than this from the click's.
PATH_WIDTH = 0.25
# Steps of paths on the grid at twice the mask's stride: enough to wind through a structure, few enough to be quick.
PATH_STEPS = 48
DESCRIPTOR_CHANNELS = 12
# Maps of `Guidance`: brightness, the mask's probability, clicks, then for both kinds of clicks and for the mask the
# likeness in brightness and description, then for both kinds of clicks what hangs together with them.
GUIDANCE_CHANNELS = 1 + 1 + 2 + 3 * (len(BRIGHTNESS_WIDTHS) + 1) + 2


class Guidance(nn.Module):
    """Compares each pixel of a slice with the pixels that were clicked, and with the earlier mask.

    A decoder that knows a click only by its place must find out from coarse features what lies under it. Here the
    clicked pixels' brightness and learned description are compared with those of all others, and fuzzy connectedness
    (Udupa and Samarasekera 1996, doi:10.1006/gmip.1996.0021) tells which pixels are joined to a click by a path on
    which nothing looks different: what region growing would give, for all thresholds at once.

    Args:
        skip_channels: channels of the encoder's skips at stride 2 (the brightness is the last one) and at stride 4.
    """

    def __init__(self, skip_channels: tuple[int, int]) -> None:
        super().__init__()
        self.describe = nn.Conv2d(sum(skip_channels), DESCRIPTOR_CHANNELS, 1)

    def forward(
        self, skips: tuple[Tensor, Tensor], positions: Tensor, labels: Tensor, mask_logits: Tensor | None
    ) -> Tensor:
        """Draw the maps.

        Args:
            skips: 1 or B x c2 x L x L and 1 or B x c4 x L/2 x L/2, from the encoder.
            positions: BxNx2 (x, y) from -1 to 1 across the input; N may be 0.
            labels: BxN; 1 foreground, 0 background, -1 padding.
            mask_logits: Bx1xLxL of the earlier mask, or None.

        Returns:
            B x `GUIDANCE_CHANNELS` x L x L.
        """
        batch = positions.shape[0]
        fine, coarse = skips
        brightness = fine[:, -1:]
        described = self.describe(torch.cat([F.avg_pool2d(fine, 2), coarse], 1)).expand(batch, -1, -1, -1)
        brightness = brightness.expand(batch, -1, -1, -1)
        if mask_logits is None:
            probability = torch.zeros_like(brightness)
        else:
            probability = mask_logits.to(brightness.dtype).sigmoid()
        # A click means the tissue around it, not the noise of one pixel.
        smooth = F.avg_pool2d(brightness, 3, 1, 1, count_include_pad=False)
        halved = F.avg_pool2d(smooth, 2)
        maps = [brightness, probability]
        paths = []
        for wanted in (1, 0):
            chosen = (labels == wanted).to(brightness.dtype)
            spots = _spots(positions, chosen, brightness.shape[-2:])
            maps.append(spots)
            clicked = _at(smooth, positions)  # Bx1xN
            far = _far(smooth, clicked, chosen)
            maps += [torch.exp(-((far / width) ** 2)) for width in BRIGHTNESS_WIDTHS]
            maps.append(self._grown(torch.exp(-_far(described, _at(described, positions), chosen))))
            if clicked.shape[-1]:
                alike = (1 - _far(halved, clicked, chosen) / PATH_WIDTH).clamp(min=0)
                paths.append(self._grown(_connected(alike, F.max_pool2d(spots, 2))))
            else:  # nothing hangs together with no click, and to find that out takes a while
                paths.append(torch.zeros_like(spots))
        # The mask's own look stands for the clicks that made it, and where there were none.
        weight = probability.flatten(2)
        total = weight.sum(-1, keepdim=True)
        shown = (total > 1).to(brightness.dtype)[..., None]
        mean = (smooth.flatten(2) * weight).sum(-1, keepdim=True) / total.clamp(min=1)
        far = (smooth - mean[..., None]).abs()
        maps += [shown * torch.exp(-((far / width) ** 2)) for width in BRIGHTNESS_WIDTHS]
        weight = F.avg_pool2d(probability, 2).flatten(2)
        mean = (described.flatten(2) * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=0.25)
        far = (described - mean[..., None]).square().sum(1, keepdim=True)
        maps.append(shown * self._grown(torch.exp(-far)))
        return torch.cat(maps + paths, 1)

    @staticmethod
    def _grown(half: Tensor) -> Tensor:
        return F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)


def _spots(positions: Tensor, chosen: Tensor, shape: torch.Size) -> Tensor:
    """Bx1xHxW: 1 at the chosen clicks, falling to 1/e two pixels away. With clicks the map is square."""
    if not positions.shape[1]:
        return positions.new_zeros(positions.shape[0], 1, *shape)
    size = shape[-1]
    centres = (torch.arange(size, device=positions.device, dtype=positions.dtype) + 0.5) * (2 / size) - 1
    radius2 = (2 * 2 / size) ** 2
    columns = torch.exp(-((centres - positions[..., :1]) ** 2) / radius2)  # BxNxL
    rows = torch.exp(-((centres - positions[..., 1:]) ** 2) / radius2) * chosen[..., None]
    return (rows[..., :, None] * columns[..., None, :]).amax(1, keepdim=True)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """BxcxN values of a BxcxHxW map at BxNx2 positions."""
    grid = positions[:, :, None].to(values.dtype)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)[..., 0]


def _far(values: Tensor, clicked: Tensor, chosen: Tensor) -> Tensor:
    """Bx1xHxW: squared (one channel: absolute) distance of each pixel's values to the nearest chosen click's."""
    far = torch.full_like(values[:, :1], 1e4)
    for n in range(clicked.shape[-1]):
        difference = values - clicked[..., n, None, None]
        each = difference.abs() if values.shape[1] == 1 else difference.square().sum(1, keepdim=True)
        far = torch.minimum(far, each + 1e4 * (1 - chosen[:, n, None, None, None]))
    return far


@torch.no_grad()
def _connected(alike: Tensor, seeds: Tensor) -> Tensor:
    """Strength of the best path from a seed to each pixel: of a path, the least of its pixels' likeness.

    Args:
        alike: Bx1xHxW in [0, 1].
        seeds: Bx1xHxW; 1 at the clicks.
    """
    reached = torch.where(seeds > 0.5, alike, 0.0)
    for _ in range(PATH_STEPS):
        reached = torch.minimum(F.max_pool2d(reached, 3, 1, 1), alike)
    return reached
