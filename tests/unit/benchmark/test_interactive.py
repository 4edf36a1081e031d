"""The annotator's protocol, the counting of clicks, and reports, with methods whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.benchmark.baselines import load_baseline, make_baseline
from causal_sam.benchmark.cases import join_structures
from causal_sam.benchmark.interactive.effects import far_change
from causal_sam.benchmark.interactive.methods import BaselineMethod, ModelMethod, OnSlice
from causal_sam.benchmark.interactive.names import ask_by_name
from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.benchmark.interactive.tables import click_table, summarise
from causal_sam.benchmark.interactive.targets import Target, middle_box, slice_targets, volume_targets
from causal_sam.benchmark.interactive.trials import Annotator, Step, Trial, prompt_through
from causal_sam.benchmark.statistics import mean_of_values
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.prompting.prompts import Strokes
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import BundleMetadata
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.text import load_text_encoder


def ball_volume(affine=None) -> tuple[Volume, np.ndarray]:
    i, j, k = np.mgrid[:48, :40, :9]
    truth = np.sqrt((i - 26) ** 2 + (j - 18) ** 2 + (3 * (k - 4)) ** 2) < 9
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    image = (100 + 200 * truth + noise).astype(np.float32)
    return Volume(image, np.diag([-1.0, -1.0, 3.0, 1.0]) if affine is None else affine, "MR"), truth


class Grows:
    """Answers with the truth around the clicks, farther with each: a method that learns from clicks."""

    name, prompts = "grows", frozenset(Prompt)

    def __init__(self, truth: np.ndarray, by: float) -> None:
        self.truth, self.by = truth, by
        self.asked: list[tuple[tuple[int, int, int], bool]] = []
        self.boxes: list[tuple[int, ...]] = []
        self.requests: list[list[str]] = []
        self._mask = np.zeros_like(truth)

    def on_slice(self, volume, frame: SliceFrame, index: int, structure="structure"):
        return OnSlice(self.on_volume(volume), frame, index)

    def on_volume(self, volume, structure="structure"):
        self._mask = np.zeros_like(self.truth)
        self.asked = []
        return self

    def by_name(self, volume, names):
        self.requests.append(list(names))
        return {name: self.truth for name in names if name == "ball"}

    def box(self, box):
        self.boxes.append(box)
        return self._mask

    def scribble(self, strokes):
        return strokes.enforced(self._mask)

    def click(self, voxel, *, inside):
        self.asked.append((voxel, inside))
        grid = np.stack(np.mgrid[tuple(map(slice, self.truth.shape))], axis=-1)
        if inside:
            self._mask = self._mask | (self.truth & (np.linalg.norm(grid - voxel, axis=-1) < self.by))
        return self._mask


def clicked(method, volume, target, clicks, **options):
    return prompt_through(method, volume, target, Annotator(clicks=clicks, **options))


def scores(trial: Trial) -> list[float]:
    return [step.dice for step in trial.steps]


def test_perfect_method_is_clicked_once():
    volume, truth = ball_volume()
    (target,) = list(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    steps = clicked(Grows(truth, 100), volume, target, 4).steps
    assert [step.clicks for step in steps] == [1, 2, 3, 4]
    assert [step.dice for step in steps] == [1.0] * 4
    assert [step.hd95 for step in steps] == [0.0, None, 0.0, None]
    assert [step.seconds is None for step in steps] == [False, True, True, True]
    assert [step.far_change for step in steps] == [0.0, None, None, None]


def test_method_that_grows_gets_better_and_is_clicked_where_it_is_wrong():
    volume, truth = ball_volume()
    target = next(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    method = Grows(truth, 5)
    trial = clicked(method, volume, target, 5)
    assert scores(trial) == sorted(scores(trial))
    assert scores(trial)[4] > scores(trial)[0] + 0.2
    assert len(set(method.asked)) == 5
    assert all(inside and truth[voxel] for voxel, inside in method.asked)


def test_slices_are_spread_evenly_and_small_ones_left_out():
    volume, truth = ball_volume()
    every = [target.index for target in slice_targets("g", "c", volume, {"ball": truth}, 0, 1)]
    assert every == list(range(2, 7))
    assert [target.index for target in slice_targets("g", "c", volume, {"ball": truth}, 3, 1)] == [2, 4, 6]
    assert [target.index for target in slice_targets("g", "c", volume, {"ball": truth}, 0, 200)] == [3, 4, 5]


def test_whole_volume_is_clicked_in_millimetres():
    volume, truth = ball_volume()
    (target,) = volume_targets("g", "c", {"ball": truth, "nothing": np.zeros_like(truth)}, 50)
    method = Grows(truth, 6)
    trial = clicked(method, volume, target, 3)
    assert method.asked[0] == ((26, 18, 4), True)
    assert scores(trial) == sorted(scores(trial))


@pytest.mark.parametrize("mode", ["slice", "volume"])
def test_random_first_click_is_the_same_for_a_seed_and_another_for_another(mode):
    volume, truth = ball_volume()
    targets = (
        slice_targets("g", "c", volume, {"ball": truth}, 1, 50)
        if mode == "slice"
        else volume_targets("g", "c", {"ball": truth}, 50)
    )
    target, method, runs = next(iter(targets)), Grows(truth, 5), []
    for repeat, seed in ((0, 1), (0, 1), (1, 1), (0, 2)):
        prompt_through(method, volume, target, Annotator(clicks=3, seed=seed), repeat)
        assert all(truth[voxel] for voxel, _ in method.asked)
        runs.append(tuple(method.asked))
    assert runs[0] == runs[1]
    assert len({run[0] for run in runs}) == 3


def test_box_and_scribble_come_before_the_clicks():
    volume, truth = ball_volume()
    outside = np.zeros_like(truth)
    outside[2, 2] = True
    strokes = Strokes(truth & (np.arange(9) == 4), outside)
    (target,) = volume_targets("g", "c", {"ball": truth}, 50, {"ball": strokes})
    method = Grows(truth, 50)
    steps = clicked(method, volume, target, 1, prompt=Prompt.BOX).steps
    assert method.boxes == [(18, 34, 10, 26, 4, 4)]
    assert [(step.clicks, step.dice) for step in steps] == [(0, 0.0), (1, 1.0)]
    (step,) = clicked(method, volume, target, 0, prompt=Prompt.SCRIBBLE).steps
    assert step.dice == pytest.approx(dice(strokes.foreground, truth))
    (other,) = volume_targets("g", "c", {"ball": truth}, 50)
    assert clicked(method, volume, other, 0, prompt=Prompt.SCRIBBLE) is None


def test_box_is_on_the_slice_of_the_middle_voxel():
    truth = np.zeros((6, 8, 5), bool)
    truth[1:3, 2:4, 0], truth[0:5, 1:8, 3] = True, True
    assert middle_box(truth, 2) == (0, 4, 1, 7, 3, 3)


def test_challenge_measures_the_surface_and_clicks_all_errors_alike():
    volume, truth = ball_volume()
    (target,) = volume_targets("g", "c", {"ball": truth}, 50)
    method = Grows(truth, 6)
    trial = clicked(method, volume, target, 2, is_challenge=True, tolerance_mm=2.0)
    assert [0 < step.nsd < 1 for step in trial.steps] == [True, True]
    first = method.asked[0][0]
    assert first[2] == 4  # as deep in voxels as the ball is thick
    assert first != (26, 18, 4)


def test_names_of_structures_that_share_voxels_are_asked_for_in_two_requests():
    volume, truth = ball_volume()
    half = truth & (np.arange(9) < 4)
    targets = list(volume_targets("g", "c", {"ball": truth, "half": half, "rest": truth & ~half}, 50))
    method = Grows(truth, 1)
    answers = [trial for trial, _ in ask_by_name(method, volume, targets)]
    assert method.requests == [["ball"], ["half", "rest"]]
    assert [(t.target.structure, t.is_known, t.steps[0].dice) for t in answers] == [
        ("ball", True, 1.0),
        ("half", False, 0.0),
        ("rest", False, 0.0),
    ]


def test_change_far_from_the_clicked_error_is_counted():
    truth = np.zeros((20, 20), bool)
    truth[2:8, 2:8] = True
    before = truth.copy()
    before[2:8, 5:8] = False  # the right half is missing
    after = truth.copy()
    assert far_change(before, after, truth, (4, 6)) == 0.0
    after[4:10, 15:18] = True  # as many voxels appear far away
    assert far_change(before, after, truth, (4, 6)) == 0.5
    assert far_change(before, before, truth, (4, 6)) == 0.0


@pytest.mark.parametrize("mode", ["slice", "volume"])
def test_baseline_sees_the_same_anatomy_in_another_voxel_order(mode):
    volume, truth = ball_volume()
    flipped = Volume(
        volume.array[::-1],
        volume.affine @ np.array([[-1, 0, 0, 47], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float),
        "MR",
    )
    method = BaselineMethod(make_baseline("threshold-band", {"width": 0.2, "sigma": 0.0}))
    found = []
    for seen, mask in ((volume, truth), (flipped, truth[::-1])):
        targets = (
            slice_targets("g", "c", seen, {"b": mask}, 1, 50)
            if mode == "slice"
            else volume_targets("g", "c", {"b": mask}, 50)
        )
        found.append(scores(clicked(method, seen, next(targets), 2))[0])
    assert found[0] == pytest.approx(found[1], abs=0.02)
    assert found[0] > 0.8


def test_baseline_for_slices_does_not_do_volumes():
    volume, truth = ball_volume()
    (target,) = volume_targets("g", "c", {"ball": truth}, 50)
    assert clicked(BaselineMethod(load_baseline("grabcut")), volume, target, 2) is None


@pytest.fixture(scope="module")
def compact():
    return ModelMethod("compact", Predictor(load_model("compact", device="cpu"), prefetch_slices=0))


def test_model_finds_a_bright_ball(compact):
    volume, truth = ball_volume()
    target = next(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    assert scores(clicked(compact, volume, target, 3))[2] > 0.85


def test_model_takes_corrections_on_slices_without_a_mask(compact):
    volume, truth = ball_volume()
    interaction = compact.on_volume(volume)
    mask = interaction.click((26, 18, 4), inside=True)
    assert dice(mask, truth) > 0.6  # followed to the other slices
    index = 2
    outside = (*np.argwhere(~truth[:, :, index])[0].tolist(), index)
    corrected = interaction.click(outside, inside=False)
    assert not corrected[outside]
    assert corrected[:, :, 4].any()
    assert not compact.on_volume(volume).click((5, 5, 2), inside=False).any()


def test_model_takes_a_box_and_a_scribble_and_knows_no_names(compact):
    volume, truth = ball_volume()
    boxed = compact.on_volume(volume).box(middle_box(truth, 2))
    assert dice(boxed, truth) > 0.6
    strokes = Strokes(np.zeros_like(truth), np.zeros_like(truth))
    strokes.foreground[22:30, 18, 4] = True
    strokes.background[2:6, 5, 4] = True
    drawn = compact.on_volume(volume).scribble(strokes)
    assert drawn[strokes.foreground].all()
    assert dice(drawn, truth) > 0.6
    assert compact.by_name(volume, ["liver"]) == {}


def test_model_is_asked_by_the_names_of_its_labels():
    volume, truth = ball_volume()
    model, words = load_model("compact", device="cpu"), load_text_encoder()
    said = BundleMetadata(("liver", "left kidney"), words.name, words.fingerprint, "any", words.dimension, 128, {})
    labels = LabelPrompter(new_label_prompt(model, words.dimension).eval(), said, words, model)
    method = ModelMethod("compact", Predictor(model, prefetch_slices=0), labels)
    found = method.by_name(volume, ["Liver", "spleen", "LK"])
    assert list(found) == ["Liver", "LK"]
    assert all(mask.shape == truth.shape for mask in found.values())


def test_joined_structures_need_all_parts():
    structures = {"a": np.array([True, False]), "b": np.array([False, True])}
    join_structures(structures, {"both": ["a", "b"], "any": ["?"], "never": ["a", "c*"]})
    assert structures["both"].all()
    assert structures["any"].all()
    assert "never" not in structures


def test_interval_holds_the_mean_and_narrows():
    few, many = (mean_of_values([0.2, 0.8, 0.5] * times) for times in (1, 50))
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    alone = mean_of_values([0.4])
    assert (alone.low, alone.high, alone.few) == (0.4, 0.4, True)


def test_summary_in_numbers():
    _, truth = ball_volume()
    target = Target("g", "c", "ball", 4, truth[:, :, 4])
    first = (Step(1, 0.5, 4.0, None, 0.0, 0.3), Step(2, 0.9, None, None, 0.25, 0.1), Step(3, 0.8, 2.0, None, 0.5, 0.1))
    second = (
        Step(1, 0.7, np.inf, None, 0.0, 0.5),
        Step(2, 0.7, None, None, 0.75, 0.1),
        Step(3, 0.8, 1.0, None, 0.5, 0.3),
    )
    trials = [Trial("m", target, 0, first), Trial("m", target, 1, second)]
    (record,) = summarise(click_table(trials)).to_dict("records")
    assert [record[f"dice@{n}"].value for n in (1, 3)] == pytest.approx([0.6, 0.8])
    assert [record[f"p10@{n}"] for n in (1, 3)] == pytest.approx([0.52, 0.8])
    expected = {"noc@80": 2.5, "noc@85": 2.5, "noc@90": 2.5, "failed@80": 0.0, "failed@85": 0.5, "failed@90": 0.5}
    expected |= {"hd95@1_mm": 4.0, "hd95@3_mm": 1.5, "empty@1": 0.5, "empty@3": 0.0, "largest_drop": 0.0}
    expected |= {"group": "g", "structure": "ball", "count": 2, "first_seconds": 0.4, "next_seconds": 0.1}
    expected |= {"lowered": 0.5, "far_change": 0.5, "unknown": 0.0}
    assert {name: record[name] for name in expected} == expected
    assert record["change_per_click"] == pytest.approx(0.1)
