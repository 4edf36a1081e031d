"""The objective of pretraining: the compact model learns from generated images alone to answer clicks and boxes.

The encoder first trains alone: places in one structure get similar embeddings, places in different structures get
different ones. This loss stays to the end; otherwise the decoder, which reads the fine skips too, would learn to ignore
the embedding. Clicks and boxes follow: a first prompt, then corrections of the model's own errors. Training begins with
small images and ends at the final size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from causal_sam.atomic import atomic_write
from causal_sam.imaging.overlap import dice
from causal_sam.phantom.samples import Sample, samples
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact, set_image_size
from causal_sam.sam.embedding import Embedding
from causal_sam.simulation.annotator import next_click
from causal_sam.training.engine import Objective
from causal_sam.training.losses import hard_pixel_loss
from causal_sam.training.prompts import SimulatedPrompts

WEIGHTS = "compact.safetensors"
VALIDATION_SEED = 20_000_000
VALIDATION_CLICKS = (1, 3, 5)
WEIGHT_DECAY = 0.02
# Share of the steps in which the decoder does not see the skips, so that it learns to read the embedding.
WITHOUT_SKIPS = 0.2
# Contrast of places: temperature, weight beside the masks' losses, and share of a place's pixels that must be of one
# structure.
TEMPERATURE = 0.1
REGION_WEIGHT = 0.3
PURE = 0.7
# Shares of the steps with one to five clicks.
ROUNDS = (0.3, 0.27, 0.2, 0.13, 0.1)


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        size: side of the images in pixels.
        share: share of the training time.
        batch: images per step of all processes together.
        decoded: False to train the encoder alone.
    """

    size: int
    share: float
    batch: int
    decoded: bool = True


STAGES = (Stage(128, 0.2, 32, decoded=False), Stage(128, 0.3, 8), Stage(192, 0.38, 6), Stage(256, 0.12, 4))


class PhantomStream(IterableDataset):
    """Generated samples without end; each worker and each restart of the training draws others."""

    def __init__(self, size: int, structures: int, seed: int) -> None:
        self.size, self.structures, self.seed = size, structures, seed

    def __iter__(self) -> Iterator[Sample]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        worker = 0 if info is None else info.id
        yield from samples(self.size, self.structures, self.seed * 97 + worker)


class SampleBatch(Protocol):
    """B instances of `Sample` after the data loader's collation."""

    image: Tensor
    masks: Tensor
    neighbours: Tensor
    ended: Tensor
    regions: Tensor


