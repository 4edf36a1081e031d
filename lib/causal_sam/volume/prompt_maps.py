"""Prompts as maps on the grid of the context network: places, likeness to them, connectedness with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

# Radii, in cells, at which a point falls to 1/e: one marks the place, one reaches over a small organ.
RADII = (1.2, 5.0)
GROUPS = 4
# Differences of brightness (0 to 1) at which two cells no longer look alike: strictly and loosely.
BRIGHTNESS_WIDTHS = (0.05, 0.15)
# A path hangs together with a point as long as its brightness differs by less than this from the point's.
PATH_WIDTH = 0.25
# Steps of paths at half the resolution of the grid: enough to cross it.
PATH_STEPS = 20
# For both kinds of points: places, likeness in description, in brightness and in the wide window, connectedness.
# Then the box and whether there is one, the mask so far and the likeness to it, the name's map and whether it has one.
MAP_CHANNELS = 2 * (len(RADII) + GROUPS + len(BRIGHTNESS_WIDTHS) + 1 + 1) + 2 + 1 + GROUPS + 1 + 2


@dataclass(frozen=True)
class GridPrompts:
    """Prompts of one structure on a grid.

    Attributes:
        foreground, background: Nx3 positions (slice, row, column) in cells; 0 is the centre of the first cell.
        box: 2x3 first and last position, or None.
        mask: ZxYxX probability of the mask so far, or None.
        name: ZxYxX logits of the label's name, or None.
    """

    foreground: Tensor = field(default_factory=lambda: torch.empty(0, 3))
    background: Tensor = field(default_factory=lambda: torch.empty(0, 3))
    box: Tensor | None = None
    mask: Tensor | None = None
    name: Tensor | None = None


def draw_prompts(
    descriptors: Tensor, brightness: Tensor, prompts: GridPrompts, cell_mm: tuple[float, float, float]
) -> Tensor:
    """Draw the maps of a structure's prompts.

    Args:
        descriptors: 1xDxZxYxX, compared in `GROUPS` groups.
        brightness: 1x2xZxYxX, in the narrow and in the wide window.
        prompts: prompts on this grid.
        cell_mm: size of a cell in mm: slices, rows, columns.

    Returns:
        1x`MAP_CHANNELS`xZxYxX.
    """
    shape = brightness.shape[2:]
    device = brightness.device
    zeros = torch.zeros(shape, device=device)
    described = _unit(descriptors.float()[0].unflatten(0, (GROUPS, -1)))  # GxdxZxYxX
    narrow, wide = brightness[0].float()
    # A point means the tissue around it, not the noise of one cell.
    smooth = F.avg_pool2d(brightness[0].float(), 3, 1, 1, count_include_pad=False)
    maps: list[Tensor] = []
    for points in (prompts.foreground, prompts.background):
        points = points.to(device)
        if not len(points):
            maps += [zeros] * (len(RADII) + GROUPS + len(BRIGHTNESS_WIDTHS) + 2)
            continue
        spots = [_spots(points, shape, radius, cell_mm) for radius in RADII]
        maps += spots
        z, y, x = nearest_cells(points, shape)
        maps += list(_likeness(described, points))
        clicked = smooth[:, z, y, x]
        far = (narrow[None] - clicked[0, :, None, None, None]).abs().amin(0)
        maps += [torch.exp(-((far / width) ** 2)) for width in BRIGHTNESS_WIDTHS]
        far_wide = (wide[None] - clicked[1, :, None, None, None]).abs().amin(0)
        maps.append(torch.exp(-((far_wide / BRIGHTNESS_WIDTHS[0]) ** 2)))
        maps.append(_connected(smooth[0], far, points))
    maps += [zeros, zeros] if prompts.box is None else [_box(prompts.box.to(device), shape), zeros + 1]
    if prompts.mask is None:
        maps += [zeros] * (1 + GROUPS + 1)
    else:
        mask = prompts.mask.to(device).float()
        total = mask.sum().clamp(min=1)
        mean = _unit(torch.einsum("gdzyx,zyx->gd", described, mask))
        maps += [mask, *torch.einsum("gd,gdzyx->gzyx", mean, described)]
        maps.append(torch.exp(-(((narrow - (narrow * mask).sum() / total) / BRIGHTNESS_WIDTHS[1]) ** 2)))
    maps += [zeros, zeros] if prompts.name is None else [prompts.name.to(device).float().sigmoid(), zeros + 1]
    return torch.stack(maps)[None]


def likeness(descriptors: Tensor, points: Tensor) -> Tensor:
    """Return the likeness of all cells to the most similar of some points.

    Args:
        descriptors: 1xDxZxYxX.
        points: Nx3 positions in cells.

    Returns:
        `GROUPS`xZxYxX cosines, one for each group of descriptors; 0 without points.
    """
    if not len(points):
        return torch.zeros(GROUPS, *descriptors.shape[2:])
    return _likeness(_unit(descriptors.float()[0].unflatten(0, (GROUPS, -1))), points)


def _likeness(described: Tensor, points: Tensor) -> Tensor:
    """Return the likeness GxZxYxX to points, from unit vectors GxdxZxYxX."""
    z, y, x = nearest_cells(points, described.shape[2:])
    return torch.einsum("gdn,gdzyx->gnzyx", described[:, :, z, y, x], described).amax(1)


def _unit(x: Tensor) -> Tensor:
    """Scale along the second axis to unit length."""
    return x * x.square().sum(1, keepdim=True).add(1e-6).rsqrt()


def _spots(points: Tensor, shape: torch.Size, radius: float, cell_mm: tuple[float, float, float]) -> Tensor:
    """Draw points as balls of a radius in cells of the rows; slices as thick as they are."""
    decay = []
    for axis, count in enumerate(shape):
        scale = radius * min(1.0, cell_mm[1] / cell_mm[axis]) if axis else radius * cell_mm[1] / cell_mm[0]
        distance = torch.arange(count, device=points.device) - points[:, axis, None]
        decay.append(torch.exp(-((distance / max(scale, 0.6)) ** 2)))
    z, y, x = decay
    return (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).amax(0)


def nearest_cells(points: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return slice, row and column of the cell nearest to each point.

    Args:
        points: Nx3 positions in cells.
        shape: slices, rows and columns of the grid.
    """
    cells = points.round().long()
    z, y, x = (cells[:, axis].clamp(0, count - 1) for axis, count in enumerate(shape))
    return z, y, x


