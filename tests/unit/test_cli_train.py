"""`causal-sam train`: what it prints, what it publishes, and its exit codes."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
from accepted_studies import NAME, accept
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.cli.train import train
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import STORE_FOLDER, SitePaths, UpdateConfig

QUICK = ("--image-size", "64", "--epochs", "8", "--batch", "4", "--pairs", "2", "--no-lad", "--validation", "0")


def run(studies: Path, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train", str(studies), "--device", "cpu", *QUICK, *options])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_it_publishes_says_when_nothing_is_new_and_rejects_what_is_worse(tmp_path: Path) -> None:
    studies = accept(tmp_path / "studies", [0, 1])
    store = AdapterStore(studies / STORE_FOLDER)
    code, said, _ = run(studies)
    assert (code, store.current()) == (0, 1)
    assert said.splitlines()[0] == "Reading accepted labels."
    assert said.splitlines()[-1].startswith("v0001 was trained on 2 cases and published: Dice ")
    assert (store.folder / "training" / "reports" / "v0001" / "dice.png").is_file()
    assert store.version(1).manifest.training.metrics[NAME] > 0.8

    code, said, _ = run(studies)
    assert code == 0
    assert said.splitlines()[-1].startswith("No label was accepted since v0001")
    assert store.numbers() == [1]

    accept(studies, [2])
    # So high a rate ruins what was learned; it stays in use.
    code, said, _ = run(studies, "--learning-rate", "1", "--adapter-rate", "1", "--json")
    report = json.loads(said)
    assert (code, report["status"], report["version"]) == (1, "rejected", 2)
    assert report["metrics"][NAME] < report["parent_metrics"][NAME]
    assert "not published" in report["message"]
    assert (store.current(), store.version(2).status) == (1, "rejected")


def test_json_is_all_that_is_printed(tmp_path: Path) -> None:
    studies, store = accept(tmp_path / "studies", [0]), tmp_path / "elsewhere"
    code, said, progress = run(studies, "--store", str(store), "--labels", f"{NAME}, other", "--json")
    assert code == 0
    report = json.loads(said)
    assert (report["status"], report["version"], list(report["metrics"])) == ("published", 1, [NAME])
    assert progress.startswith("Reading accepted labels.")
    assert AdapterStore(store).version(1).manifest.training.config["labels"] == [NAME, "other"]
    assert not (studies / STORE_FOLDER).exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--minutes", "0", "--epochs", "0"), "An update needs minutes above 0 and at most 10080, not"),
        (("--replay", "1"), "replay must be at least 0 and below 1, not 1.0."),
        (("--batch", "2"), "a batch of at least 4"),
        (("--model", "giant"), "There is no model 'giant': choose one of compact"),
        (("--image-size", "50"), "a multiple of 16 from 64 on, not 50"),
        (("--device", "gpu"), "device must be auto, cpu, cuda, cuda:N or mps, not 'gpu'."),
        (("--processes", "999"), "processes must be 0 to"),
    ],
)
def test_mistakes_are_said_in_a_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "datastore_v2.json").write_text('{"objects": {}}')
    code, _, error = run(tmp_path, *options)
    assert code == 2
    assert sentence in error


def test_a_folder_that_is_no_data_store_is_said(tmp_path: Path) -> None:
    code, _, error = run(tmp_path / "nowhere")
    assert (code, "give that of a data store of MONAI Label" in error) == (2, True)
    code, _, error = run(tmp_path)
    assert (code, "has no datastore_v2.json" in error) == (2, True)


def test_every_setting_of_an_update_has_an_option_with_its_default() -> None:
    options = inspect.signature(train).parameters
    for kind in (UpdateConfig, SitePaths):
        for field in fields(kind):
            if field.name not in ("data", "store", "journal", "device", "labels", "values"):
                assert options[field.name].default == field.default, field.name
    assert options["labels"].default == ",".join(UpdateConfig().labels)
