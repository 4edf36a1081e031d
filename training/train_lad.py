"""Train adapters and label prompts on labelled images, with LAD, so that they hold on other scanners and modalities.

    python training/train_lad.py sample_configs/training/lad.yaml --set data.0.path=DIR --set out=runs/lad
    torchrun --nproc-per-node 2 training/train_lad.py sample_configs/training/lad.yaml --set data.0.path=DIR

The configuration file says what each key means. Stopped at any time, training goes on with the same command from its
last checkpoint. In the output folder: checkpoints, TensorBoard events, `examples-*.png`, `metrics.json` with the Dice
on the cases held out, and `adapters.safetensors`, which the server takes as `--conf adapter_bundle FILE` and
`causal-sam organs` as `--adapter-bundle FILE`.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import fnmatch
import json
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import cv2
import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from ignite.handlers.tensorboard_logger import OutputHandler, TensorboardLogger
from numpy.typing import NDArray

from causal_sam.data_sets.cases import read_cases
from causal_sam.errors import CausalSamError, InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.prompting.named import name_vectors
from causal_sam.sam.adapter_bundle import AdapterBundle, LabelPart
from causal_sam.sam.adapters import AdapterConfig
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.sam.loading import load_model
from causal_sam.style.lad import LadConfig
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.training.adapters import Learner, TrainableState, TrainingConfig, batches, make_trainer
from causal_sam.training.config_file import made, read_command_line, read_values
from causal_sam.training.processes import torchrun_backend
from causal_sam.training.style_pairs import LabelledSlices, labelled_slices, with_neighbours

LOGGED_EVERY = 10
# Slices in a picture of examples.
PICTURED = 4
RESULT = "adapters.safetensors"


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/lad.yaml` says what each key means.

    Attributes:
        training: what concerns the steps themselves.
    """

    data: list[dict[str, Any]]
    out: Path
    training: TrainingConfig
    model: str = "compact"
    checkpoint: Path | None = None
    image_size: int | None = None
    text_encoder: str = "minilm"
    labels: list[str] = field(default_factory=list)
    plane: str = "auto"
    validation: float = 0.2
    styled: bool = True
    device: str = "auto"
    workers: int = 0
    save_every: int = 200

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> RunConfig:
        """Check values from a file.

        Raises:
            InputError: a key is unknown or missing, or a value cannot be used.
        """
        values = dict(values)
        parts = {
            "adapters": made(AdapterConfig, values.pop("adapters", None) or {}, "adapters"),
            "lad": made(LadConfig, values.pop("lad", None) or {}, "lad"),
        }
        stepwise = {f.name for f in fields(TrainingConfig)} - parts.keys()
        own = {key: value for key, value in values.items() if value is not None and key in stepwise}
        training = made(TrainingConfig, own | parts, "the configuration")
        rest = {key: value for key, value in values.items() if value is not None and key not in stepwise}
        if missing := {"data", "out"} - rest.keys():
            raise InputError(f"The configuration lacks {' and '.join(sorted(missing))}.")
        for key in {"out", "checkpoint"} & rest.keys():
            rest[key] = Path(str(rest[key])).expanduser()
        config = made(cls, rest | {"training": training}, "the configuration")
        if not isinstance(config.data, list) or not all(isinstance(d, dict) and d.get("path") for d in config.data):
            raise InputError("data of the configuration must be a list of folders, each with path, kind and cases.")
        if not config.styled and training.lad.is_enabled:
            raise InputError("LAD needs a second style of each anatomy: set styled to true, or all terms of lad to 0.")
        return config


def read_config(path: Path, changes: list[str]) -> RunConfig:
    """Read the configuration from a file and from changes KEY=VALUE to it.

    Raises:
        InputError: the file or a change cannot be used.
    """
    return RunConfig.from_values(read_values(path, changes, "lad.anatomy=0 or data.0.path=DIR"))