def _box(box: Tensor, shape: torch.Size) -> Tensor:
    inside = []
    for axis, count in enumerate(shape):
        cells = torch.arange(count, device=box.device)
        low, high = box[0, axis] - 0.5, box[1, axis] + 0.5
        inside.append(((cells + 0.5 - low).clamp(0, 1) * (high - cells + 0.5).clamp(0, 1)).float())
    z, y, x = inside
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


@torch.no_grad()
def _connected(smooth: Tensor, far: Tensor, points: Tensor) -> Tensor:
    """Return the strength of the best path from a point to each cell; a path is as strong as its least similar cell.

    Fuzzy connectedness (Udupa and Samarasekera 1996, doi:10.1006/gmip.1996.0021) at half the resolution.

    Args:
        smooth: ZxYxX brightness.
        far: ZxYxX difference of brightness from the nearest of the points' brightnesses.
        points: Nx3 positions in cells.
    """
    shape = smooth.shape
    factor = tuple(2 if side > 2 else 1 for side in shape)
    alike = F.avg_pool3d(
        (1 - far / PATH_WIDTH).clamp(min=0)[None, None], factor, ceil_mode=True, count_include_pad=False
    )
    z, y, x = nearest_cells(points, shape)
    reached = torch.zeros_like(alike)
    reached[0, 0, z // factor[0], y // factor[1], x // factor[2]] = 1
    reached = torch.minimum(reached, alike)
    for _ in range(PATH_STEPS):
        reached = torch.minimum(F.max_pool3d(reached, 3, 1, 1), alike)
    return F.interpolate(reached, shape, mode="trilinear", align_corners=False)[0, 0]
