"""The training script: it runs, alone and in two processes, goes on after a stop, and says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from causal_sam.data_sets.case import Case
from causal_sam.errors import InputError
from causal_sam.prompting import LabelPrompter
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle
from causal_sam.training.config_file import from_values, read_values
from causal_sam.training.engine import CHECKPOINT

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "sample_configs" / "training" / "lad.yaml"
SCRIPT = ROOT / "training" / "train_lad.py"
RESULT = "adapters.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for n in range(3):
        label = np.zeros((40, 36, 5), np.uint8)
        label[10 + n : 24 + n, 10:24] = 1
        image = np.random.default_rng(n).normal(300, 8, label.shape) + 200 * label
        for kind, array in (("images", image.astype(np.float32)), ("labels", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([-2.0, -2.0, 6.0, 1.0])), folder / kind / f"{n}.nii.gz")
    return folder


def read_config(script: ModuleType, changes: list[str], sample: Path = SAMPLE) -> Any:
    return from_values(script.RunConfig, read_values(sample, changes))


def changes(data: Path, out: Path, *more: str) -> list[str]:
    return [
        f"data.0.path={data}",
        f"out={out}",
        "image_size=64",
        "steps=4",
        "batch=4",
        "pairs=2",
        "save_every=2",
        *more,
    ]


def test_it_trains_goes_on_and_leaves_what_the_server_takes(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = changes(data, tmp_path / "run")
    script.train(0, read_config(script, given))
    assert "of the parameters train" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["trainable share"] < 0.09
    assert record["dice"].keys() == {"label 1"}
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert (tmp_path / "run" / "examples-000004.png").is_file()
    model = load_model("compact", device="cpu")
    labels = LabelPrompter.from_bundle(AdapterBundle.read(tmp_path / "run" / RESULT), model)
    assert labels.metadata.names == ("label 1",)
    assert labels.model is not model
    assert labels.model.encoder_hash() == model.encoder_hash()
    script.train(0, read_config(script, [*given, "steps=6"]))
    assert "Going on after step 4." in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["step"] == 6


@pytest.mark.slow
def test_two_processes_train_one_model(data: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [word for change in changes(data, tmp_path / "run") for word in ("--set", change)]
    command = [*launcher, str(SCRIPT), str(SAMPLE), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "on 2 process(es)" in result.stdout
    assert result.stdout.count("written to") == 1


def test_the_command_says_what_is_wrong_and_ends() -> None:
    done = subprocess.run([sys.executable, SCRIPT, SAMPLE, "--set", "colour=red"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("train_lad.py: There is no 'colour' in the configuration")


def test_names_are_trained_alone_and_an_earlier_bundle_keeps_its_names(
    script: ModuleType, data: Path, tmp_path: Path
) -> None:
    sample = SAMPLE.with_name("labels.yaml")
    given = [*changes(data, tmp_path / "one"), "minutes=0"]
    script.train(0, read_config(script, given, sample))
    model, labels = load_model("compact", device="cpu"), AdapterBundle.read(tmp_path / "one" / RESULT).labels
    assert LabelPrompter.from_bundle(AdapterBundle(labels), model).model is model  # which has no adapters
    renamed = replace(labels, metadata=replace(labels.metadata, names=("liver",), slices={"liver": 3}))
    AdapterBundle(renamed).write(tmp_path / "renamed")
    script.train(0, read_config(script, [*given, f"out={tmp_path / 'two'}", f"init={tmp_path / 'renamed'}"], sample))
    again = AdapterBundle.read(tmp_path / "two" / RESULT).labels.metadata
    assert (again.names, again.slices["liver"], again.adapters) == (("liver", "label 1"), 3, None)


def test_all_sequences_of_a_patient_are_held_out_together(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        name = f"BraTS2021_{number:05}"
        (tmp_path / name).mkdir()
        for suffix in ("flair", "t1", "t2", "seg"):
            image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
            nibabel.save(image, tmp_path / name / f"{name}_{suffix}.nii.gz")
    monkeypatch.delattr(Case, "read")  # the names are known: nothing is read to find them
    config = read_config(script, [*changes(tmp_path, tmp_path / "run"), "labels=[edema]", "validation=0.4"])
    found = script.find_cases(config)
    assert found.names == ["edema"]
    assert (len(found.trained), len(found.held_out)) == (9, 6)
    assert not {case.name for case in found.trained} & {case.name for case in found.held_out}
    assert {case.sequence for case in found.held_out} == {"FLAIR", "T1", "T2"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("colour=red", "There is no 'colour' in the configuration; known are"),
        ("lad.magic=1", "There is no 'magic' in lad; known are"),
        ("styled=false", "LAD needs a second style"),
        ("steps=none", "steps of the configuration cannot be used: Input should be a valid integer"),
        ("labels=[spleen]", "No case has the label spleen; there are label 1."),
        ("nonsense", "--set 'nonsense' must be KEY=VALUE"),
        ("adapters.rank=80", "must be under 9%"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    script: ModuleType, data: Path, tmp_path: Path, change: str, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        script.train(0, read_config(script, changes(data, tmp_path / "run", change)))
    assert sentence in " ".join(str(caught.value).split())


def test_the_sample_shows_every_key_with_its_default(script: ModuleType) -> None:
    values = read_values(SAMPLE)
    shown = from_values(script.RunConfig, values)
    assert shown == from_values(script.RunConfig, {"data": values["data"], "out": values["out"]})
    assert values.keys() == set(shown.__dataclass_fields__)
    for part in ("adapters", "lad"):
        assert values[part].keys() == set(getattr(shown, part).__dataclass_fields__)
