"""Train the compact model from generated images alone.

    python training/pretrain_compact.py --minutes 90 --out runs/compact

Several processes share the work, each with its own images: on a processor one for each core is faster than one for all
of them, because no core waits for another within a step.

    torchrun --nproc-per-node 2 training/pretrain_compact.py --minutes 90 --out runs/compact

The images are drawn on the fly (`causal_sam.phantom`). At first the encoder learns alone, to give places in one
structure like embeddings and places in different ones other embeddings. It goes on with that to the end: a decoder that
reads the fine skips beside the embedding would else learn to do without the latter. Then the clicks and boxes come,
drawn by `causal_sam.simulation.annotator`: a first prompt, and corrections of the model's own errors. Small images come
first, the final size last. The run can be stopped at any time and started again with the same command; it goes on from
its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, `examples-*.png`, TensorBoard events, and with each checkpoint
`compact.safetensors`, the averaged weights to ship.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import argparse
import copy
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from causal_sam.atomic import atomic_write
from causal_sam.imaging.overlap import dice
from causal_sam.phantom.samples import Sample, samples
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact, set_image_size
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.loading import has_bfloat16_units
from causal_sam.simulation.annotator import deepest_point, next_click
from causal_sam.training.log import TrainingLog

VALIDATION_SEED = 20_000_000
VALIDATION_CLICKS = (1, 3, 5)


@dataclass(frozen=True)
class Stage:
    """A part of the run: image size in pixels, share of the time, images per step, whether masks are decoded."""

    size: int
    share: float
    batch: int
    decoded: bool = True


STAGES = (Stage(128, 0.2, 32, decoded=False), Stage(128, 0.3, 8), Stage(192, 0.38, 6), Stage(256, 0.12, 4))
# Share of the steps in which the decoder does not see the skips, so that it learns to read the embedding.
WITHOUT_SKIPS = 0.2
# Of the comparison of places: temperature, weight beside the masks' losses, and the share of a place's pixels that must
# be of one structure.
TEMPERATURE = 0.1
REGION_WEIGHT = 0.3
PURE = 0.7
# Share of the structures followed from a neighbouring slice that end there, where the sample has such.
ENDED = 0.5
# Share of the steps with one to five clicks.
ROUNDS = (0.3, 0.27, 0.2, 0.13, 0.1)


class PhantomStream(IterableDataset):
    """Generated samples for ever; each worker and each restart of the run draws others."""

    def __init__(self, size: int, structures: int, seed: int) -> None:
        self.size, self.structures, self.seed = size, structures, seed

    def __iter__(self) -> Iterator[Sample]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        worker = 0 if info is None else info.id
        yield from samples(self.size, self.structures, self.seed * 97 + worker)


class Prompts:
    """Prompts of N structures that grow by one click a round, as tensors for the prompt encoder."""

    def __init__(self, truth: np.ndarray, neighbours: np.ndarray, ended: np.ndarray, rng: np.random.Generator) -> None:
        """Draw the first prompts.

        These are a click, a box, an earlier, wrong mask together with its correction, or nothing but the mask of a
        neighbouring slice, as when a structure is followed through a volume.

        Args:
            truth: NxSxS uint8.
            neighbours: NxSxS uint8, of the same structures.
            ended: NxSxS uint8, structures of the neighbouring slice whose mask on this one is empty; or empty.
            rng: source of randomness.
        """
        self.truth, self.rng = truth, rng
        self.coordinates: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.boxes: Tensor | None = None
        self.mask_logits: Tensor | None = None
        self.kind = rng.choice(["click", "box", "mask", "neighbour", "empty"], p=[0.5, 0.1, 0.17, 0.2, 0.03])
        if self.kind == "click":
            self.click(np.zeros_like(truth))
        elif self.kind == "box":
            self.boxes = torch.from_numpy(np.stack([self._box(t) for t in truth]))
        elif self.kind == "neighbour":
            ends = ended.any(axis=(1, 2), keepdims=True) & (rng.random((len(truth), 1, 1)) < ENDED)
            self.truth = np.where(ends, 0, truth).astype(np.uint8)
            present = neighbours.any(axis=(1, 2), keepdims=True)
            self.wrong = np.where(ends, ended, np.where(present, neighbours, truth))
            self._show(self.wrong)
        else:
            wrong = np.stack([self._spoil(t) for t in truth])
            if self.kind == "empty":  # all of the mask is wrong, as on a slice beyond the end of the structure
                wrong |= truth
                self.truth = truth = np.zeros_like(truth)
            self.wrong = wrong
            self._show(wrong)
            self.click(wrong)

    @property
    def ambiguous(self) -> bool:
        """One click and nothing else: it may mean a lesion, its organ or the body."""
        return self.kind == "click" and len(self.coordinates) == 1

    @property
    def points(self) -> tuple[Tensor, Tensor] | None:
        """Nxk x2 (x, y) and Nxk labels, or None."""
        return (torch.stack(self.coordinates, 1), torch.stack(self.labels, 1)) if self.coordinates else None

    def click(self, masks: np.ndarray) -> None:
        """Add to each structure the click that corrects ``masks`` (NxSxS); a perfect mask is clicked once more."""
        coordinates, labels = [], []
        for n, (truth, mask) in enumerate(zip(self.truth, masks, strict=True)):
            click = next_click(truth, mask, self.rng)
            if click is None:
                inside = truth if truth.any() else self.wrong[n]
                click = (*deepest_point(inside, self.rng), truth.any())
            row, column, foreground = click
            coordinates.append((float(column), float(row)))
            labels.append(float(foreground))
        self.coordinates.append(torch.tensor(coordinates))
        self.labels.append(torch.tensor(labels))

    def _show(self, masks: np.ndarray) -> None:
        """Make NxSxS masks the mask prompt, more or less sure of themselves."""
        logits = torch.from_numpy(masks.astype(np.float32))[:, None] * 10 - 5
        self.mask_logits = F.avg_pool2d(logits, 2) * float(self.rng.uniform(0.4, 2))

    def _box(self, truth: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(truth.any(1))[0], np.nonzero(truth.any(0))[0]
        box = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)
        sides = np.tile(box[2:] - box[:2] + 1, 2)
        # People draw boxes up to a tenth too wide or too narrow.
        return np.clip(box + self.rng.normal(0, 0.05, 4) * sides, 0, truth.shape[0] - 1).astype(np.float32)

    def _spoil(self, truth: np.ndarray) -> np.ndarray:
        """A wrong mask of the structure: eroded, dilated, shifted, cut or with a neighbour added."""
        size = truth.shape[0]
        mask = truth.copy()
        radius = int(self.rng.integers(1, max(3, size // 20)))
        kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        for act in self.rng.choice(5, size=2, replace=False):
            if act == 0:
                mask = cv2.erode(mask, kernel)
            elif act == 1:
                mask = cv2.dilate(mask, kernel)
            elif act == 2:
                mask = np.roll(mask, self.rng.integers(-radius, radius + 1, 2), axis=(0, 1))
            else:
                centre = np.array(deepest_point(truth, self.rng)) + self.rng.normal(0, 2 * radius, 2)
                disk = cv2.circle(np.zeros_like(mask), (int(centre[1]), int(centre[0])), 3 * radius, 1, -1)
                mask = mask & ~disk & 1 if act == 3 else mask | disk
        return mask


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, weighted towards hard pixels, plus Dice loss of each mask.

    Args:
        logits: NxMxLxL.
        target: Nx1xLxL, the share of each pixel that is inside.

    Returns:
        NxM.
    """
    target = target.expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (entropy * (0.2 + (probability - target).abs().detach())).mean((-2, -1))
    overlap = 2 * (probability * target).sum((-2, -1)) + 1
    dice = 1 - overlap / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 4 * focal + dice


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


