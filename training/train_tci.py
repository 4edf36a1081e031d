"""Train what modulates the mask decoder by text (FiLM), from generated images and simulated errors alone.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 training/train_tci.py --minutes 60 --out runs/tci

Images are drawn on the fly (`causal_sam.phantom`). A structure of each gets a wrong mask
(`causal_sam.intervention.simulation`) and a name that some structure of the body has; the intervention that would put
it right gives the sentence and the region. The decoder sees the wrong mask, is modulated inside the region, and must
answer with the true mask there. Half of the masks are wrong in two ways, too small here and too large there: only one
is complained of, the region holds both, and the other must stay, so that only the sentence tells which it is. Encoder
and decoder stay as they are: only the generator of the modulation learns. The run can be stopped at any time and
started again with the same command; it goes on from its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, TensorBoard events, and with each checkpoint `film.safetensors`.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from causal_sam.imaging import Volume
from causal_sam.intervention.correction import STRENGTH
from causal_sam.intervention.region import region_gate
from causal_sam.intervention.simulation import simulate_error
from causal_sam.learning.log import TrainingLog
from causal_sam.learning.tci import MODULATED_KINDS, Lesson, correction_loss, propose, score_lessons
from causal_sam.phantom.samples import Sample, samples
from causal_sam.sam import load_model
from causal_sam.sam.film import Film, film_channels, make_modulable, save_film
from causal_sam.sam.registry import has_bfloat16_units
from causal_sam.text import load_lexicon, load_text_encoder

VALIDATION_SEED = 30_000_000
# Share of the masks that are wrong in two ways, and the reach of the region around these as a share of the radius.
TWOFOLD, TWOFOLD_REACH = 0.5, (0.3, 0.9)
# Planes of the slices: the two patient directions along rows and columns, as columns of an affine.
PLANES = {
    "axial": ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "coronal": ((0.0, 0.0, -1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
}


class Lessons(IterableDataset):
    """Lessons for ever; each worker and each restart of the run draws others.

    Args:
        size: side S of the images in pixels.
        seed: of all that is drawn.
        names: that structures are given.
        twofold: share of the masks that are wrong in two ways.
    """

    def __init__(self, size: int, seed: int, names: list[str], twofold: float) -> None:
        self.size, self.seed, self.names, self.twofold = size, seed, names, twofold

    def __iter__(self) -> Iterator[Lesson]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        seed = self.seed * 97 + (0 if info is None else info.id)
        rng = np.random.default_rng(seed)
        for sample in samples(self.size, 2, seed):
            for mask in sample.masks:
                lesson = _lesson(sample, mask, self.names, rng, self.twofold)
                if lesson is not None:
                    yield lesson


def _lesson(
    sample: Sample, mask: NDArray[np.uint8], names: list[str], rng: np.random.Generator, twofold: float
) -> Lesson | None:
    """Give a structure of a slice a wrong mask; None if it is too small for one."""
    columns = np.array(PLANES[str(rng.choice(list(PLANES)))]).T
    affine = np.eye(4)
    affine[:3, :3] = columns * np.array([1.0, 1.0, 5.0]) * rng.uniform(0.7, 2.5)
    volume = Volume(1000 * sample.image[1][..., None], affine, "MR")
    label, *around = (str(name) for name in rng.choice(names, 1 + sample.regions.max(), replace=False))
    truth = mask[..., None] > 0
    present = [number for number in np.unique(sample.regions).tolist() if number]
    others = {around[number - 1]: (sample.regions == number)[..., None] & ~truth for number in present}
    error = simulate_error(label, truth, volume, others, rng, str(rng.choice(MODULATED_KINDS)))
    if error is None:
        return None
    intervention = error.intervention
    wrong, wanted, region = error.mask, truth, None
    if rng.random() < twofold:
        other = simulate_error(label, truth, volume, others, rng, str(rng.choice(MODULATED_KINDS)))
        if other is not None and _is_opposite(error.mask, other.mask, truth):
            wrong, wanted = error.mask ^ other.mask ^ truth, other.mask
            region = _around(wrong, volume, rng.uniform(*TWOFOLD_REACH))
    if region is None:
        # Neighbours have masks of their own in some sites, and none in others.
        known = others if rng.random() < 0.5 else {}
        region = region_gate(intervention, volume, wrong, known).in_volume(volume.shape)
    if not region.any():
        return None
    return Lesson(
        sample.image,
        wrong[..., 0].astype(np.uint8),
        wanted[..., 0].astype(np.uint8),
        region[..., 0],
        intervention.sentence,
        STRENGTH[intervention.strength],
    )


def _is_opposite(one: NDArray[np.bool_], other: NDArray[np.bool_], truth: NDArray[np.bool_]) -> bool:
    """Whether one wrong mask is too small and the other too large."""
    both_large = (one & ~truth).any() and (other & ~truth).any()
    both_small = (truth & ~one).any() and (truth & ~other).any()
    return not (both_large or both_small)


def _around(mask: NDArray[np.bool_], volume: Volume, share: float) -> NDArray[np.float32]:
    """1 within a share of the mask's radius of its border, on both sides."""
    pixel = math.sqrt(volume.spacing[0] * volume.spacing[1])
    reach = max(2 * pixel, share * math.sqrt(mask.sum() / math.pi) * pixel)
    inside, outside = (ndimage.distance_transform_edt(part, volume.spacing) for part in (mask, ~mask))
    return (inside + outside <= reach).astype(np.float32)


