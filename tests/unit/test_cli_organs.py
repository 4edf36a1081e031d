"""`causal-sam organs` on a small image, with labels that are not trained yet."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, LabelPart
from causal_sam.sam.label_prompt import LabelPrompt
from causal_sam.text import load_text_encoder


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model, encoder = load_model("compact", device="cpu"), load_text_encoder()
    prompt = LabelPrompt(encoder.dimension, 128)
    torch.nn.init.constant_(prompt.to_filter.bias[-1:], 1.0)  # finds everything everywhere
    path = tmp_path_factory.mktemp("taught") / "labels.safetensors"
    names = ("liver", "left kidney")
    said = BundleMetadata(names, encoder.name, encoder.fingerprint, model.encoder_hash(), encoder.dimension, 128, {})
    AdapterBundle(LabelPart.from_training(prompt, said, model)).write(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.nii.gz"
    array = np.random.default_rng(0).normal(40, 20, (24, 20, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-2.0, -2.0, 4.0, 1.0])), path)
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["organs", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_label_map_is_on_the_images_grid(taught: Path, image: Path, tmp_path: Path) -> None:
    output = tmp_path / "organs.nii.gz"
    code, said = run(image, "--adapter-bundle", taught, "--names", "LK, Hepatic", "-o", output, "--json")
    assert code == 0, said
    report = json.loads(said.splitlines()[-1])
    assert {name: label["value"] for name, label in report["labels"].items()} == {"left kidney": 1, "liver": 2}
    written = nibabel.load(output)
    assert written.shape == (24, 20, 3)
    np.testing.assert_allclose(written.affine, nibabel.load(image).affine)
    counts = np.bincount(np.asarray(written.dataobj).ravel(), minlength=3)
    for label in report["labels"].values():
        assert label["volume_ml"] == pytest.approx(counts[label["value"]] * 0.016, abs=1e-3)


def test_without_names_all_that_were_taught(taught: Path, image: Path, tmp_path: Path) -> None:
    code, said = run(image, "--adapter-bundle", taught, "-o", tmp_path / "organs.nrrd")
    assert code == 0, said
    assert "liver" in said
    assert "left kidney" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--names", "pseudocyst"], "pseudocyst was never learned; learned are liver, left kidney."),
        (["--adapter-bundle", "nowhere.safetensors"], "There is no adapter bundle nowhere.safetensors."),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    taught: Path, image: Path, tmp_path: Path, options: list[str], sentence: str
) -> None:
    output = tmp_path / "organs.nii.gz"
    code, said = run(image, "--adapter-bundle", taught, "-o", output, *options)
    assert code == 2
    assert sentence in " ".join(said.split())
    assert not output.exists()


def test_the_old_name_of_the_option_still_counts(taught: Path, image: Path, tmp_path: Path) -> None:
    output = tmp_path / "organs.nii.gz"
    for old in (["--taught", taught], [f"--taught={taught}"]):
        code, said = run(image, *old, "-o", output)
        assert code == 0, said
        assert said.count("The option --taught is deprecated: use --adapter-bundle.") == 1
        assert output.is_file()
        output.unlink()


def test_the_image_is_never_replaced(taught: Path, image: Path) -> None:
    code, said = run(image, "--adapter-bundle", taught, "-o", image)
    assert code == 2
    assert "would replace its image" in said
