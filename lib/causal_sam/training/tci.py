"""What notes teach the modulation of the mask decoder: slices with a wrong mask, and what puts it right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from causal_sam.imaging.overlap import dice
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.film import Film, modulated
from causal_sam.simulation.errors import KINDS
from causal_sam.text import TextEncoder

# Errors of acts that modulate the decoder; the others have exact operators.
MODULATED_KINDS = tuple(kind for kind in KINDS if kind not in ("island", "hole", "rough"))
SCORED_TOGETHER = 8


class Lesson(NamedTuple):
    """A slice with a wrong mask.

    Attributes:
        image: 3xSxS float32 in [0, 1].
        wrong: SxS uint8.
        truth: SxS uint8, what is wanted.
        region: SxS float32.
        sentence: of the intervention.
        strength: of the modulation.
    """

    image: NDArray[np.float32]
    wrong: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    region: NDArray[np.float32]
    sentence: str
    strength: float


def propose(model: CausalSam, film: torch.nn.Module, batch: Lesson, vectors: Tensor) -> Tensor:
    """Decide slices with the modulated decoder.

    Args:
        model: whose decoder can be modulated.
        film: makes the modulation; on the model's device.
        batch: of B lessons, as tensors on any device.
        vectors: BxD, of the sentences, on any device.

    Returns:
        Bx1xLxL logits on the model's device.
    """
    size, device = (model.mask_size, model.mask_size), model.device
    with torch.no_grad():
        embedding = model.encode(batch.image)
    wrong, region, strength = (part.to(device).float() for part in (batch.wrong, batch.region, batch.strength))
    prompts = F.adaptive_avg_pool2d((2 * wrong[:, None] - 1) * MASK_PROMPT_LOGIT, size)
    with modulated(film(vectors.to(device), strength, F.adaptive_avg_pool2d(region[:, None], size))):
        return model.decode(embedding, mask_logits=prompts).logits.float()


def correction_loss(logits: Tensor, batch: Lesson) -> Tensor:
    """Cross-entropy inside the region, and 1 - Dice of the mask that comes of it: the wrong one, decided anew there.

    Args:
        logits: Bx1xLxL.
        batch: of B lessons, as tensors on any device.
    """
    size = logits.shape[-2:]
    truth, wrong, region = (
        F.adaptive_avg_pool2d(part[:, None].to(logits.device).float(), size)
        for part in (batch.truth, batch.wrong, batch.region)
    )
    inside = (region > 0).float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (entropy * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)
    mask = logits.sigmoid() * inside + wrong * (1 - inside)
    overlap = (2 * (mask * truth).sum((1, 2, 3)) + 1) / (mask.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
    return (entropy + 1 - overlap).mean()


@torch.inference_mode()
def score_lessons(model: CausalSam, film: Film, encoder: TextEncoder, lessons: Sequence[Lesson]) -> dict[str, float]:
    """Dice before and after, with the lessons' own sentences and, as a control, with each other's."""
    scores: dict[str, list[float]] = {"before": [], "after": [], "other text": []}
    for first in range(0, len(lessons), SCORED_TOGETHER):
        part = lessons[first : first + SCORED_TOGETHER]
        batch = default_collate(part)
        vectors = encoder.encode(batch.sentence)
        for name, given in (("after", vectors), ("other text", vectors.roll(1, 0))):
            found = model.upscale(propose(model, film, batch, given))[:, 0] > 0
            for lesson, proposed in zip(part, found.cpu().numpy(), strict=True):
                decided = np.where(lesson.region > 0, proposed, lesson.wrong > 0)
                scores[name].append(dice(decided, lesson.truth > 0))
        scores["before"] += [dice(lesson.wrong > 0, lesson.truth > 0) for lesson in part]
    gained = np.array(scores["after"]) - np.array(scores["before"])
    return {f"dice {name}": float(np.mean(values)) for name, values in scores.items()} | {
        "better": float((gained > 0).mean())
    }
