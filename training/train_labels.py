"""Teach a model the names of a site's labels, so that it segments them by name.

    python training/train_labels.py --data DIR --out labels.safetensors --minutes 20

DIR is a folder of images with label maps, in any of the layouts that `causal-sam benchmark interactive --help`
describes. A part of the cases is held out; the Dice of each label on these is printed at the end. The server takes the
file as `--conf adapter_bundle labels.safetensors`. `--init` goes on from an earlier file, which may have been taught
other labels: those stay.

Only the `LabelPrompt` is trained, under 9 % of all parameters; encoder and decoder stay as they are.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from causal_sam.data_sets.cases import Case, read_cases
from causal_sam.data_sets.layouts import Kind
from causal_sam.errors import InputError
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import Predictor
from causal_sam.prompting.named import LabelPrompter, name_vectors
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, LabelPart
from causal_sam.sam.adapters import MAX_SHARE
from causal_sam.sam.label_prompt import new_label_prompt, trainable_share
from causal_sam.sam.loading import load_model
from causal_sam.sam.registry import MODELS
from causal_sam.text import load_text_encoder
from causal_sam.training.label_prompts import LabelTeacher, Lesson, lessons_of


def train(arguments: argparse.Namespace) -> dict[str, float]:
    """Train, write the file, and return the Dice of each label on the cases that were held out."""
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    model = load_model(arguments.model, arguments.checkpoint, device=arguments.device)
    encoder = load_text_encoder(arguments.text_encoder)
    names, learnt, held_out = _cases(arguments, rng)
    if arguments.init is None:
        prompt = new_label_prompt(model, encoder.dimension)
        taught = BundleMetadata(
            (),
            encoder.name,
            encoder.fingerprint,
            model.encoder_hash(),
            prompt.text_dim,
            prompt.embed_dim,
            {},
            prompt.skip_channels,
        )
    else:
        labels = AdapterBundle.read(arguments.init).labels
        taught = labels.metadata
        prompt, model = labels.load(model)
        LabelPrompter(prompt, taught, encoder, model)  # refuses another text encoder
    share = trainable_share(model, [prompt])
    if share >= MAX_SHARE:
        raise InputError(f"{share:.1%} of the parameters would be trained, and it must be under {MAX_SHARE:.0%}.")
    print(f"{len(learnt)} cases to learn from, {len(held_out)} held out; {share:.1%} of the parameters train.")

    lessons: list[Lesson] = []
    for case in learnt:
        volume, structures = case.read()
        lessons += lessons_of(volume, structures, names, model.image_size, arguments.plane)
    teacher = LabelTeacher(model, prompt, name_vectors(names, encoder), arguments.learning_rate, arguments.seed)
    _teach(teacher, lessons, arguments, rng)

    counts = {
        name: sum(bool((lesson.label_map == value).any()) for lesson in lessons)
        for value, name in enumerate(names, start=1)
    }
    taught = taught.with_more({name: count for name, count in counts.items() if count})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    AdapterBundle(LabelPart.from_training(prompt, taught, model)).write(arguments.out)
    return _validate(
        held_out, names, LabelPrompter(prompt.eval(), taught, encoder, model), Predictor(model, ahead=0), arguments
    )


def _cases(arguments: argparse.Namespace, rng: np.random.Generator) -> tuple[list[str], list[Case], list[Case]]:
    """Names of the labels, cases to learn from and cases held out."""
    cases = read_cases(arguments.data, arguments.kind)
    present = dict.fromkeys(name for case in cases for name in case.names())
    names = [name for name in present if not arguments.label or name in arguments.label]
    if missing := set(arguments.label or ()) - present.keys():
        raise InputError(f"No case has the label {', '.join(sorted(missing))}; there are {', '.join(present)}.")
    # Another sequence of the same patient would give the answer away.
    patients = list(dict.fromkeys((case.group, case.name) for case in cases))
    count = min(round(arguments.validation * len(patients)), len(patients) - 1)
    chosen = {patients[n] for n in rng.permutation(len(patients))[:count].tolist()}
    held_out = [case for case in cases if (case.group, case.name) in chosen]
    return names, [case for case in cases if case not in held_out], held_out


def _teach(
    teacher: LabelTeacher, lessons: list[Lesson], arguments: argparse.Namespace, rng: np.random.Generator
) -> None:
    begin, budget, losses = time.monotonic(), 60 * arguments.minutes, []
    with Progress() as progress:
        bar = progress.add_task("teaching", total=1.0)
        while (used := (time.monotonic() - begin) / budget) < 1:
            teacher.set_learning_rate(arguments.learning_rate * 0.5 * (1 + math.cos(math.pi * used)))
            chosen = rng.choice(len(lessons), min(arguments.batch, len(lessons)), replace=False)
            losses.append(teacher.step([lessons[n] for n in chosen]))
            progress.update(bar, completed=used, description=f"loss {np.mean(losses[-20:]):.3f}")
    print(f"{len(losses)} steps of {arguments.batch} slices, loss {np.mean(losses[-20:]):.3f}")


def _validate(
    cases: list[Case], names: list[str], labels: LabelPrompter, predictor: Predictor, arguments: argparse.Namespace
) -> dict[str, float]:
    scores: dict[str, list[float]] = {name: [] for name in names}
    for case in cases:
        volume, structures = case.read()
        asked = [name for name in names if name in structures and labels.find(name)]
        found = predictor.for_volume(volume, arguments.plane).predict_named(asked, labels).label_map
        for value, name in enumerate(asked, start=1):
            scores[name].append(dice(found == value, structures[name]))
    means = {name: float(np.mean(values)) for name, values in scores.items() if values}
    for name, mean in means.items():
        print(f"{name}: Dice {mean:.3f} on {len(scores[name])} cases held out")
    return means


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images with label maps")
    parser.add_argument("--kind", choices=list(Kind), default=Kind.AUTO, help="data set that the folder is")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--init", type=Path, help="file of labels taught earlier, to go on from")
    parser.add_argument("--label", action="append", help="teach only labels of this name; may be repeated")
    parser.add_argument("--model", choices=MODELS, default="compact")
    parser.add_argument("--checkpoint", type=Path, help="weights instead of the model's own")
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument("--text-encoder", default="minilm", help="name or folder of a Hugging Face text model")
    parser.add_argument("--plane", default="auto", help="of the slices: auto, axial, coronal or sagittal")
    parser.add_argument("--minutes", type=float, default=20, help="training time")
    parser.add_argument("--batch", type=int, default=4, help="slices per step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--validation", type=float, default=0.2, help="share of the cases that are held out")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
