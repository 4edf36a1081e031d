"""The whole command on small images."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner
from unit.benchmark.test_interactive import ball_volume

from causal_sam.cli import app
from causal_sam.cli.benchmark.interactive import parse_joins


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
    assert {name.split("-")[0] for name in pictures if "-1-" in name} == {"worst", "best"}
    assert all(f"({name})" in text for name in pictures)
    assert [path.name for path in (folder / "out").iterdir()] == ["report"]


def test_one_pattern_is_a_union():
    assert parse_joins(["lungs=* lung *", "both = a + b"]) == {"lungs": ["* lung *"], "both": ["a", "b"]}


def test_command_in_volume_mode_leaves_out_methods_for_slices(folder):
    options = ["--baseline", "grabcut", "--mode", "volume", "--clicks", 1, "--no-context", "--pictures", 0]
    run("--data", folder, "-o", folder / "r", *options)
    assert not list((folder / "r").glob("worst-*"))
    text = (folder / "r" / "report.md").read_text()
    assert "| compact | 1 |" in text
    assert "| grabcut |" not in text
    assert "volume context: not used" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--case", "nothing/*"], "No case is like nothing/*"),
        (["--join", "both"], "must be NAME=A+B"),
        (["--join", "both=label 1"], "must be NAME=A+B"),
        (["--baseline", "magic"], "no baseline 'magic'"),
        (["--jitter", "3", "--prompt", "box"], "about first clicks"),
        (["--prompt", "name", "--clicks", "2"], "nothing is clicked"),
        (["--prompt", "scribble", "--mode", "slices"], "is for --mode volume"),
        (["--protocol", "cvpr2025", "--clicks", "3"], "with 5 clicks"),
        (["--prompt", "box", "--baseline", "geodesic"], "takes no --prompt box"),
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


def test_random_first_clicks_in_a_volume_are_reported_with_their_spread(folder):
    run("--data", folder, "-o", folder / "r", "--mode", "volume", "--clicks", 2, "--jitter", 3)
    rows = list(csv.DictReader((folder / "r" / "trials.csv").open()))
    assert [(row["repeat"], row["clicks"]) for row in rows] == [(str(n), str(c)) for n in range(3) for c in (1, 2)]
    (summary, _) = csv.DictReader((folder / "r" / "summary.csv").open())
    first = [float(row["dice"]) for row in rows if row["clicks"] == "1"]
    assert float(summary["p10@1"]) == pytest.approx(np.percentile(first, 10), abs=1e-4)
    text = (folder / "r" / "report.md").read_text()
    assert "p10@1" in text
    assert "in 0 of 1 targets" in text or "in 1 of 1 targets" in text


def test_progress_is_told_in_lines(folder):
    result = CliRunner().invoke(
        app, ["benchmark", "interactive", "--data", str(folder), "-o", str(folder / "r"), "--clicks", "1"]
    )
    assert "case 1/1 · reading · 00:00" in result.stderr
    assert "case" not in result.stdout


def test_unknown_names_count_as_nothing(folder):
    run("--data", folder, "-o", folder / "r", "--prompt", "name")
    text = (folder / "r" / "report.md").read_text()
    assert "Unknown names, which count as Dice 0: label 1." in text
    (row,) = csv.DictReader((folder / "r" / "trials.csv").open())
    assert (row["known"], row["clicks"], float(row["dice"])) == ("False", "0", 0.0)


def test_challenge_is_reported_beside_published_figures(folder):
    run("--data", folder, "-o", folder / "r", "--protocol", "cvpr2025")
    (scores,) = csv.DictReader((folder / "r" / "cvpr2025.csv").open())
    rows = list(csv.DictReader((folder / "r" / "trials.csv").open()))
    assert [row["clicks"] for row in rows] == list("012345")
    dice = [float(row["dice"]) for row in rows]
    assert float(scores["DSC_final"]) == pytest.approx(dice[-1], abs=1e-4)
    assert float(scores["DSC_AUC"]) == pytest.approx(sum(dice[1:]) - (dice[1] + dice[5]) / 2, abs=1e-3)
    text = (folder / "r" / "report.md").read_text()
    assert "GS_MedSegFM" in text
    assert "arXiv 2510.03189" in text
