"""The annotator's protocol with methods whose answers are known, and the whole command on small images."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from causal_sam.benchmark.baselines import load_baseline, make_baseline
from causal_sam.benchmark.interactive import (
    BaselineMethod,
    ModelMethod,
    Target,
    Trial,
    click_through,
    join_structures,
    slice_targets,
    volume_targets,
)
from causal_sam.benchmark.interactive_report import click_table, summarise
from causal_sam.benchmark.statistics import mean_of_values
from causal_sam.cli import app
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import Predictor
from causal_sam.sam import load_model


def ball_volume(affine=None) -> tuple[Volume, np.ndarray]:
    i, j, k = np.mgrid[:48, :40, :9]
    truth = np.sqrt((i - 26) ** 2 + (j - 18) ** 2 + (3 * (k - 4)) ** 2) < 9
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    image = (100 + 200 * truth + noise).astype(np.float32)
    return Volume(image, np.diag([-1.0, -1.0, 3.0, 1.0]) if affine is None else affine, "MR"), truth


class Grows:
    """Answers with the truth around the clicks, farther with each: a method that learns from clicks."""

    name = "grows"

    def __init__(self, truth: np.ndarray, by: float) -> None:
        self.truth, self.by = truth, by

    def on_slice(self, volume, frame: SliceFrame, index: int):
        interaction = self.on_volume(volume)
        return lambda foreground, background: frame.extract(interaction(foreground, background), index)

    def on_volume(self, volume):
        grid = np.stack(np.mgrid[tuple(map(slice, self.truth.shape))], axis=-1)

        def segment(foreground, background):
            near = [np.linalg.norm(grid - voxel, axis=-1) < self.by for voxel in foreground]
            return self.truth & np.any(near, axis=0)

        return segment


def test_perfect_method_is_clicked_once():
    volume, truth = ball_volume()
    (target,) = list(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    trial = click_through(Grows(truth, 100), volume, target, 4)
    assert trial.dice == (1.0,) * 4
    assert trial.hd95 == {1: 0.0, 3: 0.0}
    assert len(trial.seconds) == 1


def test_method_that_grows_gets_better_and_is_clicked_where_it_is_wrong():
    volume, truth = ball_volume()
    target = next(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    asked = []
    method = Grows(truth, 5)
    slow = method.on_volume(volume)
    method.on_volume = lambda volume: lambda fg, bg: asked.append(list(fg)) or slow(fg, bg)
    trial = click_through(method, volume, target, 5)
    assert list(trial.dice) == sorted(trial.dice)
    assert trial.dice[4] > trial.dice[0] + 0.2
    assert [len(clicks) for clicks in asked] == [1, 2, 3, 4, 5]
    assert all(truth[voxel] for voxel in asked[-1])


def test_slices_are_spread_evenly_and_small_ones_left_out():
    volume, truth = ball_volume()
    every = [target.index for target in slice_targets("g", "c", volume, {"ball": truth}, 0, 1)]
    assert every == list(range(2, 7))
    assert [target.index for target in slice_targets("g", "c", volume, {"ball": truth}, 3, 1)] == [2, 4, 6]
    assert [target.index for target in slice_targets("g", "c", volume, {"ball": truth}, 0, 200)] == [3, 4, 5]


def test_whole_volume_is_clicked_in_millimetres():
    volume, truth = ball_volume()
    (target,) = volume_targets("g", "c", {"ball": truth, "nothing": np.zeros_like(truth)}, 50)
    asked = []
    method = Grows(truth, 6)
    slow = method.on_volume(volume)
    method.on_volume = lambda volume: lambda fg, bg: asked.append(list(fg)) or slow(fg, bg)
    trial = click_through(method, volume, target, 3)
    assert asked[0] == [(26, 18, 4)]
    assert list(trial.dice) == sorted(trial.dice)


def test_jitter_is_the_same_for_a_seed_and_another_for_another():
    volume, truth = ball_volume()
    target = next(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    runs = [
        click_through(Grows(truth, 5), volume, target, 3, repeat, seed).dice
        for repeat, seed in ((0, 1), (0, 1), (1, 1), (0, 2))
    ]
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3


@pytest.mark.parametrize("mode", ["slice", "volume"])
def test_baseline_sees_the_same_anatomy_in_another_voxel_order(mode):
    volume, truth = ball_volume()
    flipped = Volume(
        volume.array[::-1],
        volume.affine @ np.array([[-1, 0, 0, 47], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float),
        "MR",
    )
    method = BaselineMethod(make_baseline("threshold-band", {"width": 0.2, "sigma": 0.0}))
    scores = []
    for seen, mask in ((volume, truth), (flipped, truth[::-1])):
        targets = (
            slice_targets("g", "c", seen, {"b": mask}, 1, 50)
            if mode == "slice"
            else volume_targets("g", "c", {"b": mask}, 50)
        )
        scores.append(click_through(method, seen, next(targets), 2).dice[0])
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert scores[0] > 0.8


def test_baseline_for_slices_does_not_do_volumes():
    volume, truth = ball_volume()
    (target,) = volume_targets("g", "c", {"ball": truth}, 50)
    assert click_through(BaselineMethod(load_baseline("grabcut")), volume, target, 2) is None


@pytest.fixture(scope="module")
def compact():
    return ModelMethod("compact", Predictor(load_model("compact", device="cpu"), prefetch_slices=0))


def test_model_finds_a_bright_ball(compact):
    volume, truth = ball_volume()
    target = next(slice_targets("g", "c", volume, {"ball": truth}, 1, 50))
    assert click_through(compact, volume, target, 3).dice[2] > 0.85


def test_model_takes_corrections_on_slices_without_a_mask(compact):
    volume, truth = ball_volume()
    segment = compact.on_volume(volume)
    mask = segment([(26, 18, 4)], [])
    assert dice(mask, truth) > 0.6  # followed to the other slices
    index = 2
    outside = (*np.argwhere(~truth[:, :, index])[0].tolist(), index)
    corrected = segment([(26, 18, 4)], [outside])
    assert not corrected[outside]
    assert corrected[:, :, 4].any()
    assert not compact.on_volume(volume)([], [(5, 5, 2)]).any()


def test_joined_structures_need_all_parts():
    structures = {"a": np.array([True, False]), "b": np.array([False, True])}
    join_structures(structures, {"both": ["a", "b"], "never": ["a", "c"]})
    assert structures["both"].all()
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
    trials = [
        Trial("m", target, 0, (0.5, 0.9, 0.8), {1: 4.0, 3: 2.0}, (0.3, 0.1, 0.1)),
        Trial("m", target, 1, (0.7, 0.7, 0.8), {1: np.inf, 3: 1.0}, (0.5, 0.1, 0.3)),
    ]
    (record,) = summarise(click_table(trials)).to_dict("records")
    assert [record[f"dice@{n}"].value for n in (1, 3)] == pytest.approx([0.6, 0.8])
    expected = {"noc@80": 2.5, "noc@85": 2.5, "noc@90": 2.5, "failed@80": 0.0, "failed@85": 0.5, "failed@90": 0.5}
    expected |= {"hd95@1_mm": 4.0, "hd95@3_mm": 1.5, "empty@1": 0.5, "empty@3": 0.0, "largest_drop": 0.0}
    expected |= {"group": "g", "structure": "ball", "count": 2, "first_seconds": 0.4, "next_seconds": 0.1}
    assert {name: record[name] for name in expected} == expected


@pytest.fixture
def folder(tmp_path):
    volume, truth = ball_volume()
    for name, array in (("p1", volume.array), ("p1_label", truth.astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(array, volume.affine), tmp_path / f"{name}.nii.gz")
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["benchmark", "interactive", *map(str, arguments)])
    assert result.exit_code == code, f"{result.output}{result.exception!r}"
    return result.output


def test_command_writes_a_report(folder):
    report = folder / "out" / "report"
    for _ in range(2):  # the second one replaces the first
        run("--data", folder, "-o", report, "--baseline", "threshold-band", "--clicks", 3, "--slices", 2)
    text = (report / "report.md").read_text()
    assert "| compact | 2 |" in text
    assert "| threshold-band | 2 |" in text
    rows = list(csv.DictReader((report / "trials.csv").open()))
    assert len(rows) == 2 * 2 * 3
    assert {row["structure"] for row in rows} == {"label 1"}
    summary = json.loads((report / "summary.json").read_text())
    ours = next(record for record in summary["groups"] if record["method"] == "compact")
    scores = [float(row["dice"]) for row in rows if row["method"] == "compact" and row["clicks"] == "1"]
    assert ours["dice@1"]["value"] == pytest.approx(np.mean(scores), abs=1e-4)
    assert summary["settings"]["clicks"] == 3
    pictures = {path.name for path in report.glob("*.png")}
    assert {"dice.png", "clicks.png"} < pictures
    assert all(f"({name})" in text for name in pictures)
    assert [path.name for path in (folder / "out").iterdir()] == ["report"]


def test_command_in_volume_mode_leaves_out_methods_for_slices(folder):
    run("--data", folder, "-o", folder / "r", "--baseline", "grabcut", "--mode", "volume", "--clicks", 1)
    text = (folder / "r" / "report.md").read_text()
    assert "| compact | 1 |" in text
    assert "| grabcut |" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--case", "nothing/*"], "No case is like nothing/*"),
        (["--join", "both"], "must be NAME=A+B"),
        (["--baseline", "magic"], "no baseline 'magic'"),
        (["--repeats", "3"], "Without --jitter"),
        (["--label", "liver"], "Nothing was measured"),
        (["--model", "compact", "--model", "vit_b", "--checkpoint", "x.pth"], "belongs to one model"),
    ],
)
def test_mistakes_are_said_in_a_sentence(folder, arguments, sentence):
    assert sentence in run("--data", folder, "-o", folder / "r", *arguments, code=2)
    assert not (folder / "r").exists()


def test_other_peoples_folder_is_not_replaced(folder):
    before = sorted(folder.iterdir())
    assert "something other than a report" in run("--data", folder, "-o", folder, code=2)
    assert sorted(folder.iterdir()) == before
