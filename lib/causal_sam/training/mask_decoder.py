"""The objective of the compact model's mask decoder and prompt encoder on rendered bodies, with LAD.

The encoder is frozen, since the volume context reads its embeddings. Prompts are clicks, boxes, masks of neighbouring
slices and coarse masks of the volume context. Some structures are shown in two styles: there the LAD loss lets the
decoder's features say nothing about the text of the style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.atomic import atomic_write
from causal_sam.imaging.overlap import dice
from causal_sam.prompting.borders import DECODER_SHARE
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding, joined
from causal_sam.sam.label_prompt import MAX_COARSE_LOGIT
from causal_sam.style.lad import LadConfig, LadLoss, reversal_ramp
from causal_sam.text import canonical
from causal_sam.training.adversary import train_adversary
from causal_sam.training.engine import Objective
from causal_sam.training.pretraining import (
    ROUNDS,
    VALIDATION_CLICKS,
    WEIGHT_DECAY,
    answer_loss,
    clicked_masks,
)
from causal_sam.training.prompted_slices import PromptedSlice, SlicesOfBody
from causal_sam.training.prompts import CoarseMasks, SimulatedPrompts
from causal_sam.volume.context import Encode

LAD = LadConfig(adversary=0.02, spread=0.3, invariance=0.3, anatomy=0.02, consistency=0.3, adversary_steps=1)
# Rate of the adversary, which must keep up with the features all the time.
ADVERSARY_RATE = 1e-3
# Share of the batches whose structures all have names and two styles, and of these the share that is shown in both.
NAMED_SHARE, PAIRED_SHARE = 0.7, 0.5


class Prompted(NamedTuple):
    """A structure on a slice.

    Attributes:
        slice: the slice.
        number: number of the structure on it.
    """

    slice: PromptedSlice
    number: int


class MaskDecoderObjective(Objective):
    """Trains all of the compact model but its encoder.

    Args:
        model: the compact model.
        encode: texts -> NxD unit vectors.
        text_dim: D.
        learning_rate: highest learning rate.
    """

    def __init__(self, model: CausalSam, encode: Encode, text_dim: int, learning_rate: float) -> None:
        super().__init__()
        self.model, self._encode, self._learning_rate = model, encode, learning_rate
        channels = model.sam.prompt_encoder.embed_dim
        model.requires_grad_(False)
        for part in (model.sam.prompt_encoder, model.sam.mask_decoder):
            part.requires_grad_(True)
        self.lad = LadLoss(channels, text_dim, LAD)
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Start the random choices from another seed."""
        self._rng = np.random.default_rng(seed)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Objective`; biases and norms do not decay."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        rate = self._learning_rate
        return [
            {"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
            {"params": self.lad.head_parameters, "lr": rate},
            {"params": self.lad.adversary_parameters, "lr": ADVERSARY_RATE, "scheduled": False},
        ]

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """See `train_adversary`."""
        train_adversary(self.lad, optimizer)

    def forward(self, batch: Sequence[Prompted], progress: float) -> dict[str, Tensor]:
        """Return the loss of a batch over a first prompt and corrections of the model's own masks, and its terms.

        The first and the last answer are learned from; those between only lead to the last. If all structures have
        names and two styles, half of them may be shown in both.

        Args:
            batch: structures on slices.
            progress: completed share of the training, 0 to 1.
        """
        rng, model = self._rng, self.model
        can_pair = all(each.slice.names[each.number] and len(each.slice.styles) == 2 for each in batch)
        is_paired = can_pair and rng.random() < PAIRED_SHARE
        views = 2 if is_paired else 1
        shown = list(batch[: len(batch) // views])
        embedding = _embedding(shown, views, rng)
        prompts = _prompts(shown, rng)
        target = F.avg_pool2d(torch.from_numpy(prompts.truth)[:, None].to(model.device).float(), 2)
        masks = prompts.mask_logits
        masks = None if masks is None else masks.float().repeat(views, 1, 1, 1)
        rounds = int(rng.choice(len(ROUNDS), p=ROUNDS)) + 1
        learning = {0, rounds - 1}
        losses: list[Tensor] = []
        for round_ in range(rounds):
            is_ambiguous = prompts.ambiguous
            with torch.set_grad_enabled(round_ in learning and torch.is_grad_enabled()), _Features(model) as features:
                points, labels = prompts.points or (None, None)
                boxes = prompts.boxes
                logits, iou = model.decode_all(
                    embedding,
                    points=None if points is None else points.repeat(views, 1, 1),
                    point_labels=None if labels is None else labels.repeat(views, 1),
                    boxes=None if boxes is None else boxes.repeat(views, 1),
                    mask_logits=masks,
                )
                logits, iou = logits.float(), iou.float()
            if round_ in learning:
                losses.append(answer_loss(logits, iou, target.repeat(views, 1, 1, 1), is_ambiguous))
            if round_ + 1 < rounds:
                masks = _best(logits, iou, is_ambiguous).detach()
                found = model.upscale(masks[: len(shown)])[:, 0] > 0
                prompts.click(found.cpu().numpy().astype(np.uint8))
        loss = masked = torch.stack(losses).mean()
        terms: dict[str, Tensor] = {}
        if is_paired:
            assert features.last is not None
            lad, terms = self._lad_loss(shown, features.last, target, logits[:, :1], progress)
            loss = loss + lad
        zero = loss.new_zeros(())
        record = {name: terms.get(name, zero).detach() for name in ("invariance", "consistency", "adversary")}
        return {"loss": loss, "masks": masked.detach(), **record}

    def _lad_loss(
        self,
        shown: Sequence[Prompted],
        features: Tensor,
        target: Tensor,
        logits: Tensor,
        progress: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the LAD loss of B structures in two styles, and its terms.

        Args:
            shown: the structures, which all have names.
            features: 2BxCxhxw, features of the decoder.
            target: Bx1xLxL true masks.
            logits: 2Bx1xLxL.
            progress: completed share of the training.
        """
        device = features.device
        vectors = self._encode([canonical(each.slice.names[each.number]) for each in shown])
        names, column = torch.unique(vectors.to(device), dim=0, return_inverse=True)
        is_own = F.one_hot(column, len(names)).bool()[..., None, None]
        truth = torch.where(is_own, target, 0.0)
        # A structure whose name another one of the batch has is not on the other's slice, as far as its mask says.
        competing = torch.where(is_own.repeat(2, 1, 1, 1), logits, -MAX_COARSE_LOGIT)
        styles = self._encode([each.slice.styles[view] for view in range(2) for each in shown]).to(device)
        ramp = reversal_ramp(progress)
        with torch.autocast(device.type, enabled=False):
            terms = self.lad(features.float(), styles, truth, names, competing, ramp)
            return self.lad.weighted(terms, ramp), terms._asdict()

    def save_weights(self, path: Path, step: int) -> None:
        """Write the weights of the model; the file appears whole or not at all."""
        weights = {name: value.contiguous() for name, value in self.model.sam.state_dict().items()}
        with atomic_write(path) as part:
            save_file(weights, part, metadata={"model": "compact", "step": str(step)})


class _Features:
    """Keeps the features from which a mask decoder draws masks, BxCxhxw in the last of its calls."""

    def __init__(self, model: CausalSam) -> None:
        self._layer = model.sam.mask_decoder.refine8
        self.last: Tensor | None = None

    def __enter__(self) -> _Features:
        def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.last = output

        self._handle = self._layer.register_forward_hook(keep)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()


def _embedding(shown: Sequence[Prompted], views: int, rng: np.random.Generator) -> Embedding:
    """Return the embeddings of slices in all views, one view after the other; a single view is a random style."""
    chosen = []
    for view in range(views):
        for each in shown:
            own = each.slice.embeddings
            one = own[view] if views > 1 else own[int(rng.integers(len(own)))]
            chosen.append(Embedding(one.features.float(), tuple(skip.float() for skip in one.skips)))
    return joined(chosen)


def _prompts(shown: Sequence[Prompted], rng: np.random.Generator) -> SimulatedPrompts:
    truth = np.stack([each.slice.masks[each.number] for each in shown])
    neighbours = np.stack([each.slice.neighbours[each.number] for each in shown])
    ended = np.stack([each.slice.ended for each in shown])
    coarse = CoarseMasks(
        torch.stack([each.slice.coarse[each.number].float() for each in shown])[:, None],
        torch.stack([each.slice.ended_coarse.float() for each in shown])[:, None],
    )
    return SimulatedPrompts(truth, neighbours, ended, rng, coarse)


def _best(logits: Tensor, iou: Tensor, is_ambiguous: bool) -> Tensor:
    """Return the masks that an annotator sees, Nx1xLxL: of hypotheses those that the model trusts most."""
    if not is_ambiguous:
        return logits[:, :1]
    pick = 1 + iou[:, 1:].argmax(1)
    return logits[torch.arange(len(pick)), pick][:, None]


def batches(bodies: Iterator[SlicesOfBody], size: int, seed: int) -> Iterator[list[Prompted]]:
    """Yield batches of structures without end, a share of them with structures that all have names and two styles.

    Args:
        bodies: stream of bodies without end.
        size: structures of a batch.
        seed: seed of the choices.
    """
    rng = np.random.default_rng(seed)
    while True:
        wants_names = rng.random() < NAMED_SHARE
        batch: list[Prompted] = []
        while len(batch) < size:
            slices = next(bodies).slices
            one = slices[rng.integers(len(slices))]
            numbers = [n for n, name in enumerate(one.names) if name or not wants_names]
            if numbers and (not wants_names or len(one.styles) == 2):
                batch.append(Prompted(one, int(rng.choice(numbers))))
        yield batch


@torch.inference_mode()
def validate(model: CausalSam, slices: Sequence[PromptedSlice]) -> dict[str, float]:
    """Measure Dice on slices that are not trained on.

    Args:
        model: the model.
        slices: the slices, of which the first structure counts.

    Returns:
        Mean Dice under "click@1", "click@3" and "click@5"; "coarse", of the coarse masks, and "border", of those with
        borders by the decoder.
    """
    scores: dict[str, list[float]] = {}
    for one in slices:
        embedding, truth = _embedding([Prompted(one, 0)], 1, np.random.default_rng(0)), one.masks[0]
        masks = clicked_masks(model, embedding, truth, max(VALIDATION_CLICKS))
        for clicks in VALIDATION_CLICKS:
            scores.setdefault(f"click@{clicks}", []).append(dice(masks[clicks - 1], truth))
        coarse = one.coarse[:1, None].float()
        drawn = model.decode(embedding, mask_logits=coarse).logits.float().clamp(-MASK_PROMPT_LOGIT, MASK_PROMPT_LOGIT)
        for kind, logits in (("coarse", coarse), ("border", coarse.lerp(drawn, DECODER_SHARE))):
            found = (model.upscale(logits)[0, 0] > 0).cpu().numpy()
            scores.setdefault(kind, []).append(dice(found, truth > 0))
    return {name: float(np.mean(values)) for name, values in scores.items()}
