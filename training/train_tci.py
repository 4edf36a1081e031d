"""Train what modulates the mask decoder by text (FiLM), from generated images and simulated errors alone.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 training/train_tci.py --minutes 60 --out runs/tci

Images are drawn on the fly (`causal_sam.phantom`). A structure of each gets a wrong mask
(`causal_sam.simulation.errors`) and a name that some structure of the body has; the intervention that would put
it right gives the sentence and the region. The decoder sees the wrong mask, is modulated inside the region, and must
answer with the true mask there. Half of the images are slices of random shapes, half slices of whole generated
abdomens. Half of the masks of random shapes are wrong in two ways, too small here and too large there: only one is
complained of, the region holds both, and the other must stay, so that only the sentence tells which it is. Encoder and
decoder stay as they are: only the generator of the modulation learns. The run can be stopped at any time and
started again with the same command; it goes on from its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, TensorBoard events, and with each checkpoint `film.safetensors`.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from causal_sam.atomic import atomic_write
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, FilmPart
from causal_sam.sam.film import Film, film_channels, make_modulable
from causal_sam.sam.loading import has_bfloat16_units
from causal_sam.text import load_lexicon, load_text_encoder
from causal_sam.training.log import TrainingLog
from causal_sam.training.simulated_corrections import TWOFOLD, MixedLessons, SliceLessons, VolumeLessons
from causal_sam.training.tci import correction_loss, propose, score_lessons

VALIDATION_SEED = 30_000_000


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
    held_out = MixedLessons(
        SliceLessons(model.image_size, VALIDATION_SEED, names, twofold=0),
        VolumeLessons(model.image_size, VALIDATION_SEED),
    )
    lessons = [lesson for lesson, _ in zip(held_out, range(arguments.validation), strict=False)] if rank == 0 else []
    seed = 1 + restarts * processes + rank
    stream = MixedLessons(SliceLessons(model.image_size, seed, names, TWOFOLD), VolumeLessons(model.image_size, seed))
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
                with atomic_write(checkpoint) as part:
                    torch.save(state | {"step": step, "seconds": seconds, "restarts": restarts}, part)
                bundle = AdapterBundle(film=FilmPart.from_training(film, model, encoder.fingerprint))
                bundle.write(arguments.out / "film.safetensors")
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