def training_loss(model: CausalSam, batch: Sample, rounds: int, rng: np.random.Generator) -> Tensor:
    """Loss of a batch: of its places, and over a first prompt and ``rounds - 1`` corrections of the model's own masks.

    The first and the last answer are learnt from; those between only lead to the last.

    Args:
        model: in training.
        batch: B samples as tensors: images Bx3xSxS in [0, 1], masks and neighbours BxKxSxS, ended and regions BxSxS
            uint8.
        rounds: 0 for the places alone.
        rng: source of the prompts' randomness.
    """
    structures = batch.masks.shape[1]
    embedding = model.encode(batch.image.contiguous(memory_format=torch.channels_last))
    comparison = region_loss(embedding.features, batch.regions.to(model.device))
    if rounds == 0:
        return comparison
    seen = rng.random() >= WITHOUT_SKIPS
    embedding = Embedding(
        embedding.features.repeat_interleave(structures, 0),
        tuple((skip * seen).repeat_interleave(structures, 0) for skip in embedding.skips),
    )
    truth, neighbours = (masks.flatten(0, 1).numpy() for masks in (batch.masks, batch.neighbours))
    prompts = Prompts(truth, neighbours, batch.ended.repeat_interleave(structures, 0).numpy(), rng)
    target = F.avg_pool2d(torch.from_numpy(prompts.truth)[:, None].to(model.device).float(), 2)
    total = torch.zeros((), device=model.device)
    learning = {0, rounds - 1}
    for round_ in range(rounds):
        with torch.set_grad_enabled(round_ in learning):
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
            losses = mask_loss(logits, target)
            single, hypotheses = losses[:, 0], losses[:, 1:]
            # The best hypothesis learns most; a little for all of them keeps none from dying.
            best = 0.9 * hypotheses.amin(1) + 0.1 * hypotheses.mean(1)
            total = total + (single + best if prompts.ambiguous else single + 0.25 * best).mean()
            total = total + F.mse_loss(iou, true_iou(logits, target))
        if round_ + 1 < rounds:
            shown = logits[:, :1]
            if prompts.ambiguous:  # the annotator sees the hypothesis that the model trusts most
                pick = 1 + iou[:, 1:].argmax(1)
                shown = logits[torch.arange(len(pick)), pick][:, None]
            shown = shown.detach()
            prompts.mask_logits = shown
            prompts.click((model.upscale(shown)[:, 0] > 0).cpu().numpy().astype(np.uint8))
    return total / len(learning) + REGION_WEIGHT * comparison


