"""`causal-sam style`: what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import pytest
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.phantom.studies import STYLES, render_study


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    volume, _ = render_study(STYLES["ct-low-dose"], 0)
    path = tmp_path_factory.mktemp("image") / "Doe_Jane.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.array, volume.affine), path)
    return path


def test_it_prints_a_sentence_and_the_numbers_behind_it(image: Path) -> None:
    result = CliRunner().invoke(app, ["style", str(image)])
    assert result.exit_code == 0, result.output
    first, *numbers = result.stdout.splitlines()
    assert first.startswith("A CT image, with slices of medium thickness of 3 mm")
    assert [line.split(":")[0].strip() for line in numbers] == ["noise", "blur", "bias field", "contrast", "streaks"]
    assert "Doe" not in result.stdout


def test_json_is_the_structured_form(image: Path) -> None:
    result = CliRunner().invoke(app, ["style", str(image), "--json"])
    record = json.loads(result.stdout)
    assert record["acquisition"]["modality"] == "CT"
    assert record["measured"]["noise_hu"] == pytest.approx(22, rel=0.3)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["style", str(tmp_path / "none.nii")])
    assert result.exit_code == 2
    assert "There is no file or folder none.nii." in result.stderr
