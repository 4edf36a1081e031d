"""Further training of the mask decoder: slices of bodies, coarse masks, a few steps that learn, and the script."""

from __future__ import annotations

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_script import run_script

from causal_sam.imaging.overlap import dice
from causal_sam.phantom.bodies import BodySample
from causal_sam.phantom.samples import samples
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT
from causal_sam.prompting.volume_mask import coarse_mask_prompts
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.loading import load_model
from causal_sam.training import prompted_slices
from causal_sam.training.coarse_masks import MASK_STRIDE, degraded
from causal_sam.training.mask_decoder import MaskDecoderObjective, Prompted, batches, validate
from causal_sam.training.prompted_slices import MIN_PIXELS, SliceMaker, SlicesOfBody
from causal_sam.training.prompts import KINDS_WITH_COARSE, CoarseMasks, SimulatedPrompts
from causal_sam.volume.context import ContextModel

SIZE = 64
# Seeds of a step in one style and of one in two.
ONE_STYLE, TWO_STYLES = 0, 2


def encode(texts):
    vectors = [torch.nn.functional.normalize(torch.ones(384) * (1 + len(text) % 3), dim=0) for text in texts]
    return torch.stack(vectors) if vectors else torch.zeros(0, 384)


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    labels = torch.zeros(6, 40, 80, dtype=torch.int16)
    labels[1:5, 4:28, 15:40] = 2
    labels[2:4, 6:28, 50:65] = 3
    labels[1:6, 30:40, 10:20] = 4
    noise = torch.from_numpy(rng.normal(0, 0.02, (2, 6, 40, 80))).float()
    images = (labels.float() * 0.2 + noise).clamp(0, 1)
    return BodySample(
        images=images,
        wide=images,
        labels=labels,
        structures={"liver": (2,), "spleen": (3,)},
        absent=(),
        unnamed=(4,),
        spacing=(5.0, 4.0, 4.0),
        plane="axial",
        styles=("dark CT", "bright MR"),
    )


@pytest.fixture(scope="module")
def maker():
    return SliceMaker(load_model("compact", image_size=SIZE, device="cpu"), None)


@pytest.fixture(scope="module")
def slices(sample, maker):
    rng = np.random.default_rng(1)
    return [one for _ in range(3) for one in maker.of_body(sample, rng).slices]


def test_slices_of_bodies_show_their_structures(sample, maker, slices):
    assert {name for one in slices for name in one.names} == {"liver", "spleen", ""}
    for one in slices:
        assert one.styles == sample.styles
        assert [tuple(each.features.shape) for each in one.embeddings] == [(1, 128, 8, 8)] * 2
        assert one.masks.shape == one.neighbours.shape == (len(one.names), SIZE, SIZE)
        assert (one.masks.sum((1, 2)) >= MIN_PIXELS).all()
        assert not (one.masks.sum(0) > 1).any()
        assert not (one.ended & one.masks.max(0)).any()
        assert one.coarse.shape == (len(one.names), SIZE // 2, SIZE // 2)
    assert any(one.ended.any() for one in slices)


def test_small_structures_are_shown_on_a_crop(sample, maker, monkeypatch):
    monkeypatch.setattr(prompted_slices, "CROP_SHARE", 1.0)
    widths = {"": set(), "liver": set()}
    rng = np.random.default_rng(3)
    for one in (each for _ in range(3) for each in maker.of_body(sample, rng).slices):
        if one.names[0] in widths:
            widths[one.names[0]].add(int(one.masks[0].any(0).sum()))
    assert max(widths[""]) >= 14  # 10 of about 40 columns
    assert widths["liver"] == {20}  # 25 of all 80


def test_the_context_gives_coarse_masks_of_whole_slices(sample):
    torch.manual_seed(0)
    maker = SliceMaker(load_model("compact", device="cpu"), ContextModel.load(encode))
    one = maker.of_body(sample, np.random.default_rng(2)).slices[0]
    assert one.coarse.shape[1:] == (128, 128)
    assert one.coarse.abs().max() <= MASK_PROMPT_LOGIT


def test_random_shapes_have_one_style_and_no_names(maker):
    drawn = list(itertools.islice(samples(SIZE, 2, 3), 3))
    made = maker.of_shapes(drawn, np.random.default_rng(0))
    assert made.structures == ()
    assert {len(one.styles) for one in made.slices} == {1}
    assert {name for one in made.slices for name in one.names} == {""}


def disk(size=128, radius=24, centre=(60, 70)):
    rows, columns = np.ogrid[:size, :size]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2).astype(np.uint8)