@torch.inference_mode()
def predict_like_an_annotator(model: CausalSam, image: Tensor, truth: np.ndarray, clicks: int) -> list[np.ndarray]:
    """Masks after 1, 2, … ``clicks`` clicks at the deepest points of the errors; image 3xSxS, truth SxS."""
    embedding = model.encode(image[None])
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


def validate(model: CausalSam, size: int, count: int, picture: Path | None) -> dict[str, float]:
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


class Run:
    """State of a training run that survives being stopped: weights, average, optimiser and the time used."""

    def __init__(self, out: Path, learning_rate: float, init: Path | None) -> None:
        self.out = out
        self.checkpoint = out / "checkpoint.pt"
        torch.manual_seed(0)
        self.model = CausalSam(build_compact(), "compact").to(memory_format=torch.channels_last)
        self.model.sam.image_encoder.requires_grad_(True)  # frozen everywhere but here
        taken = set() if init is None else self._take_over(load_file(init))
        encoder = {f"image_encoder.{name}" for name, _ in self.model.sam.image_encoder.named_parameters()}
        # What learns while no masks are decoded: what is new in the encoder.
        self.new = encoder - taken
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], lr=learning_rate
        )
        self.step, self.seconds, self.restarts = 0, 0.0, 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds, self.restarts = state["step"], state["seconds"], state["restarts"] + 1

    def _take_over(self, weights: dict[str, Tensor]) -> set[str]:
        """Start from weights of a model with other parts; parts that it lacks, or has otherwise, begin at random.

        Returns:
            The names of what was taken over.
        """
        own = self.model.sam.state_dict()
        fitting = {}
        for key, value in weights.items():
            if key in own and own[key].shape == value.shape:
                fitting[key] = value
            elif key in own and value.ndim > 1 and own[key][:, : value.shape[1]].shape == value.shape:
                # A layer that reads more than it did: what is new has no say at first.
                fitting[key] = torch.zeros_like(own[key])
                fitting[key][:, : value.shape[1]] = value
        self.model.sam.load_state_dict(fitting, strict=False)
        print(f"{len(fitting)} of {len(own)} tensors taken over")
        return set(fitting)

    def learn(self, decoded: bool) -> None:
        """Let all of the model learn, or only what learns while no masks are decoded."""
        for name, parameter in self.model.sam.named_parameters():
            parameter.requires_grad_(decoded or name in self.new)

    def share_gradients(self) -> None:
        """Average the gradients, and the time used, over all processes of the run."""
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in learning:  # what one process did not use another may have
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in learning]
        flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([self.seconds])])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        self.seconds = flat[-1].item()
        parts = flat[:-1].split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def set_image_size(self, size: int) -> None:
        """Change the input size of the model and of its average."""
        set_image_size(self.model.sam, size)
        set_image_size(self.average.sam, size)

    def update_average(self) -> None:
        """Exponential moving average of the weights, short at first."""
        decay = min(0.999, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)

    def save(self) -> None:
        """Write the checkpoint and the averaged weights; either is whole or absent whenever the process dies."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "restarts": self.restarts,
        }
        with atomic_write(self.checkpoint) as part:
            torch.save(state, part)
        weights = {k: v.contiguous() for k, v in self.average.sam.state_dict().items()}
        with atomic_write(self.out / "compact.safetensors") as part:
            save_file(weights, part, metadata={"model": "compact", "step": str(self.step)})


def train(arguments: argparse.Namespace) -> None:
    """Run all stages within the time given, with checkpoints, a log and pictures."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if processes > 1:
        distributed.init_process_group("gloo")
        torch.set_num_threads(max(1, os.cpu_count() // processes))
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments.out, arguments.learning_rate, arguments.init)
    journal = TrainingLog(arguments.out) if rank == 0 else None
    half = has_bfloat16_units()
    total = arguments.minutes * 60
    if rank == 0:
        print(f"{sum(p.numel() for p in run.model.parameters()):,} parameters, bfloat16 {half}, from step {run.step}")
    ends = np.cumsum([stage.share for stage in STAGES]) * total
    for stage, end in zip(STAGES, ends, strict=True):
        if run.seconds >= end or not (stage.decoded or run.new):
            continue
        run.set_image_size(stage.size)
        run.learn(stage.decoded)
        batch_size = stage.batch // processes
        stream = PhantomStream(stage.size, arguments.structures, (1 + run.restarts) * processes + rank)
        # Not forked: this process has threads by now, whose locks a forked one would wait for without end.
        loader = iter(
            DataLoader(stream, batch_size=batch_size, num_workers=1, prefetch_factor=4, multiprocessing_context="spawn")
        )
        rng = np.random.default_rng([run.restarts, stage.size, rank])
        since, next_save = time.monotonic(), run.seconds + 60 * arguments.save_minutes
        losses, logged_at = [], run.seconds
        while run.seconds < end:
            batch = next(loader)
            share = run.seconds / total
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
            rate = arguments.learning_rate * min(1, (run.step + 1) / 200) * cosine
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            # The same number in all processes, or some would wait for the others.
            rounds = (
                int(np.random.default_rng([run.restarts, run.step]).choice(5, p=ROUNDS)) + 1 if stage.decoded else 0
            )
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = training_loss(run.model, batch, rounds if stage.decoded else 0, rng)
            run.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            now = time.monotonic()
            run.seconds, since = run.seconds + now - since, now
            if processes > 1:
                run.share_gradients()
            norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
            if torch.isfinite(norm):
                run.optimizer.step()
            run.step += 1
            run.update_average()
            losses.append(loss.item())
            if run.step % 50 == 0:
                speed = len(losses) * batch_size * processes / (run.seconds - logged_at)
                record = {"step": run.step, "minutes": run.seconds / 60, "size": stage.size, "loss": np.mean(losses)}
                if journal is not None:
                    journal.write(record | {"images_per_second": speed, "learning_rate": rate})
                losses, logged_at = [], run.seconds
            if run.seconds >= next_save or run.seconds >= end:
                next_save = run.seconds + 60 * arguments.save_minutes
                if journal is not None:
                    run.save()
                    picture = arguments.out / f"examples-{run.step:06d}.png"
                    scores = validate(run.average, stage.size, arguments.validation, picture)
                    journal.write({"step": run.step, "minutes": run.seconds / 60, "size": stage.size, **scores})
                if processes > 1:
                    distributed.barrier()
                since = time.monotonic()  # validation does not count
    if processes > 1:
        distributed.destroy_process_group()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/compact"), help="folder of the run")
    parser.add_argument("--init", type=Path, help="weights of an earlier run to begin with (safetensors)")
    parser.add_argument("--minutes", type=float, default=90, help="training time in all, restarts included")
    parser.add_argument("--structures", type=int, default=3, help="structures segmented in each image")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--save-minutes", type=float, default=5, help="time between checkpoints")
    parser.add_argument("--validation", type=int, default=40, help="images of the generated validation set")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
