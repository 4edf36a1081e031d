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
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.selection import uncertainty
from causal_sam.site.update import update
from causal_sam.style.lad import NO_LAD
from causal_sam.text import load_lexicon, load_text_encoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.config_file import from_values, read_values
from causal_sam.training.engine import LoopConfig, TrainingEngine
from causal_sam.training.pretraining import PretrainingObjective, Stage, samples, validate
from causal_sam.training.simulated_corrections import SliceCorrections
from causal_sam.training.style_pairs import labelled_slices
from causal_sam.training.tci import CorrectionObjective

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
        predictor = Predictor(model(size), prefetch_slices=0).for_volume(volume)
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
    predictor = Predictor(base, prefetch_slices=0).for_volume(study()[0])
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
    stopped = mock.patch.object(TrainingEngine, "_finish_step", _save_and_stop)
    with stopped, suppress(KeyboardInterrupt):
        update(site, quick(epochs=2))
    outcome = update(site, quick(epochs=2))
    assert outcome.version == 1


def _save_and_stop(engine: TrainingEngine) -> None:
    engine.save()
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
    predictor = Predictor(base, prefetch_slices=0).for_volume(volume)
    first = predictor.predict([(28, 18, 2)], box=(20, 35, 8, 28, 2, 2))
    predictor.propagate({2: first.slices[2].mask | predictor.slices.frame.extract(masks[LEFT], 2)})
    text, names, config = load_text_encoder(device=NAME), tuple(masks), TrainingConfig(steps=2, batch=4, pairs=2)
    objective = AdapterObjective(base, new_label_prompt(base, text.dimension), name_vectors(names, text), config)
    case = labelled_slices(volume, masks, names, 64)
    adapter_engine(objective).run(batches([case], 64, text.encode, config, styled=True, seed=0))
    labels = LabelPrompter(objective.prompt.eval(), objective.metadata(names, text, {}), text, base.eval())
    predictor.predict_named(names, labels)


@path
def labels_taught_by_hand(folder: Path) -> None:
    volume, masks = study()
    base, encoder = model(), load_text_encoder()
    prompt = new_label_prompt(base, encoder.dimension)
    config = TrainingConfig(steps=2, batch=4, pairs=2, adapters=None, lad=NO_LAD)
    objective = AdapterObjective(base, prompt, name_vectors(masks, encoder), config)
    case = labelled_slices(volume, masks, tuple(masks), 64)
    adapter_engine(objective).run(batches([case], 64, encoder.encode, config, styled=False, seed=0))


@path
def the_training_scripts(folder: Path) -> None:
    lad = script("train_lad")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    volume, masks = study()
    for n in range(2):
        for kind, array in (("images", volume.array), ("labels", masks[LEFT].astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / kind / f"{n}.nii.gz")
    values = {"data.0.path": folder, "out": folder / "run", "image_size": 64, "steps": 2, "batch": 4, "pairs": 2}
    changes = [f"{key}={value}" for key, value in {**values, "save_every": 1, "validation": 0.5}.items()]
    for more in ([], ["steps=3"]):
        values = read_values(ROOT / "sample_configs" / "training" / "lad.yaml", [*changes, *more])
        with mock.patch.object(
            lad, "load_model", lambda *given, **options: load_model(*given, **options | {"device": NAME})
        ):
            lad.train(0, from_values(lad.RunConfig, values))
    encoder = load_text_encoder()
    tci = CorrectionObjective(model(), encoder, 1e-3)
    corrections = list(islice(SliceCorrections(64, 1, sorted(load_lexicon().structures), twofold=0.5), 4))
    TrainingEngine(tci, LoopConfig(steps=1)).run([default_collate(corrections)])
    tci.score(corrections)
    pretraining = PretrainingObjective(1e-3).to(DEVICE)
    pretraining.enter(Stage(64, 1.0, 2))
    sample = default_collate(list(islice(samples(64, 2, 0), 2)))
    TrainingEngine(pretraining, LoopConfig(steps=2, ema=True)).run([(sample, 0), (sample, 3)])
    validate(pretraining.model.eval(), 64, 1)


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