def train(arguments: argparse.Namespace) -> None:
    """Train within the time given, with checkpoints and a log."""
    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if processes > 1:
        distributed.init_process_group("gloo")
        torch.set_num_threads(max(1, os.cpu_count() // processes))
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = load_model(arguments.model, image_size=arguments.image_size, device="cpu")
    model.requires_grad_(False)
    make_modulable(model)
    encoder = load_text_encoder()
    film = Film(encoder.dimension, film_channels(model))
    optimizer = torch.optim.AdamW(film.parameters(), lr=arguments.learning_rate, weight_decay=0.01)
    step, seconds, restarts, checkpoint = 0, 0.0, 0, arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        film.load_state_dict(state["film"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds, restarts = state["step"], state["seconds"], state["restarts"] + 1
    network = DistributedDataParallel(film) if processes > 1 else film
    names = sorted(load_lexicon().structures)
    held_out = Lessons(model.image_size, VALIDATION_SEED, names, twofold=0)
    lessons = [lesson for lesson, _ in zip(held_out, range(arguments.validation), strict=False)] if rank == 0 else []
    stream = Lessons(model.image_size, 1 + restarts * processes + rank, names, TWOFOLD)
    # Not forked: this process has threads by now, whose locks a forked one would wait for without end.
    workers = {"num_workers": 1, "prefetch_factor": 4, "multiprocessing_context": "spawn"}
    loader = iter(DataLoader(stream, batch_size=arguments.batch, **workers))
    half, total = has_bfloat16_units(), 60 * arguments.minutes
    journal = TrainingLog(arguments.out) if rank == 0 else None
    since, next_save, losses = time.monotonic(), seconds + 60 * arguments.save_minutes, []
    while seconds < total:
        batch = next(loader)
        rate = arguments.learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * seconds / total))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = propose(model, network, batch, encoder.encode(batch.sentence))
        loss = correction_loss(logits, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(film.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        now = time.monotonic()
        seconds, since = _agreed(seconds + now - since, processes), now
        if journal is not None and step % 50 == 0:
            journal.write({"step": step, "minutes": seconds / 60, "loss": float(np.mean(losses[-50:]))})
        if seconds >= next_save or seconds >= total:
            next_save = seconds + 60 * arguments.save_minutes
            if journal is not None:
                state = {"film": film.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(
                    state | {"step": step, "seconds": seconds, "restarts": restarts}, checkpoint.with_suffix(".part")
                )
                os.replace(checkpoint.with_suffix(".part"), checkpoint)
                save_film(arguments.out / "film.safetensors", film, model, encoder.fingerprint)
                journal.write({"step": step, "minutes": seconds / 60} | score_lessons(model, film, encoder, lessons))
            if processes > 1:
                distributed.barrier()
            since = time.monotonic()  # validation does not count
    if processes > 1:
        distributed.destroy_process_group()


def _agreed(seconds: float, processes: int) -> float:
    """The mean over all processes, so that they end together."""
    if processes == 1:
        return seconds
    shared = torch.tensor([seconds])
    distributed.all_reduce(shared)
    return float(shared) / processes


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tci"), help="folder of the run")
    parser.add_argument("--model", default="compact", help="whose decoder is modulated")
    parser.add_argument("--image-size", type=int, help="side of the images in pixels; by default the model's own")
    parser.add_argument("--minutes", type=float, default=60, help="training time in all, restarts included")
    parser.add_argument("--batch", type=int, default=8, help="lessons of a step in each process")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--save-minutes", type=float, default=5, help="time between checkpoints")
    parser.add_argument("--validation", type=int, default=120, help="lessons of the generated validation set")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
