"""Simulated prompts on the grid of the volume context, as an annotator gives them who sees mask and image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from causal_sam.volume.prompt_maps import GridPrompts

# Kinds of a first prompt and their shares.
FIRST = {"point": 0.6, "box": 0.1, "scribble": 0.12, "name": 0.06, "mask": 0.12}
# Share of named structures whose name comes with the first prompt.
WITH_NAME = 0.5
MAX_SCRIBBLE = 8
# Share of the boxes that are drawn on one slice and say nothing about the others.
FLAT_SHARE = 0.5


def first_prompt(
    target: Tensor, name: Tensor | None, rng: np.random.Generator, *, kinds: dict[str, float] | None = None
) -> GridPrompts:
    """Return a first prompt of a structure.

    Args:
        target: ZxYxX share of each cell that is inside; some cell is.
        name: ZxYxX logits of its name; None for a structure without a name.
        rng: source of randomness.
        kinds: shares of the kinds of prompts, by default `FIRST`.
    """
    kinds = kinds or FIRST
    kind = rng.choice(list(kinds), p=list(kinds.values()))
    if kind == "name" and name is None:
        kind = "point"
    shown = name if name is not None and (kind == "name" or rng.random() < WITH_NAME) else None
    if kind == "name":
        return GridPrompts(name=shown)
    if kind == "box":
        cells = (target > 0.5).nonzero() if (target > 0.5).any() else (target > 0).nonzero()
        if rng.random() < FLAT_SHARE:
            cells = cells[cells[:, 0] == cells[rng.integers(len(cells)), 0]]
        jitter = torch.from_numpy(rng.normal(0, 0.4, (2, 3))).float()
        box = torch.stack([cells.amin(0), cells.amax(0)]) + jitter
        return GridPrompts(box=box.sort(0).values, name=shown)
    if kind == "mask":
        mask = _damaged(target, rng)
        return corrected(GridPrompts(mask=mask, name=shown), target, mask, rng)
    if kind == "scribble":
        return GridPrompts(foreground=_scribble(target, rng), name=shown)
    return GridPrompts(foreground=_inside(target, 1, rng), name=shown)


def corrected(prompts: GridPrompts, target: Tensor, answer: Tensor, rng: np.random.Generator) -> GridPrompts:
    """Return the prompts with a click on an error of the last answer, and that answer as the mask so far.

    The click is where errors are thickest, or on a random one.

    Args:
        prompts: prompts so far.
        target: ZxYxX share of each cell that is inside.
        answer: ZxYxX probabilities.
        rng: source of randomness.
    """
    wrong = (target > 0.5) != (answer > 0.5)
    error = (target - answer).abs() * (wrong if wrong.any() else 1.0)
    padded = F.pad(error[None, None], (2, 2, 2, 2, 1, 1))
    thick = F.avg_pool3d(padded, (3, 5, 5), 1)[0, 0] * (error > 0)
    if rng.random() < 0.5:
        cell = int(thick.argmax())
    else:
        weights = thick.flatten().double().square()
        cell = int(torch.multinomial(weights, 1, generator=_generator(rng))) if weights.sum() > 0 else 0
    position = torch.tensor(np.unravel_index(cell, tuple(target.shape)), dtype=torch.float32)
    is_foreground = bool(target.flatten()[cell] > 0.5)
    position = (position + torch.from_numpy(rng.uniform(-0.4, 0.4, 3)).float())[None]
    foreground = torch.cat([prompts.foreground, position]) if is_foreground else prompts.foreground
    background = prompts.background if is_foreground else torch.cat([prompts.background, position])
    return GridPrompts(foreground, background, prompts.box, answer, prompts.name)


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def _inside(target: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Draw positions inside, with the density of the structure."""
    weights = target.flatten().double()
    weights = weights * (weights >= min(0.5, float(weights.max())))
    cells = torch.multinomial(weights, count, replacement=True, generator=_generator(rng)).numpy()
    positions = np.stack(np.unravel_index(cells, tuple(target.shape)), 1) + rng.uniform(-0.4, 0.4, (count, 3))
    return torch.from_numpy(positions).float()


def _scribble(target: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw positions along a line on one slice, and sometimes on two."""
    points = []
    for _ in range(int(rng.choice([1, 1, 2]))):
        slice_ = int(_inside(target, 1, rng)[0, 0].round().clamp(0, len(target) - 1))
        here = (target[slice_] > 0.5).nonzero()
        if not len(here):
            continue
        first, last = here[rng.integers(len(here), size=2)].float()
        steps = torch.linspace(0, 1, int(rng.integers(2, MAX_SCRIBBLE + 1)))[:, None]
        line = first + steps * (last - first)
        cells = line.round().long()
        line = line[target[slice_, cells[:, 0], cells[:, 1]] > 0.5]
        points.append(torch.cat([torch.full((len(line), 1), float(slice_)), line], 1))
    points = [line for line in points if len(line)]
    return torch.cat(points) if points else _inside(target, 1, rng)


def _damaged(target: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a mask with the errors of masks: too large or small, cut off, shifted, without slices, leaking."""
    mask = (target > 0.5).float()
    kind = rng.choice(["grown", "shrunk", "cut", "shifted", "slices", "leak"])
    if kind == "grown":
        mask = F.max_pool3d(mask[None], 3, 1, 1)[0]
    elif kind == "shrunk":
        mask = -F.max_pool3d(-mask[None], 3, 1, 1)[0]
    elif kind == "shifted":
        mask = mask.roll(tuple(int(v) for v in rng.integers(-2, 3, 3)), (0, 1, 2))
    cells = (target > 0.5).nonzero()
    if not len(cells):
        return mask
    if kind in ("cut", "slices"):
        axis = 0 if kind == "slices" else int(rng.integers(3))
        cut = int(cells[rng.integers(len(cells)), axis])
        kept = [slice(None)] * 3
        kept[axis] = slice(None, cut) if rng.random() < 0.5 else slice(cut, None)
        only = torch.zeros_like(mask)
        only[tuple(kept)] = mask[tuple(kept)]
        mask = only
    elif kind == "leak":
        centre = cells[rng.integers(len(cells))]
        ranges = [torch.arange(n) - int(c) for n, c in zip(mask.shape, centre, strict=True)]
        radius = rng.uniform(2, 7)
        z, y, x = ranges
        ball = (z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2) < radius**2
        mask = torch.maximum(mask, ball.float())
    return mask