class PretrainingObjective(Objective):
    """The compact model, of which everything is trained.

    Args:
        learning_rate: highest learning rate.
        init: weights of an earlier model to begin with, perhaps one with other parts; None for random ones.

    Attributes:
        new: names of the encoder's parameters that ``init`` does not have, which train before masks are decoded.
    """

    def __init__(self, learning_rate: float, init: Path | None = None) -> None:
        super().__init__()
        self._learning_rate = learning_rate
        self.model = CausalSam(build_compact(), "compact").to(memory_format=torch.channels_last)
        self.model.sam.image_encoder.requires_grad_(True)  # frozen everywhere but here
        taken = set() if init is None else self._take_over(load_file(init))
        self.new = {f"image_encoder.{name}" for name, _ in self.model.sam.image_encoder.named_parameters()} - taken
        self._rng = np.random.default_rng(0)

    def _take_over(self, weights: dict[str, Tensor]) -> set[str]:
        """Take the weights that fit, and return their names; the other parts of the model stay random."""
        own = self.model.sam.state_dict()
        fitting = {}
        for key, value in weights.items():
            if key in own and own[key].shape == value.shape:
                fitting[key] = value
            elif key in own and value.ndim > 1 and own[key][:, : value.shape[1]].shape == value.shape:
                # A layer with more input channels than before: the new ones have no influence at first.
                fitting[key] = torch.zeros_like(own[key])
                fitting[key][:, : value.shape[1]] = value
        self.model.sam.load_state_dict(fitting, strict=False)
        print(f"{len(fitting)} of {len(own)} tensors taken over")
        return set(fitting)

    def enter(self, stage: Stage, seed: tuple[int, ...] = (0,)) -> None:
        """Prepare for a stage.

        Args:
            stage: sets the input size, and which parameters train.
            seed: seed of the prompts.
        """
        set_image_size(self.model.sam, stage.size)
        for name, parameter in self.model.sam.named_parameters():
            parameter.requires_grad_(stage.decoded or name in self.new)
        self._rng = np.random.default_rng([*seed])

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Objective`; biases and norms do not decay."""
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        return [
            {"params": decayed, "lr": self._learning_rate, "weight_decay": WEIGHT_DECAY},
            {"params": others, "lr": self._learning_rate, "weight_decay": 0.0},
        ]

    def forward(self, batch: tuple[SampleBatch, int], progress: float = 0.0) -> dict[str, Tensor]:
        """Return the loss of a batch: of its places, and over a first prompt and corrections of the model's own masks.

        The first and the last answer are learned from; those between only lead to the last.

        Args:
            batch: B samples as tensors: images Bx3xSxS in [0, 1], masks and neighbours BxKxSxS, ended and regions
                BxSxS uint8; and the number of answers, 0 for the places alone.
            progress: unused.
        """
        sample, rounds = batch
        model, rng = self.model, self._rng
        structures = sample.masks.shape[1]
        embedding = model.encode(sample.image.contiguous(memory_format=torch.channels_last))
        contrast = region_loss(embedding.features, sample.regions.to(model.device))
        if rounds == 0:
            return {"loss": contrast, "regions": contrast.detach()}
        seen = rng.random() >= WITHOUT_SKIPS
        embedding = Embedding(
            embedding.features.repeat_interleave(structures, 0),
            tuple((skip * seen).repeat_interleave(structures, 0) for skip in embedding.skips),
        )
        truth, neighbours = (masks.flatten(0, 1).numpy() for masks in (sample.masks, sample.neighbours))
        prompts = SimulatedPrompts(truth, neighbours, sample.ended.repeat_interleave(structures, 0).numpy(), rng)
        target = F.avg_pool2d(torch.from_numpy(prompts.truth)[:, None].to(model.device).float(), 2)
        total = torch.zeros((), device=model.device)
        learning = {0, rounds - 1}
        for round_ in range(rounds):
            with torch.set_grad_enabled(round_ in learning and torch.is_grad_enabled()):
                points, labels = prompts.points or (None, None)
                logits, iou = model.decode_all(
                    embedding,
                    points=points,
                    point_labels=labels,
                    boxes=prompts.boxes,
                    mask_logits=prompts.mask_logits,
                )
                logits, iou = logits.float(), iou.float()
            if round_ in learning:
                total = total + answer_loss(logits, iou, target, prompts.ambiguous)
            if round_ + 1 < rounds:
                shown = logits[:, :1]
                if prompts.ambiguous:  # the annotator sees the hypothesis that the model trusts most
                    pick = 1 + iou[:, 1:].argmax(1)
                    shown = logits[torch.arange(len(pick)), pick][:, None]
                shown = shown.detach()
                prompts.mask_logits = shown
                prompts.click((model.upscale(shown)[:, 0] > 0).cpu().numpy().astype(np.uint8))
        return {"loss": total / len(learning) + REGION_WEIGHT * contrast, "regions": contrast.detach()}

    def save_weights(self, path: Path, step: int) -> None:
        """Write the weights of the model; the file appears whole or not at all."""
        weights = {name: value.contiguous() for name, value in self.model.sam.state_dict().items()}
        with atomic_write(path) as part:
            save_file(weights, part, metadata={"model": "compact", "step": str(step)})


def answer_loss(logits: Tensor, iou: Tensor, target: Tensor, ambiguous: bool) -> Tensor:
    """Return the loss of the decoder's four masks and of its own estimates of their overlap.

    Args:
        logits: Nx4xLxL, the single answer and three hypotheses.
        iou: Nx4, estimated intersection over union.
        target: Nx1xLxL in [0, 1].
        ambiguous: True if the prompt may mean several structures, and the hypotheses count in full.
    """
    losses = hard_pixel_loss(logits, target)
    single, hypotheses = losses[:, 0], losses[:, 1:]
    # The best hypothesis learns most; a little for all of them keeps none from dying.
    best = 0.9 * hypotheses.amin(1) + 0.1 * hypotheses.mean(1)
    return (single + (1.0 if ambiguous else 0.25) * best).mean() + F.mse_loss(iou, true_iou(logits, target))


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of the thresholded masks, NxM."""
    inside, truth = logits > 0, (target > 0.5).expand_as(logits)
    return (inside & truth).sum((-2, -1)) / (inside | truth).sum((-2, -1)).clamp(min=1)


def region_loss(features: Tensor, regions: Tensor) -> Tensor:
    """Places of one image in the same structure must have more similar embeddings than places in different ones.

    Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, equation 2) between the places of each image;
    every structure weighs the same, however large it is. Places on borders are left out.

    Args:
        features: BxCxhxw.
        regions: BxSxS uint8, numbers of the structures.

    Returns:
        The mean over all structures with at least two places; 0 if there is none.
    """
    side = regions.shape[-1] // features.shape[-1]
    middles = regions[:, side // 2 :: side, side // 2 :: side]
    same = (middles.repeat_interleave(side, 1).repeat_interleave(side, 2) == regions).float()
    pure = (F.avg_pool2d(same[:, None], side)[:, 0] > PURE).flatten(1)
    numbers = middles.flatten(1)
    places = F.normalize(features.float().flatten(2), dim=1)
    logits = places.transpose(1, 2) @ places / TEMPERATURE
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    counted = pure[:, None] & pure[:, :, None] & ~itself
    alike = counted & (numbers[:, None] == numbers[:, :, None])
    found = logits - logits.masked_fill(~counted, -torch.inf).logsumexp(-1, keepdim=True)
    partners = alike.sum(-1)
    losses = -found.where(alike, 0).sum(-1) / partners.clamp(min=1)
    weights = (partners > 0) / (partners + 1)
    return (weights * losses.where(partners > 0, 0)).sum() / weights.sum().clamp(min=1)


def batches(
    stage: Stage, structures: int, step: int, rank: int = 0, processes: int = 1
) -> Iterator[tuple[SampleBatch, int]]:
    """Yield the batches of this process without end, each with the number of answers, the same in all processes.

    Args:
        stage: sets the size of the images and their number.
        structures: structures that are segmented in each image.
        step: number of steps that were made, so that a restarted training sees other images.
        rank: rank of this process among all that train.
        processes: number of processes that train.
    """
    stream = PhantomStream(stage.size, structures, (1 + step) * processes + rank)
    # Not forked: this process has threads by now, and a forked one would wait for their locks without end.
    loader: DataLoader[Any] = DataLoader(
        stream, stage.batch // processes, num_workers=1, prefetch_factor=4, multiprocessing_context="spawn"
    )
    for number, sample in enumerate(loader, start=step):
        rounds = int(np.random.default_rng([0, number]).choice(len(ROUNDS), p=ROUNDS)) + 1
        yield sample, rounds if stage.decoded else 0


@torch.inference_mode()
def predict_like_an_annotator(model: CausalSam, image: Tensor, truth: np.ndarray, clicks: int) -> list[np.ndarray]:
    """Masks after 1, 2, … ``clicks`` clicks at the deepest points of the errors; image 3xSxS, truth SxS."""
    return clicked_masks(model, model.encode(image[None]), truth, clicks)


@torch.inference_mode()
def clicked_masks(model: CausalSam, embedding: Embedding, truth: np.ndarray, clicks: int) -> list[np.ndarray]:
    """Masks of a slice after 1, 2, … ``clicks`` clicks at the deepest points of the errors.

    Args:
        model: the model.
        embedding: embedding of the slice.
        truth: SxS.
        clicks: number of clicks.

    Returns:
        Masks SxS uint8.
    """
    mask, previous = np.zeros_like(truth), None
    points: list[tuple[float, float]] = []
    labels: list[float] = []
    masks = []
    for n in range(clicks):
        click = next_click(truth, mask)
        if click is not None:
            points.append((float(click.column), float(click.row)))
            labels.append(float(click.foreground))
            decoded = model.decode(
                embedding,
                points=torch.tensor([points]),
                point_labels=torch.tensor([labels]),
                mask_logits=previous,
                multimask=n == 0,
            )
            best = int(decoded.iou[0].argmax())
            previous = decoded.logits[:, best : best + 1].float()
            mask = (model.upscale(previous)[0, 0] > 0).cpu().numpy().astype(np.uint8)
        masks.append(mask)
    return masks


def validate(model: CausalSam, size: int, count: int, picture: Path | None = None) -> dict[str, float]:
    """Mean Dice after 1, 3 and 5 clicks on a fixed generated set; draws some of it as a picture."""
    scores: dict[int, list[float]] = {n: [] for n in VALIDATION_CLICKS}
    tiles = []
    stream = samples(size, 2, VALIDATION_SEED + size)
    for _ in range(count):
        sample = next(stream)
        image = torch.from_numpy(sample.image)
        for truth in sample.masks:
            masks = predict_like_an_annotator(model, image, truth, max(VALIDATION_CLICKS))
            for clicks in VALIDATION_CLICKS:
                scores[clicks].append(dice(masks[clicks - 1], truth))
            tiles.append(_tile(sample.image[1], truth, masks[0], masks[2]))
    if picture is not None:
        rows = [np.concatenate(tiles[n : n + 4], axis=1) for n in range(0, min(len(tiles), 16) - 3, 4)]
        cv2.imwrite(str(picture), np.concatenate(rows or tiles[:1], axis=0))
    return {f"dice@{n}": float(np.mean(scores[n])) for n in VALIDATION_CLICKS}


def _tile(image: np.ndarray, truth: np.ndarray, first: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Image with the truth (green), and the masks after one (red) and three (yellow) clicks."""
    tile = np.repeat((image * 255).astype(np.uint8)[..., None], 3, axis=2)
    for mask, colour in ((truth, (0, 200, 0)), (first, (60, 60, 255)), (third, (0, 230, 255))):
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, contours, -1, colour, 1)
    return tile