def train(local_rank: int, config: RunConfig) -> None:
    """Train in this process, together with all others."""
    torch.manual_seed(config.training.seed)
    device = idist.device() if config.device == "auto" else torch.device(config.device)
    model = load_model(config.model, config.checkpoint, image_size=config.image_size, device=device)
    fingerprint = model.encoder_hash()
    encoder = load_text_encoder(config.text_encoder)
    names, learnt, held_out = _cases(config)
    cases = [labelled_slices(v, s, names, model.image_size, config.plane) for _, v, s in learnt]
    prompt = new_label_prompt(model, encoder.dimension)
    learner = Learner(model, prompt, name_vectors(names, encoder), config.training)
    _tell(
        f"{len(learnt)} cases to learn from, {len(held_out)} held out, {len(names)} labels; "
        f"{learner.trainable_share:.2%} of the parameters train, on {idist.get_world_size()} process(es)."
    )
    _run(config, learner, cases, encoder)
    if model.encoder_hash() != fingerprint:
        raise CausalSamError("The frozen encoder has changed in training: the result is not kept.")
    if idist.get_rank() == 0:
        _finish(config, learner, names, cases, held_out, encoder)


def _cases(config: RunConfig) -> tuple[list[str], list[tuple], list[tuple]]:
    """Names of the labels, cases to learn from, and cases that are held out, as (name, volume, structures)."""
    read = []
    for entry in config.data:
        if unknown := sorted(entry.keys() - {"path", "kind", "cases"}):
            raise InputError(f"There is no {unknown[0]!r} in data; known are path, kind, cases.")
        for case in read_cases(Path(str(entry["path"])).expanduser(), entry.get("kind") or "auto"):
            name = f"{case.group}/{case.name}/{case.sequence}"
            if any(fnmatch.fnmatch(name, pattern) for pattern in entry.get("cases") or ["*"]):
                read.append((name, *case.read()))
    present = dict.fromkeys(label for _, _, structures in read for label in structures)
    if missing := set(config.labels) - present.keys():
        raise InputError(f"No case has the label {', '.join(sorted(missing))}; there are {', '.join(present)}.")
    names = [name for name in present if not config.labels or name in config.labels]
    read = [case for case in read if not case[2].keys().isdisjoint(names)]
    if not read:
        raise InputError("No case is left to learn from: look at data and labels of the configuration.")
    # All sequences of a patient are on one side.
    patients = list(dict.fromkeys(name.rpartition("/")[0] for name, _, _ in read))
    order = np.random.default_rng(config.training.seed).permutation(len(patients)).tolist()
    count = min(round(config.validation * len(patients)), len(patients) - 1)
    apart = {patients[n] for n in order[:count]}
    sides = [[case for case in read if (case[0].rpartition("/")[0] in apart) == held] for held in (False, True)]
    return names, *sides


def _run(config: RunConfig, learner: Learner, cases: list[LabelledSlices], encoder: TextEncoder) -> None:
    """Train, from the last checkpoint if there is one."""
    kept = TrainableState(learner)
    latest = sorted(config.out.glob("checkpoint_*.pt"), key=lambda path: path.stat().st_mtime)
    state = torch.load(latest[-1], map_location=learner.vectors.device, weights_only=True) if latest else None
    steps_done = state["trainer"]["iteration"] if state else 0
    loader = batches(
        cases,
        learner.model.image_size,
        encoder.encode,
        config.training,
        styled=config.styled,
        # Others than those that were seen before a stop.
        seed=config.training.seed + steps_done,
        workers=config.workers,
    )
    trainer, optimizers = make_trainer(learner, loader)
    saved = {"learner": kept, "optimizers": optimizers, "trainer": trainer}
    if state is not None:
        # The configuration may ask for more steps by now.
        state["trainer"] = {"iteration": steps_done, "epoch_length": config.training.steps, "max_epochs": 1}
        Checkpoint.load_objects(saved, state)
        _tell(f"Going on after step {steps_done}.")
        if steps_done >= config.training.steps:
            return
    saver = DiskSaver(config.out, create_dir=True, require_empty=False)
    saves = Checkpoint(saved, saver, filename_prefix="", n_saved=1, global_step_transform=_step)
    every = Events.ITERATION_COMPLETED(every=config.save_every)
    trainer.add_event_handler(every, saves)
    trainer.add_event_handler(Events.COMPLETED, saves)
    if idist.get_rank() == 0:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(every=LOGGED_EVERY), _log)
        trainer.add_event_handler(every, lambda engine: _picture(config, learner, cases, engine.state.iteration))
        with TensorboardLogger(log_dir=str(config.out)) as board:
            handler = OutputHandler("training", output_transform=lambda output: output, global_step_transform=_step)
            board.attach(trainer, handler, Events.ITERATION_COMPLETED(every=LOGGED_EVERY))
            trainer.run()
        for path in latest:  # the handler removes only those that it has written itself
            path.unlink()
    else:
        trainer.run()


