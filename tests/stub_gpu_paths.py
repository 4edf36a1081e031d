"""Trains and segments in every way that there is on the stand-in for a GPU; prints what failed.

python tests/stub_gpu_paths.py [name of a path …]
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from unittest import mock

import nibabel
import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from stub_gpu import DEVICE, NAME, MixedDevicesError, StubGpu, StubTensor
from tiny_site import AFFINE, LEFT, PLACES, SHAPE, TinySite, quick
from torch.utils.data import default_collate

from causal_sam.benchmark import latency
from causal_sam.benchmark.ood import methods
from causal_sam.correction.corrector import load_corrector
from causal_sam.correction.journal import Journal
from causal_sam.imaging import PackedMask, Volume
from causal_sam.notes.schema import Intervention, Plan
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.prompting.named import name_vectors
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.site import training as job_training
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.selection import uncertainty
from causal_sam.site.update import update
from causal_sam.text import load_lexicon, load_text_encoder
from causal_sam.training.adapters import Learner, TrainingConfig, batches, make_trainer
from causal_sam.training.label_prompts import LabelTeacher, lessons_of
from causal_sam.training.simulated_corrections import SliceLessons
from causal_sam.training.style_pairs import labelled_slices
from causal_sam.training.tci import correction_loss, propose, score_lessons

ROOT = Path(__file__).parents[1]

PATHS: dict[str, Callable[[Path], object]] = {}


def path(function: Callable[[Path], object]) -> Callable[[Path], object]:
    """Name a path after its function."""
    PATHS[function.__name__] = function
    return function


def study() -> tuple[Volume, dict[str, np.ndarray]]:
    """An image with two bright blocks."""
    masks = {}
    for name, place in PLACES.items():
        masks[name] = np.zeros(SHAPE, bool)
        masks[name][place] = True
    shown = np.logical_or.reduce([*masks.values()])
    array = np.random.default_rng(0).normal(300, 8, SHAPE).astype(np.float32) + 200 * shown
    return Volume(array, AFFINE, "MR"), masks


def model(image_size: int | None = 64):
    return load_model("compact", image_size=image_size, device=NAME)


@path
def the_device_itself(folder: Path) -> None:
    here, there = torch.ones(3), torch.ones(3, device=DEVICE)
    assert isinstance(here.to(DEVICE), StubTensor)
    assert not isinstance(there.cpu(), StubTensor)
    for refused in (
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: here[there > 0],
        lambda: torch.where(there > 0, here, here),
        lambda: torch.nn.Linear(3, 1).to(DEVICE)(here),
        lambda: there.index_put_((torch.tensor([0]),), here[:1]),
    ):
        try:
            refused()
        except MixedDevicesError:
            continue
        raise AssertionError("Tensors of two devices were taken.")
    for refused in (there.numpy, partial(np.asarray, there)):
        try:
            refused()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError("A tensor of the device was read as one of the CPU.")
    assert float((there + here.sum()).sum()) == 12
    assert there[torch.tensor([0, 2])].tolist() == [1, 1]
    there.copy_(2 * here)
    there[1:] = 0
    assert there.tolist() == [2, 0, 0]


@path
def clicks(folder: Path) -> None:
    volume, masks = study()
    for size in (64, None):  # the second one looks at small structures again on a crop
        predictor = Predictor(model(size), ahead=0).for_volume(volume)
        first = predictor.predict([(28, 18, 2)])
        previous = {2: first.slices[2].low_res_logits}
        predictor.predict([(28, 18, 2)], [(5, 5, 2)], previous=previous)
        predictor.predict((), [(28, 18, 2)], previous=previous)
        predictor.predict(box=(20, 35, 8, 28, 1, 3))
        predictor.propagate({2: predictor.slices.frame.extract(masks[LEFT], 2).copy()})
        predictor.close()


@path
def an_update_with_notes_and_all_that_uses_it(folder: Path) -> None:
    tiny = TinySite(folder)
    site = tiny.site(device=NAME, journal=folder / "journal")
    for number in range(3):
        tiny.accept(number)
    before = study()[1][LEFT].copy()
    before[:, :16] = False
    act = Intervention(label=LEFT, action="expand", direction="anterior", strength="strong")
    for image in ("case00", "case01"):
        Journal(folder / "journal").append(
            {
                "act": "note",
                "note": "missing at the front",
                "image": image,
                "frame": 0,
                "plan": Plan(interventions=(act,)).model_dump(mode="json"),
                "preview": False,
                "before": {LEFT: PackedMask.pack(before).as_json()},
            }
        )
    outcome = update(site, quick(epochs=2, lad=True))
    version = AdapterStore(tiny.store).version(outcome.version)
    assert version.manifest.training.config["notes"] is not None
    tiny.accept(3)
    update(site, quick(epochs=1, lad=True))  # goes on from a version
    base = model()
    labels = LabelPrompter.from_bundle(AdapterBundle.read(version.adapter), base)
    predictor = Predictor(base, ahead=0).for_volume(study()[0])
    predictor.predict_named(labels.metadata.names, labels)
    uncertainty(predictor.encoder, predictor.slices, labels)
    corrector = load_corrector(predictor.encoder, None)
    for action in ("expand", "shrink", "restyle"):
        plan = Plan(interventions=(Intervention(label=LEFT, action=action),))
        corrector.carry_out(plan, predictor.slices, {LEFT: before})


@path
def an_update_goes_on_after_a_stop(folder: Path) -> None:
    tiny = TinySite(folder)
    tiny.accept(0)
    site = tiny.site(device=NAME)
    stopped = mock.patch.object(job_training._Recorder, "step", _save_and_stop)
    with stopped, suppress(KeyboardInterrupt):
        update(site, quick(epochs=2))
    outcome = update(site, quick(epochs=2))
    assert outcome.version == 1


def _save_and_stop(self, engine) -> None:
    self.save(engine.state.iteration)
    raise KeyboardInterrupt


@path
def the_methods_of_the_benchmark(folder: Path) -> None:
    volume, masks = study()
    names = tuple(masks)
    case = labelled_slices(volume, masks, names, 64)
    config = TrainingConfig(steps=2, batch=4, pairs=2)
    with mock.patch.object(methods, "load_model", partial(load_model, device=NAME)):
        for prompt in ("name", "click"):
            setup = methods.Setup("compact", 64, load_text_encoder(), config, prompt)
            for method in methods.METHODS.values():
                trained = method.train(setup, [case], names, 0)
                trained.features(case, names)
                if prompt == "name":
                    trained.segment(volume, names)
                else:
                    frame = VolumeSlices(volume, "auto", 64).frame
                    trained.segment_clicked(volume, frame, 2, (28, 18, 2))


@path
def a_vision_transformer_with_adapters(folder: Path) -> None:
    volume, masks = study()
    encoder = ImageEncoderViT(img_size=64, embed_dim=96, depth=2, num_heads=2, use_rel_pos=True, window_size=2)
    prompts = PromptEncoder(256, (4, 4), (64, 64), 16)
    decoder = MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048))
    base = CausalSam(Sam(encoder, prompts, decoder), "vit_b").to(DEVICE).eval()
    predictor = Predictor(base, ahead=0).for_volume(volume)
    first = predictor.predict([(28, 18, 2)], box=(20, 35, 8, 28, 2, 2))
    predictor.propagate({2: first.slices[2].mask | predictor.slices.frame.extract(masks[LEFT], 2)})
    text, names, config = load_text_encoder(device=NAME), tuple(masks), TrainingConfig(steps=2, batch=4, pairs=2)
    learner = Learner(base, new_label_prompt(base, text.dimension), name_vectors(names, text), config)
    case = labelled_slices(volume, masks, names, 64)
    make_trainer(learner, batches([case], 64, text.encode, config, styled=True, seed=0))[0].run()
    labels = LabelPrompter(learner.prompt.eval(), learner.taught(names, text, {}), text, base.eval())
    predictor.predict_named(names, labels)


@path
def labels_taught_by_hand(folder: Path) -> None:
    volume, masks = study()
    base, encoder = model(), load_text_encoder()
    prompt = new_label_prompt(base, encoder.dimension)
    teacher = LabelTeacher(base, prompt, name_vectors(masks, encoder))
    teacher.step(lessons_of(volume, masks, tuple(masks), 64, "auto"))


@path
def the_training_scripts(folder: Path) -> None:
    lad, tci, pretraining = (script(name) for name in ("train_lad", "train_tci", "pretrain_compact"))
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    volume, masks = study()
    for n in range(2):
        for kind, array in (("images", volume.array), ("labels", masks[LEFT].astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / kind / f"{n}.nii.gz")
    values = {"data.0.path": folder, "out": folder / "run", "image_size": 64, "steps": 2, "batch": 4, "pairs": 2}
    changes = [f"{key}={value}" for key, value in {**values, "save_every": 1, "validation": 0.5}.items()]
    with mock.patch.object(lad.idist, "device", return_value=DEVICE):
        lad.train(0, lad.read_config(ROOT / "sample_configs" / "training" / "lad.yaml", changes))
        lad.train(0, lad.read_config(ROOT / "sample_configs" / "training" / "lad.yaml", [*changes, "steps=3"]))
    base, encoder = model().requires_grad_(False), load_text_encoder()
    tci.make_modulable(base)
    film = tci.Film(encoder.dimension, tci.film_channels(base)).to(DEVICE)
    lessons = list(islice(SliceLessons(64, 1, sorted(load_lexicon().structures), twofold=0.5), 4))
    batch = default_collate(lessons)
    correction_loss(propose(base, film, batch, encoder.encode(batch.sentence)), batch).backward()
    score_lessons(base, film, encoder, lessons)
    base = model()
    base.requires_grad_(True)
    sample = default_collate(list(islice(pretraining.samples(64, 2, 0), 2)))
    for rounds in (0, 3):
        pretraining.training_loss(base, sample, rounds, np.random.default_rng(0)).backward()
    pretraining.validate(base.eval(), 64, 1, None)


@path
def measurements(folder: Path) -> None:
    latency.precision_error(model(None), 2)


def script(name: str) -> ModuleType:
    """A script in the folder training, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "training" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Go all ways, or those that are named."""
    failed = []
    for name in sys.argv[1:] or PATHS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with StubGpu():
                    PATHS[name](Path(folder))
                print(f"{name}: done", flush=True)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    print(f"failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
