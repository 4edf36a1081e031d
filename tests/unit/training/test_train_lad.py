"""The training script: it runs, alone and in two processes, goes on after a stop, and says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
import yaml

from causal_sam.errors import InputError
from causal_sam.prompting import LabelPrompter
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "sample_configs" / "training" / "lad.yaml"
SCRIPT = ROOT / "training" / "train_lad.py"


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
    script.train(0, script.read_config(SAMPLE, given))
    assert "of the parameters train" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["trainable share"] < 0.09
    assert record["dice"].keys() == {"label 1"}
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert (tmp_path / "run" / "examples-000004.png").is_file()
    model = load_model("compact", device="cpu")
    labels = LabelPrompter.from_bundle(AdapterBundle.read(tmp_path / "run" / "adapters.safetensors"), model)
    assert labels.metadata.names == ("label 1",)
    assert labels.model is not model
    assert labels.model.encoder_hash() == model.encoder_hash()
    script.train(0, script.read_config(SAMPLE, [*given, "steps=6"]))
    assert "Going on after step 4." in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "run").glob("checkpoint_*.pt")] == ["checkpoint_6.pt"]


@pytest.mark.slow
def test_two_processes_train_one_model(data: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [word for change in changes(data, tmp_path / "run") for word in ("--set", change)]
    command = [*launcher, str(SCRIPT), str(SAMPLE), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "on 2 process(es)" in result.stdout
    assert result.stdout.count("written to") == 1


def test_the_command_says_what_is_wrong_and_ends(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_lad.py", str(SAMPLE), "--set", "colour=red"])
    with pytest.raises(SystemExit, match=r"train_lad.py: There is no 'colour' in the configuration"):
        script.main()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("colour=red", "There is no 'colour' in the configuration; known are"),
        ("lad.magic=1", "There is no 'magic' in lad; known are"),
        ("styled=false", "LAD needs a second style"),
        ("steps=none", "is of the wrong kind"),
        ("labels=[spleen]", "No case has the label spleen; there are label 1."),
        ("nonsense", "--set 'nonsense' must be KEY=VALUE"),
        ("adapters.rank=80", "must be under 9%"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    script: ModuleType, data: Path, tmp_path: Path, change: str, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        script.train(0, script.read_config(SAMPLE, changes(data, tmp_path / "run", change)))
    assert sentence in " ".join(str(caught.value).split())


def test_the_sample_shows_every_key_with_its_default(script: ModuleType) -> None:
    values = yaml.safe_load(SAMPLE.read_text())
    shown = script.RunConfig.from_values(values)
    assert shown == script.RunConfig.from_values({"data": values["data"], "out": values["out"]})
    keys = {f for f in shown.__dataclass_fields__ if f != "training"} | set(shown.training.__dataclass_fields__)
    assert values.keys() == keys
    for part in ("adapters", "lad"):
        assert values[part].keys() == set(getattr(shown.training, part).__dataclass_fields__)