def _step(engine: Engine, event: object) -> int:
    return engine.state.iteration


def _log(engine: Engine) -> None:
    parts = ", ".join(f"{name} {value:.3f}" for name, value in engine.state.output.items())
    print(f"step {engine.state.iteration} of {engine.state.epoch_length}: {parts}", flush=True)


def _tell(text: str) -> None:
    if idist.get_rank() == 0:
        print(text, flush=True)


@torch.inference_mode()
def _picture(config: RunConfig, learner: Learner, cases: list[LabelledSlices], step: int) -> None:
    """Draw slices of the first case: the image, the truth, and where the names are found."""
    case, model = cases[0], learner.model
    image = case.image
    shown = np.flatnonzero(case.label_map.any(axis=(1, 2)))
    rows = []
    for index in shown[np.linspace(0, len(shown) - 1, min(PICTURED, len(shown))).astype(int)]:
        around = with_neighbours(image, int(index))
        embedding = model.encode(torch.from_numpy(around)[None])
        position = model.sam.prompt_encoder.get_dense_pe()
        _, drafts = learner.prompt(embedding, position, learner.vectors, model.mask_size)
        drafts = model.upscale(drafts)[0, :, : around.shape[1], : around.shape[2]].cpu()
        found = torch.where(drafts.amax(0) > 0, drafts.argmax(0) + 1, 0).numpy().astype(np.uint8)
        grey = np.repeat((around[1] * 255).astype(np.uint8)[..., None], 3, axis=2)
        rows.append(np.hstack([grey, _coloured(grey, case.label_map[index]), _coloured(grey, found)]))
    cv2.imwrite(str(config.out / f"examples-{step:06d}.png"), np.vstack(rows))


def _coloured(grey: NDArray[np.uint8], label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    hue = (label_map.astype(np.int32) * 47 % 180).astype(np.uint8)
    colours = cv2.cvtColor(np.dstack([hue, np.full_like(hue, 220), np.full_like(hue, 255)]), cv2.COLOR_HSV2BGR)
    mixed = cv2.addWeighted(grey, 0.5, colours, 0.5, 0)
    return np.where(label_map[..., None] > 0, mixed, grey)


def _finish(
    config: RunConfig,
    learner: Learner,
    names: list[str],
    cases: list[LabelledSlices],
    held_out: list[tuple[str, Volume, dict[str, NDArray[np.bool_]]]],
    encoder: TextEncoder,
) -> None:
    """Write the result and measure it on the cases that were held out."""
    model: CausalSam = learner.model.requires_grad_(False).eval()
    prompt = learner.prompt.eval()
    counts = {
        name: int(sum((case.label_map == value).any(axis=(1, 2)).sum() for case in cases))
        for value, name in enumerate(names, start=1)
    }
    taught = learner.taught(names, encoder, counts)
    AdapterBundle(LabelPart.from_training(prompt, taught, model)).write(config.out / RESULT)
    labels, predictor = LabelPrompter(prompt, taught, encoder, model), Predictor(model, ahead=0)
    scores: dict[str, list[float]] = {}
    for _, volume, structures in held_out:
        asked = [name for name in names if name in structures]
        found = predictor.for_volume(volume, config.plane).predict_named(asked, labels).label_map
        for value, name in enumerate(asked, start=1):
            scores.setdefault(name, []).append(dice(found == value, structures[name]))
    means = {name: round(float(np.mean(values)), 4) for name, values in scores.items()}
    record = {
        "held out": [name for name, _, _ in held_out],
        "dice": means,
        "trainable share": round(learner.trainable_share, 4),
        "training": asdict(config.training),
    }
    (config.out / "metrics.json").write_text(json.dumps(record, indent=1))
    for name, mean in means.items():
        print(f"{name}: Dice {mean:.3f} on {len(scores[name])} images held out")
    print(f"written to {config.out / RESULT}")


def main() -> None:
    """Parse the command line and train in all processes."""
    arguments = read_command_line(__doc__, "sample_configs/training/lad.yaml")
    try:
        config = read_config(arguments.config, arguments.set)
        with idist.Parallel(backend=torchrun_backend(arguments.backend, config.device)) as parallel:
            parallel.run(train, config)
    except CausalSamError as error:
        sys.exit(f"train_lad.py: {error}")


if __name__ == "__main__":
    main()
