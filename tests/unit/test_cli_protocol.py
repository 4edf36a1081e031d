"""`causal-sam protocol`: what it says of accepted labels, what it writes, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from accepted_studies import AFFINE, accept
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.correction.journal import Journal
from causal_sam.site.paths import JOURNAL_FOLDER

RULES = "# Ours\n\nThe liver is measured.\n\n- No holes in the liver\n- Aorta down to the bifurcation\n"


def with_hole(number: int) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A liver, with a hole on the image 0 alone."""
    label = np.zeros((40, 36, 5), np.uint8)
    label[4:20, 6:26, 1:4] = 3
    if number == 0:
        label[10:12, 12:15, 2] = 0
    image = np.random.default_rng(number).normal(300, 8, label.shape) + 50 * label
    return nibabel.Nifti1Image(image.astype(np.float32), AFFINE), nibabel.Nifti1Image(label, AFFINE)


def run(command: str, studies: Path, *options: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["protocol", command, str(studies), *map(str, options)])
    assert result.exit_code == code, f"{result.output}{result.exception!r}"
    return result.output


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = accept(tmp_path / "studies", [0, 2], with_hole, ("spleen", "stomach", "liver"))
    (folder / "protocol.md").write_text(RULES)
    return folder


def test_check_reports_and_carries_out_and_leaves_the_studies_as_they_are(studies: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in studies.rglob("*.*") if path.is_file()}
    output = tmp_path / "corrected"
    said = run("check", studies, "--apply", output, "--json", code=1)
    hole, whole = map(json.loads, said.splitlines())
    assert [rule["status"] for rule in hole["rules"]] == ["fails", "question"]
    assert hole["rules"][1]["line"] == 6
    (act,) = hole["rules"][0]["acts"]
    assert (act["exact"], act["gained_ml"], act["lost_ml"]) == (True, pytest.approx(6 * 0.024), 0)
    assert [rule["status"] for rule in whole["rules"]] == ["holds", "question"]
    assert (hole["applied"]["changed"], whole["applied"]["output"]) == (["liver"], None)
    written = nibabel.load(output / "case0.nii.gz")
    value = hole["applied"]["values"]["liver"]
    np.testing.assert_array_equal(np.asanyarray(written.dataobj) == value, with_hole(1)[1].get_fdata() == 3)
    assert {path: path.read_bytes() for path in before} == before
    words = run("check", studies, "--case", "case2", code=1)
    assert "line 5: holds: No holes in the liver" in words
    assert "case0" not in words
    (studies / "protocol.md").write_text("- No holes in the liver")
    assert "fill the holes of the liver: holds" in run("check", studies, "--case", "case2")


def test_propose_writes_what_is_taken_behind_what_people_wrote(studies: Path) -> None:
    journal = Journal(studies / JOURNAL_FOLDER)
    for image in ("a", "b", "c"):
        plan = {"interventions": [{"label": "liver", "action": "keep_largest"}]}
        journal.append({"act": "note", "image": image, "frame": 0, "user": None, "note": "one piece", "plan": plan})
    (studies / "protocol.md").write_text("- No holes in the liver\n")
    said = run("propose", studies)
    assert "Keep only the largest component of the liver. (new, from 3 images)" in said
    assert "loss of Dice on 1 held-out labels: 0.0000" in said
    assert (studies / "protocol.md").read_text() == "- No holes in the liver\n"
    report = json.loads(run("propose", studies, "--write", "--json").partition("\n{")[2].join(("{", "")))
    assert report["written"] == ["Keep only the largest component of the liver."]
    text = (studies / "protocol.md").read_text()
    assert text == "- No holes in the liver\n- Keep only the largest component of the liver.\n"
    assert "nothing was written" in run("propose", studies, "--write")


@pytest.mark.parametrize(
    ("command", "options", "sentence"),
    [
        ("check", ("--case", "nobody"), "The image nobody has no accepted label"),
        ("check", ("--model", "giant"), "There is no model 'giant'"),
        ("propose", ("--llm", "nonsense"), "PROVIDER:MODEL"),
    ],
)
def test_mistakes_are_said_in_a_sentence(studies: Path, command: str, options: tuple[str, ...], sentence: str) -> None:
    assert sentence in " ".join(run(command, studies, *options, code=2).split())


def test_without_rules_or_studies_nothing_is_checked(studies: Path, tmp_path: Path) -> None:
    (studies / "protocol.md").write_text("# Nothing yet\n")
    assert "There is no rule in" in run("check", studies, code=2)
    assert "There is no folder" in run("propose", tmp_path / "nowhere", code=2)
