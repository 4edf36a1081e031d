"""The objective of corrections by notes: a sentence modulates the mask decoder so that a wrong mask is put right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from causal_sam.imaging.overlap import dice
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT
from causal_sam.sam.adapter_bundle import FilmPart
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.film import Film, film_channels, make_modulable, modulated
from causal_sam.simulation.errors import KINDS
from causal_sam.text import TextEncoder
from causal_sam.training.engine import Objective
from causal_sam.training.losses import edit_loss

# Errors of acts that modulate the decoder; the others have exact operators.
MODULATED_KINDS = tuple(kind for kind in KINDS if kind not in ("island", "hole", "rough"))
SCORED_TOGETHER = 8


class CorrectionSample(NamedTuple):
    """A slice with a wrong mask.

    Attributes:
        image: 3xSxS float32 in [0, 1].
        wrong: SxS uint8.
        truth: SxS uint8, the mask that is wanted.
        region: SxS float32, the region of the intervention.
        sentence: canonical sentence of the intervention.
        strength: strength of the modulation.
    """

    image: NDArray[np.float32]
    wrong: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    region: NDArray[np.float32]
    sentence: str
    strength: float


class CorrectionBatch(Protocol):
    """B instances of `CorrectionSample` after `default_collate`."""

    image: Tensor
    wrong: Tensor
    truth: Tensor
    region: Tensor
    sentence: Sequence[str]
    strength: Tensor


class CorrectionObjective(Objective):
    """A frozen model and the FiLM generator that modulates its mask decoder; the generator alone is trained.

    Args:
        model: without adapters; it is frozen, and its decoder becomes one that can be modulated.
        encoder: text encoder of the sentences.
        learning_rate: highest learning rate.
        start: trained generator to start with; None for new ones.
    """

    def __init__(
        self, model: CausalSam, encoder: TextEncoder, learning_rate: float, start: FilmPart | None = None
    ) -> None:
        super().__init__()
        self.model, self._encoder, self._learning_rate = model.requires_grad_(False), encoder, learning_rate
        make_modulable(model)
        new = Film(encoder.dimension, film_channels(model)).to(model.device)
        self.film = new if start is None else start.load(model, encoder.fingerprint)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Objective`."""
        return [{"params": [*self.film.parameters()], "lr": self._learning_rate}]

    def forward(self, batch: CorrectionBatch, progress: float = 0.0) -> dict[str, Tensor]:
        """Return the loss of a batch, on any device; see `edit_loss`."""
        logits = self.propose(batch, self._encoder.encode(batch.sentence))
        parts = (part[:, None].to(logits.device).float() for part in (batch.truth, batch.wrong, batch.region))
        size = (logits.shape[-2], logits.shape[-1])
        return {"loss": edit_loss(logits, *(F.adaptive_avg_pool2d(part, size) for part in parts))}

    def propose(self, batch: CorrectionBatch, vectors: Tensor) -> Tensor:
        """Decide slices with the modulated decoder.

        Args:
            batch: B samples, as tensors on any device.
            vectors: BxD, text vectors of the sentences, on any device.

        Returns:
            Bx1xLxL logits on the model's device.
        """
        model, size = self.model, (self.model.mask_size, self.model.mask_size)
        with torch.no_grad():
            embedding = model.encode(batch.image)
        parts = (batch.wrong, batch.region, batch.strength)
        wrong, region, strength = (part.to(model.device).float() for part in parts)
        prompts = F.adaptive_avg_pool2d((2 * wrong[:, None] - 1) * MASK_PROMPT_LOGIT, size)
        region = F.adaptive_avg_pool2d(region[:, None], size)
        with modulated(self.film(vectors.to(model.device), strength, region)):
            return model.decode(embedding, mask_logits=prompts).logits.float()

    @torch.inference_mode()
    def score(self, samples: Sequence[CorrectionSample]) -> dict[str, float]:
        """Return Dice before and after, with the samples' own sentences and, as a control, with each other's."""
        scores: dict[str, list[float]] = {"before": [], "after": [], "other text": []}
        for first in range(0, len(samples), SCORED_TOGETHER):
            part = samples[first : first + SCORED_TOGETHER]
            batch = default_collate(list(part))
            vectors = self._encoder.encode(batch.sentence)
            for name, given in (("after", vectors), ("other text", vectors.roll(1, 0))):
                found = self.model.upscale(self.propose(batch, given))[:, 0] > 0
                for sample, proposed in zip(part, found.cpu().numpy(), strict=True):
                    decided = np.where(sample.region > 0, proposed, sample.wrong > 0)
                    scores[name].append(dice(decided, sample.truth > 0))
            scores["before"] += [dice(sample.wrong > 0, sample.truth > 0) for sample in part]
        gained = np.array(scores["after"]) - np.array(scores["before"])
        return {f"dice {name}": float(np.mean(values)) for name, values in scores.items()} | {
            "better": float((gained > 0).mean())
        }
