"""Coarse masks with the errors of a volume context, as prompts of the mask decoder."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causal_sam.prompting.volume_mask import coarse_mask_prompts

# Strides of the grids of a context in pixels of the input, and the share of the coarser one.
STRIDES, COARSER_SHARE = (4, 2), 0.7
# Pixels of the input in a pixel of the mask grid.
MASK_STRIDE = 2
# Errors of the place and the size of masks in cells: standard deviation of the shift, largest change of the radius.
SHIFT, GROWTH = 0.6, 1.3
# Probabilities that a part of the mask is missing, and that it leaks into something else.
CUT_SHARE, LEAK_SHARE = 0.15, 0.2
# Blur in cells, logit well inside, and standard deviation of the noise of the logits.
BLUR, SURENESS, NOISE = (0.4, 1.2), (2.0, 8.0), (0.0, 1.2)


def degraded(mask: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Return a coarse mask that a context could give for a true one: of the wrong size, shifted, blurred, unsure.

    Args:
        mask: SxS, not empty.
        rng: source of randomness.

    Returns:
        1xLxL logits on the mask grid, within `MASK_PROMPT_LOGIT`.
    """
    stride = STRIDES[0] if rng.random() < COARSER_SHARE else STRIDES[1]
    wrong = mask.copy()
    radius = round(stride * float(rng.uniform(-GROWTH, GROWTH)))
    if radius:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(radius) + 1,) * 2)
        grown = np.asarray(cv2.dilate(wrong, kernel) if radius > 0 else cv2.erode(wrong, kernel), np.uint8)
        wrong = grown if grown.any() else wrong
    down, right = rng.normal(0, SHIFT * stride, 2)
    move = np.array([[1, 0, right], [0, 1, down]], np.float32)
    wrong = np.asarray(cv2.warpAffine(wrong, move, wrong.shape[::-1], flags=cv2.INTER_NEAREST), np.uint8)
    places = np.argwhere(mask)
    reach = max(2 * stride, 0.5 * np.sqrt(len(places) / np.pi))
    for share, value in ((CUT_SHARE, 0), (LEAK_SHARE, 1)):
        if rng.random() < share:
            row, column = places[rng.integers(len(places))]
            cv2.circle(wrong, (int(column), int(row)), round(reach * float(rng.uniform(0.5, 1.2))), (value,), -1)
    cells = F.avg_pool2d(torch.from_numpy(wrong.astype(np.float32))[None, None], stride)[0, 0].numpy()
    cells = cv2.GaussianBlur(cells, (0, 0), float(rng.uniform(*BLUR)))
    noise = cv2.GaussianBlur(rng.normal(0, 1, cells.shape).astype(np.float32), (0, 0), 1.5)
    noise = np.asarray(noise, np.float32) * (float(rng.uniform(*NOISE)) / max(float(noise.std()), 1e-6))
    logits = float(rng.uniform(*SURENESS)) * (2 * cells - 1) + noise
    cells_logits = torch.from_numpy(logits.astype(np.float32))[None]
    return coarse_mask_prompts(cells_logits, stride // MASK_STRIDE, mask.shape[0] // MASK_STRIDE)
