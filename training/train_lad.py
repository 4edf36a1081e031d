"""Train adapters and label prompts on labelled images, with LAD, so that they hold on other scanners and modalities.

    python training/train_lad.py sample_configs/training/lad.yaml --set data.0.path=DIR --set out=runs/lad
    torchrun --nproc-per-node 2 training/train_lad.py sample_configs/training/lad.yaml --set data.0.path=DIR

With `sample_configs/training/labels.yaml` the names alone are trained, without adapters and LAD, and the model stays as
it is. The configuration files explain each key. Stopped at any time, training continues with the same command from its
last checkpoint. In the output folder: `checkpoint.pt`, `log.jsonl`, TensorBoard events, `examples-*.png`,
`metrics.json` with the Dice on held-out cases, and `adapters.safetensors`, which the server takes as
`--conf adapter_bundle FILE` and `causal-sam organs` as `--adapter-bundle FILE`.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import fnmatch
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import ignite.distributed as idist
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.data_sets.cases import Case, read_cases
from causal_sam.errors import CausalSamError, InputError
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.prompting.named import name_vectors
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, LabelPart
from causal_sam.sam.adapters import load_adapters
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.sam.loading import checked_device, load_model
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.config_file import run_script
from causal_sam.training.log import TrainingLog
from causal_sam.training.style_pairs import LabelledSlices, labelled_slices, with_neighbours

LOGGED_EVERY = 10
# Slices in a picture of examples.
PICTURED = 4
RESULT = "adapters.safetensors"


@dataclass(frozen=True)
class DataFolder:
    """A folder of labelled images.

    Attributes:
        path: the folder.
        kind: data set that it holds; "auto" to find out.
        cases: patterns GROUP/CASE/SEQUENCE of the cases to take.
    """

    path: Path
    kind: str = "auto"
    cases: tuple[str, ...] = ("*",)


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingConfig):
    """The whole configuration; `sample_configs/training/lad.yaml` explains each key."""

    data: list[DataFolder]
    out: Path
    init: Path | None = None
    model: str = "compact"
    checkpoint: Path | None = None
    image_size: int | None = None
    text_encoder: str = "minilm"
    labels: tuple[str, ...] = ()
    plane: str = "auto"
    validation: float = 0.2
    styled: bool = True
    device: str = "auto"
    workers: int = 0
    save_every: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.styled and self.lad.is_enabled:
            raise InputError("LAD needs a second style of each anatomy: set styled to true, or all terms of lad to 0.")


class Cases(NamedTuple):
    """Cases to train on and held-out cases, and the names of their labels."""

    names: list[str]
    trained: list[Case]
    held_out: list[Case]


def train(local_rank: int, config: RunConfig) -> None:
    """Train in this process, together with all others."""
    torch.manual_seed(config.seed)
    device = checked_device(config.device)
    model = load_model(config.model, config.checkpoint, image_size=config.image_size, device=device)
    fingerprint = model.encoder_hash()
    encoder = load_text_encoder(config.text_encoder)
    data = find_cases(config)
    slices = [labelled_slices(*case.read(), data.names, model.image_size, config.plane) for case in data.trained]
    objective, before = make_objective(config, model, name_vectors(data.names, encoder), encoder)
    _print(
        f"{len(data.trained)} cases to train on, {len(data.held_out)} held out, {len(data.names)} labels; "
        f"{objective.trainable_share:.2%} of the parameters train, on {idist.get_world_size()} process(es)."
    )
    config.out.mkdir(parents=True, exist_ok=True)
    engine = adapter_engine(
        objective,
        config.out,
        log=TrainingLog(config.out).write if idist.get_rank() == 0 else None,
        validate=lambda objective, step: draw_examples(config.out / f"examples-{step:06d}.png", objective, slices[0]),
        log_every=LOGGED_EVERY,
        save_every=config.save_every,
    )
    if engine.step:
        _print(f"Going on after step {engine.step}.")
    # After a stop, others than those that were seen before.
    seed = config.seed + engine.step
    engine.run(
        batches(
            slices, model.image_size, encoder.encode, config, styled=config.styled, seed=seed, workers=config.workers
        )
    )
    if model.encoder_hash() != fingerprint:
        raise CausalSamError("The frozen encoder has changed in training: the result is not kept.")
    if idist.get_rank() == 0:
        counts = {
            name: int(sum((case.label_map == value).any(axis=(1, 2)).sum() for case in slices))
            for value, name in enumerate(data.names, start=1)
        }
        metadata = objective.metadata(data.names, encoder, counts)
        if before is not None:
            metadata = replace(before, adapters=metadata.adapters).with_more(counts)
        finish(config, objective, metadata, data, encoder)


def make_objective(
    config: RunConfig, model: CausalSam, vectors: Tensor, encoder: TextEncoder
) -> tuple[AdapterObjective, BundleMetadata | None]:
    """Return what is trained, new or as ``init`` left it, and the metadata of ``init``.

    Raises:
        CheckpointError: ``init`` belongs to another model or to another text encoder.
        InputError: ``init`` has no labels.
    """
    if config.init is None:
        return AdapterObjective(model, new_label_prompt(model, encoder.dimension), vectors, config), None
    labels = AdapterBundle.read(config.init).labels
    if labels is None:
        raise InputError(f"{config.init} has no labels: give an adapter bundle that has some.")
    (prompt, _), before = labels.load(model), labels.metadata
    LabelPrompter(prompt, before, encoder, model)  # refuses another text encoder
    objective = AdapterObjective(model, prompt, vectors, replace(config, adapters=before.adapters or config.adapters))
    if labels.adapters:
        load_adapters(model, labels.adapters)
    return objective, before


def find_cases(config: RunConfig) -> Cases:
    """Return the cases that have the labels, all sequences of a patient on one side.

    Raises:
        InputError: there is no such label, or no case is left.
    """
    cases = [
        case
        for folder in config.data
        for case in read_cases(folder.path.expanduser(), folder.kind)
        if any(fnmatch.fnmatch(f"{case.group}/{case.name}/{case.sequence}", pattern) for pattern in folder.cases)
    ]
    named = [(case, case.names()) for case in cases]
    present = dict.fromkeys(name for _, own in named for name in own)
    if missing := set(config.labels) - present.keys():
        raise InputError(f"No case has the label {', '.join(sorted(missing))}; there are {', '.join(present)}.")
    names = [name for name in present if not config.labels or name in config.labels]
    cases = [case for case, own in named if not set(names).isdisjoint(own)]
    if not cases:
        raise InputError("No case is left to learn from: look at data and labels of the configuration.")
    patients = list(dict.fromkeys((case.group, case.name) for case in cases))
    order = np.random.default_rng(config.seed).permutation(len(patients)).tolist()
    count = min(round(config.validation * len(patients)), len(patients) - 1)
    held_out = {patients[n] for n in order[:count]}
    sides = ([case for case in cases if ((case.group, case.name) in held_out) == side] for side in (False, True))
    return Cases(names, *sides)


def _print(text: str) -> None:
    if idist.get_rank() == 0:
        print(text, flush=True)


@torch.inference_mode()
def draw_examples(path: Path, objective: AdapterObjective, case: LabelledSlices) -> dict[str, float]:
    """Draw slices of a case: the image, the truth, and where the names are found; returns no figures."""
    image, model = case.image, objective.model
    shown = np.flatnonzero(case.label_map.any(axis=(1, 2)))
    rows = []
    for index in shown[np.linspace(0, len(shown) - 1, min(PICTURED, len(shown))).astype(int)]:
        around = with_neighbours(image, int(index))
        embedding = model.encode(torch.from_numpy(around)[None])
        position = model.sam.prompt_encoder.get_dense_pe()
        _, coarse = objective.prompt(embedding, position, objective.vectors, model.mask_size)
        coarse = model.upscale(coarse)[0, :, : around.shape[1], : around.shape[2]].cpu()
        found = torch.where(coarse.amax(0) > 0, coarse.argmax(0) + 1, 0).numpy().astype(np.uint8)
        grey = np.repeat((around[1] * 255).astype(np.uint8)[..., None], 3, axis=2)
        rows.append(np.hstack([grey, _coloured(grey, case.label_map[index]), _coloured(grey, found)]))
    cv2.imwrite(str(path), np.vstack(rows))
    return {}


def _coloured(grey: NDArray[np.uint8], label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    hue = (label_map.astype(np.int32) * 47 % 180).astype(np.uint8)
    colours = cv2.cvtColor(np.dstack([hue, np.full_like(hue, 220), np.full_like(hue, 255)]), cv2.COLOR_HSV2BGR)
    mixed = cv2.addWeighted(grey, 0.5, colours, 0.5, 0)
    return np.where(label_map[..., None] > 0, mixed, grey)


def finish(
    config: RunConfig, objective: AdapterObjective, metadata: BundleMetadata, data: Cases, encoder: TextEncoder
) -> None:
    """Write the result, and measure it on the held-out cases."""
    model, prompt = objective.model.requires_grad_(False).eval(), objective.prompt.eval()
    AdapterBundle(LabelPart.from_training(prompt, metadata, model)).write(config.out / RESULT)
    labels, predictor = LabelPrompter(prompt, metadata, encoder, model), Predictor(model, prefetch_slices=0)
    scores: dict[str, list[float]] = {}
    for case in data.held_out:
        volume, structures = case.read()
        names = [name for name in data.names if name in structures]
        found = predictor.for_volume(volume, config.plane).predict_named(names, labels).label_map
        for value, name in enumerate(names, start=1):
            scores.setdefault(name, []).append(dice(found == value, structures[name]))
    means = {name: round(float(np.mean(values)), 4) for name, values in scores.items()}
    record = {
        "held out": [f"{case.group}/{case.name}/{case.sequence}" for case in data.held_out],
        "dice": means,
        "trainable share": round(objective.trainable_share, 4),
        "training": asdict(config),
    }
    (config.out / "metrics.json").write_text(json.dumps(record, indent=1, default=str))
    for name, mean in means.items():
        print(f"{name}: Dice {mean:.3f} on {len(scores[name])} images held out")
    print(f"written to {config.out / RESULT}")


if __name__ == "__main__":
    run_script(train, RunConfig, __doc__, "lad.yaml")
