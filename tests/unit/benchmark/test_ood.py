"""The benchmark across domains: who is trained on, that every method runs and is scored, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from causal_sam.benchmark.ood.features import pooled_features
from causal_sam.benchmark.ood.methods import METHODS, RandomVectors
from causal_sam.benchmark.ood.protocols import BrainProtocol, DataProtocol
from causal_sam.benchmark.ood.results import read_runs
from causal_sam.cli import app
from causal_sam.data_sets.cases import read_cases
from causal_sam.errors import InputError
from causal_sam.phantom import brain
from causal_sam.training.style_pairs import labelled_slices


def test_no_patient_is_on_both_sides(images: Path) -> None:
    protocol = DataProtocol(images, "auto", ["blocks/*/T1"], ["blocks/*/T2"], "modality")
    seen = set()
    for seed in range(4):
        split = protocol.split(seed)
        train, test = {scan.patient for scan in split.train}, {scan.patient for scan in split.test}
        assert train
        assert test
        assert not train & test
        assert {scan.domain for scan in split.train} == {"blocks MR T1"}
        assert split.shifts == {"blocks MR T1": "none", "blocks MR T2": "modality"}
        assert {scan.patient for scan in split.probe_train} == train
        assert split.train[0].acquisition.sequence == "T1"
        seen.add(tuple(sorted(test)))
    assert len(seen) > 1


def test_what_cannot_be_compared_is_said(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No case is like blocks/9/"):
        DataProtocol(images, "auto", ["blocks/9/*"], ["blocks/*/T2"], "modality")
    with pytest.raises(InputError, match="share no structure"):
        DataProtocol(images, "auto", ["blocks/*/T1"], ["blocks/*/T2"], "modality", labels=["liver"])
    with pytest.raises(InputError, match="at least three label maps"):
        BrainProtocol(tmp_path)


def test_brains_are_scanned_by_sources_for_training_and_by_all_for_the_test(tmp_path: Path) -> None:
    values = np.zeros((40, 40, 40), np.int16)
    values[8:32, 8:32, 8:32], values[14:26, 14:26, 14:26] = 3, 2
    for n in range(3):
        nibabel.save(nibabel.Nifti1Image(np.roll(values, n), np.eye(4)), tmp_path / f"{n}.nii.gz")
    split = BrainProtocol(tmp_path).split(0)
    assert len({scan.patient for scan in split.train}) == len(split.train) == 2
    assert {scan.domain for scan in split.train} <= {name for name, shift in split.shifts.items() if shift == "none"}
    assert {scan.domain for scan in split.test} == set(brain.STYLES)
    assert split.train[0].volume.spacing == pytest.approx((1.0, 1.0, 8.0))
    assert set(split.shifts.values()) == {"none", "scanner", "modality"}


def test_random_vectors_are_the_same_for_the_same_text() -> None:
    encode = RandomVectors(16, 0)
    a, b, again = encode(["one", "other", "one"])
    assert torch.equal(a, again)
    assert abs(float(a @ b)) < 0.9
    torch.testing.assert_close(a.norm(), torch.tensor(1.0))
    assert not torch.equal(RandomVectors(16, 1)(["one"])[0], a)


def run(folder: Path, images: Path, *arguments: str):
    domains = ["--data", str(images), "--source", "blocks/*/T1", "--target", "blocks/*/T2"]
    size = ["--steps", "2", "--batch", "4", "--pairs", "2", "--image-size", "64", "--seeds", "1"]
    return CliRunner().invoke(app, ["benchmark", "ood", *domains, *size, "-o", str(folder), *arguments])


@pytest.mark.parametrize("prompt", ["name", pytest.param("click", marks=pytest.mark.slow)])
def test_every_method_is_trained_scored_and_reported(images: Path, tmp_path: Path, prompt: str) -> None:
    result = run(tmp_path / "ood", images, "--prompt", prompt)
    assert result.exit_code == 0, result.output
    runs = read_runs(tmp_path / "ood" / "runs.jsonl")
    assert [one.method for one in runs] == [method.name for method in METHODS.values()]
    for one in runs:
        assert {score.domain for score in one.scores} == {"blocks MR T1", "blocks MR T2"}
        assert all(0 <= score.dice <= 1 for score in one.scores)
        assert one.step_seconds > 0
        assert one.trainable_share < 0.09 or one.method == "U-Net"
    report = (tmp_path / "ood" / "report" / "report.md").read_text()
    assert all(one.method in report for one in runs)


def test_it_goes_on_where_it_was_interrupted_and_does_not_mix_settings(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ood"
    assert run(folder, images, "--method", "unet").exit_code == 0
    first = (folder / "runs.jsonl").read_text()
    with (folder / "runs.jsonl").open("a") as file:
        file.write('{"protocol": "half')
    assert run(folder, images, "--method", "unet", "--method", "adapters").exit_code == 0
    runs = (folder / "runs.jsonl").read_text()
    assert runs.startswith(first)
    assert [one.method for one in read_runs(folder / "runs.jsonl")] == ["U-Net", "SAM + adapters"]
    result = run(folder, images, "--steps", "3")
    assert result.exit_code == 2
    assert "begun with steps '2', not '3'" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "magic"], "There is no method 'magic'"),
        (["--shift", "mood"], "--shift must be one of scanner"),
        (["--protocol", "phantom"], "leave it out with phantom"),
        (["--protocol", "brain"], "has its own sources"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(
    images: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = run(tmp_path / "ood", images, *arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert not (tmp_path / "ood").exists()


def test_structures_too_small_for_the_grid_of_the_features_are_scored_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    cases = []
    for patient in range(3):
        label = np.zeros((40, 36, 6), np.uint8)
        label[12 + patient, 10, 2:4] = 1
        image = np.random.default_rng(patient).normal(300, 8, label.shape) + 300 * label
        for name, array in (("label", label), ("image", image.astype(np.float32))):
            nibabel.save(
                nibabel.Nifti1Image(array, np.diag([-2.0, -2.0, 6.0, 1.0])), folder / f"{patient}_{name}.nii.gz"
            )
        paths = {"image": f"{patient}_image.nii.gz", "label": f"{patient}_label.nii.gz"}
        about = {"set": "dots", "case": str(patient), "modality": "MR", "sequence": "T1", "labels": {"1": "dot"}}
        cases.append(paths | about)
    (folder / "cases.json").write_text(json.dumps(cases))
    domains = ["--data", str(folder), "--source", "dots/*/T1", "--target", "dots/*/T1", "--method", "unet"]
    size = ["--steps", "2", "--batch", "4", "--pairs", "2", "--image-size", "64", "--seeds", "1"]
    result = CliRunner().invoke(app, ["benchmark", "ood", *domains, *size, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    (run_,) = read_runs(tmp_path / "out" / "runs.jsonl")
    assert {score.structure for score in run_.scores} == {"dot"}
    assert (tmp_path / "out" / "report" / "report.md").is_file()
    assert not (tmp_path / "out" / "report" / "features.png").exists()


def test_a_scan_without_any_of_the_structures_has_features_of_its_slices(images: Path) -> None:
    volume, _ = read_cases(images)[0].read()
    labelled = labelled_slices(volume, {}, ["liver"], 64)
    found = pooled_features(labelled, ["liver"], 64, lambda x: x.mean((-2, -1), keepdim=True).expand(-1, -1, 8, 8))
    assert found.slices.shape == (6, 3)
    assert found.structures.shape == (0, 3)
    assert found.names == []
