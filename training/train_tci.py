"""Train what modulates the mask decoder by text (FiLM), from generated images and simulated errors alone.

    torchrun --nproc-per-node 2 training/train_tci.py sample_configs/training/tci.yaml --set out=runs/tci

Images are drawn on the fly (`causal_sam.phantom`). A structure of each gets a wrong mask
(`causal_sam.simulation.errors`) and a name that some structure of the body has; the intervention that would put
it right gives the sentence and the region. The decoder sees the wrong mask, is modulated inside the region, and must
answer with the true mask there. Half of the images are slices of random shapes, half slices of whole generated
abdomens. Half of the masks of random shapes are wrong in two ways, too small here and too large there: only one is
complained of, the region holds both, and the other must stay, so that only the sentence tells which it is. With folders
of label maps, a third of the samples are errors that this product makes when it is clicked on rendered bodies. Encoder
and decoder stay as they are: only the generator of the modulation is trained. Stopped at any time, training continues
with the same command from its last checkpoint.

In the output folder: `checkpoint.pt`, `log.jsonl`, TensorBoard events, and with each checkpoint `film.safetensors`.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import ignite.distributed as idist
import torch
from torch.utils.data import DataLoader

from causal_sam.errors import InputError
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, FilmPart
from causal_sam.sam.film import Film
from causal_sam.sam.loading import checked_device, trains_in_mixed_precision
from causal_sam.text import TextEncoder, load_lexicon, load_text_encoder
from causal_sam.training.config_file import run_script
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.log import TrainingLog
from causal_sam.training.simulated_corrections import (
    TWOFOLD,
    FoundCorrections,
    MixedCorrections,
    SliceCorrections,
    VolumeCorrections,
)
from causal_sam.training.tci import CorrectionObjective

VALIDATION_SEED = 30_000_000


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/tci.yaml` explains each key."""

    out: Path
    folders: list[Path] = field(default_factory=list)
    init: Path | None = None
    model: str = "compact"
    checkpoint: Path | None = None
    image_size: int | None = None
    minutes: float = 60.0
    batch: int = 8
    learning_rate: float = 1e-3
    save_minutes: float = 5.0
    validation: int = 120
    device: str = "cpu"


def train(local_rank: int, config: RunConfig) -> None:
    """Train in this process, together with all others, within the time given."""
    rank, processes = idist.get_rank(), idist.get_world_size()
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device = checked_device(config.device)
    model = load_model(config.model, config.checkpoint, image_size=config.image_size, device=device)
    encoder = load_text_encoder()
    objective = CorrectionObjective(model, encoder, config.learning_rate)
    if config.init is not None:
        objective.film.load_state_dict(earlier_film(config.init, objective.film, encoder).state_dict())
    names, size = sorted(load_lexicon().structures), model.image_size

    def corrections(seed: int, twofold: float) -> MixedCorrections:
        simulated = SliceCorrections(size, seed, names, twofold), VolumeCorrections(size, seed)
        found = [FoundCorrections(config.folders, size, seed, names)] if config.folders else []
        return MixedCorrections(*simulated, *found)

    held_out = list(islice(corrections(VALIDATION_SEED, 0), config.validation)) if rank == 0 else []

    def validated(objective: CorrectionObjective, step: int) -> dict[str, float]:
        film = FilmPart.from_training(objective.film, model, encoder.fingerprint)
        AdapterBundle(film=film).write(config.out / "film.safetensors")
        return objective.score(held_out)

    amp = trains_in_mixed_precision(model.device)
    loop = LoopConfig(minutes=config.minutes, warm_up_steps=100, amp=amp, save_minutes=config.save_minutes)
    log = TrainingLog(config.out).write if rank == 0 else None
    engine = TrainingEngine(objective, loop, config.out, log=log, validate=validated)
    # Not forked: this process has threads by now, and a forked one would wait for their locks without end.
    workers = {"num_workers": 1, "prefetch_factor": 4, "multiprocessing_context": "spawn"}
    stream = corrections(1 + engine.step * processes + rank, TWOFOLD)
    engine.run(DataLoader(stream, batch_size=config.batch, **workers))


def earlier_film(path: Path, new: Film, encoder: TextEncoder) -> Film:
    """Return the film of a bundle, which may have been trained with another mask decoder.

    Raises:
        InputError: the bundle has no film for a model like this.
        CheckpointError: it cannot be read, or belongs to another text encoder.
    """
    part = AdapterBundle.read(path).film
    if part is None or part.metadata.channels != new.channels:
        raise InputError(f"{path} has no film for a model like this: give an adapter bundle that has one.")
    return part.for_any_decoder(encoder.fingerprint)


if __name__ == "__main__":
    run_script(train, RunConfig, __doc__, "tci.yaml")