def test_degraded_masks_are_near_the_truth_and_never_right():
    rng, truth = np.random.default_rng(0), disk()
    overlaps = []
    for _ in range(30):
        logits = degraded(truth, rng)
        assert logits.shape == (1, 64, 64)
        assert logits.abs().max() <= MASK_PROMPT_LOGIT
        overlaps.append(dice(logits[0].numpy() > 0, truth[::2, ::2] > 0))
    assert 0.7 < np.mean(overlaps) < 0.97
    assert min(overlaps) > 0.3
    assert max(overlaps) < 1


@pytest.mark.parametrize("stride", [4, 2])
def test_cells_of_a_context_become_pixels_of_the_mask_grid(stride):
    cells = torch.full((1, 64 // stride, 96 // stride), -3.0)
    cells[:, : 32 // stride, : 32 // stride] = 20.0
    prompt = coarse_mask_prompts(cells, stride // MASK_STRIDE, 64)
    assert prompt.shape == (1, 64, 64)
    assert prompt[0, 4, 4] == MASK_PROMPT_LOGIT
    assert prompt[0, 24, 40] == -3.0
    assert prompt[0, 40, 8] == prompt[0, 8, 56] == -MASK_PROMPT_LOGIT


def test_a_coarse_mask_is_the_only_first_prompt_and_may_be_of_nothing():
    truth, ended = np.stack([disk(), disk(radius=10)]), np.stack([disk(centre=(20, 20), radius=9)] * 2)
    coarse = CoarseMasks(torch.ones(2, 1, 64, 64), -torch.ones(2, 1, 64, 64))
    kinds, ends = set(), 0
    for seed in range(80):
        prompts = SimulatedPrompts(truth, truth, ended, np.random.default_rng(seed), coarse)
        kinds.add(prompts.kind)
        if prompts.kind != "coarse":
            continue
        assert prompts.points is None
        for mask, shown in zip(prompts.truth, prompts.mask_logits, strict=True):
            assert (shown == (1 if mask.any() else -1)).all()
            ends += not mask.any()
        prompts.click(prompts.wrong)
        assert prompts.points[1].shape == (2, 1)
    assert kinds == set(KINDS_WITH_COARSE)
    assert ends


def test_some_steps_learn_and_the_encoder_stays(slices, tmp_path):
    torch.manual_seed(0)
    model = CausalSam(build_compact(SIZE), "compact")
    before = model.encoder_hash()
    objective = MaskDecoderObjective(model, encode, 384, 2e-3)
    named = [Prompted(one, 0) for one in slices if one.names[0]][:4]
    optimizer = torch.optim.AdamW(objective.parameter_groups())
    losses, terms = [], []
    for step in range(6):
        objective.reseed(ONE_STYLE if step % 2 else TWO_STYLES)
        record = objective(named, 0.5)
        optimizer.zero_grad()
        record["loss"].backward()
        optimizer.step()
        objective.after_step(optimizer)
        losses.append(float(record["masks"]))
        terms.append(float(record["invariance"]))
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])
    assert any(terms)
    assert model.encoder_hash() == before
    objective.save_weights(tmp_path / "compact.safetensors", 10)
    kept = load_file(tmp_path / "compact.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in model.sam.state_dict().items())
    scores = validate(model.eval(), slices[:2])
    assert scores.keys() == {"click@1", "click@3", "click@5", "coarse", "border"}


def test_batches_have_names_throughout_or_not(slices):
    stream = itertools.cycle([SlicesOfBody(tuple(slices), ())])
    drawn = list(itertools.islice(batches(stream, 3, 0), 20))
    named = [all(each.slice.names[each.number] for each in batch) for batch in drawn]
    assert all(len(batch) == 3 for batch in drawn)
    assert 10 < sum(named) < 20


@pytest.mark.slow
def test_the_script_stops_resumes_and_leaves_what_loads(tmp_path):
    maps = tmp_path / "maps" / "trunk"
    maps.mkdir(parents=True)
    array = np.zeros((75, 50, 75), np.uint8)
    array[2:-2, 2:-2] = 4
    array[40:68, 20:42, 40:60], array[8:20, 15:35, 40:60] = 1, 2
    nib.save(nib.Nifti1Image(array, np.diag([4.0, 4.0, 4.0, 1.0])), maps / "labels.nii.gz")
    (maps / "labels.json").write_text(json.dumps({1: "liver", 2: "spleen", 4: "skin"}))
    values = {"folders": f"[{maps.parent}]", "batch": 4, "reservoir": 2}
    first = run_script("train_mask_decoder.py", "mask_decoder.yaml", tmp_path / "run", minutes=0.001, **values)
    again = run_script(
        "train_mask_decoder.py", "mask_decoder.yaml", tmp_path / "run", minutes=first[-1]["minutes"] + 0.02, **values
    )
    assert again[: len(first)] == first
    assert again[-1]["step"] > first[-1]["step"]
    model = load_model("compact", tmp_path / "run" / "compact.safetensors", device="cpu")
    assert model.encoder_hash() == load_model("compact", device="cpu").encoder_hash()
