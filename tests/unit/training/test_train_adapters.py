"""The script for torchrun and Slurm: several processes make one version, and what is wrong is said in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from accepted_studies import NAME, accept

from causal_sam.errors import InputError
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import JOURNAL_FOLDER, STORE_FOLDER
from causal_sam.training.config_file import read_values

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "sample_configs" / "training" / "adapters.yaml"
SCRIPT = ROOT / "training" / "train_adapters.py"
LAUNCH = ROOT / "training" / "launch"
QUICK = ("image_size=64", "epochs=8", "batch=4", "pairs=2", "lad=false", "validation=0", "device=cpu")


def launched(studies: Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [word for change in (f"data={studies}", *QUICK) for word in ("--set", change)]
    command = [*launcher, str(SCRIPT), str(SAMPLE), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)


@pytest.mark.slow
def test_two_processes_make_one_version_and_say_when_nothing_is_new(tmp_path: Path) -> None:
    studies = accept(tmp_path / "studies", [0, 1])
    store = AdapterStore(studies / STORE_FOLDER)
    first = launched(studies)
    assert first.returncode == 0, first.stderr
    assert (store.numbers(), store.current()) == ([1], 1)
    assert first.stdout.count("v0001 was trained on 2 cases and published") == 1
    assert store.version(1).manifest.training.metrics[NAME] > 0.8
    again = launched(studies)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("No label was accepted since v0001") == 1
    assert store.numbers() == [1]


def test_the_command_says_what_is_wrong_and_ends(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_adapters.py", str(SAMPLE), "--set", f"data={tmp_path}"])
    with pytest.raises(SystemExit, match=r"train_adapters.py: .* is no data store of MONAI Label"):
        script.main()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("colour=red", "There is no 'colour' in the configuration; known are data, store"),
        ("minutes=soon", "minutes of the configuration cannot be used: Input should be a valid number"),
        ("replay=2", "replay must be at least 0 and below 1"),
        ("labels=liver", "labels of the configuration cannot be used: Input should be a valid tuple"),
        ("values=[1]", "--set 'values=[1]' does not fit the configuration: "),
        ("device=gpu", "device must be auto, cpu, cuda"),
        ("data=", "The configuration lacks data"),
        ("nonsense", "--set 'nonsense' must be KEY=VALUE, such as minutes=30 or data.0.path=DIR."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(script: ModuleType, change: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        script.read_config(read_values(SAMPLE, [change]))
    assert sentence in str(caught.value)


def test_the_sample_shows_every_key_with_its_default(script: ModuleType) -> None:
    values = read_values(SAMPLE)
    site, learning = script.read_config(values)
    assert (site, learning) == script.read_config({"data": values["data"]})
    assert values.keys() == set(site.__dataclass_fields__) | set(learning.__dataclass_fields__)
    assert site.store == Path(values["data"]) / STORE_FOLDER
    assert site.journal == Path(values["data"]) / JOURNAL_FOLDER


@pytest.mark.parametrize("launcher", ["torchrun.sh", "slurm.sbatch"])
def test_the_launchers_run_the_script_that_they_are_told(launcher: str, tmp_path: Path) -> None:
    """With programs in the place of torchrun, srun and scontrol that print what they are called with."""
    copy = tmp_path / "training" / "launch" / launcher
    copy.parent.mkdir(parents=True)
    copy.write_text((LAUNCH / launcher).read_text())
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, does in (
        ("torchrun", 'echo "$@"'),
        ("srun", 'exec "$@"'),
        ("scontrol", "echo one"),
        ("python", "echo 0"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "SLURM_JOB_NODELIST": "one",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "7",
    }
    for script, given in (("training/train_lad.py", {}), ("mine.py", {"SCRIPT": "mine.py"})):
        command = ["bash", str(copy), "FILE", "--set", "a=b"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment | given)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip().endswith(f"{script} FILE --set a=b")
