"""`causal-sam versions`: what it prints, and what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kill_store import training, weights
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.versions import UsedLabel

FIRST, SECOND = (UsedLabel(f"Fall-Ä{number}", "final", str(number) * 64) for number in (1, 2))


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """Three versions: one replaced, one current, one rejected."""
    store = AdapterStore(tmp_path / "adapters")
    store.add(weights(1), training(None, labels=(FIRST,), metrics={"liver": 0.8}))
    store.publish(1)
    changes = {"names": ("liver", "spleen"), "metrics": {"liver": 0.9, "spleen": 0.7}, "config": {"rank": 8}}
    store.add(weights(2), training(1, labels=(FIRST, SECOND), parent_metrics={"liver": 0.82}, **changes))
    store.publish(2)
    store.add(weights(3), training(2, labels=(SECOND,), metrics={}))
    store.reject(3, "The liver fell by 0.04.")
    return store


def run(store: AdapterStore, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["versions", *arguments, "--store", str(store.folder)])
    return result.exit_code, result.output


def test_the_list(store: AdapterStore) -> None:
    times = [store.version(number).manifest.time[:16] for number in (1, 2, 3)]
    code, said = run(store, "list")
    assert code == 0
    assert said.splitlines() == [
        f"v0001    published  {times[0]}  labels 1  mean 0.800",
        f"v0002 *  published  {times[1]}  labels 2  mean 0.800",
        f"v0003    rejected   {times[2]}  labels 1  The liver fell by 0.04.",
    ]
    report = json.loads(run(store, "list", "--json")[1])
    assert report["current"] == 2
    assert [version["status"] for version in report["versions"]] == ["published", "published", "rejected"]
    assert [version["current"] for version in report["versions"]] == [False, True, False]
    assert report["versions"][1]["manifest"]["training"]["labels"][1]["image"] == "Fall-Ä2"


def test_the_list_says_what_is_damaged(store: AdapterStore) -> None:
    path = store.folder / "v0002" / "adapter.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    code, said = run(store, "list")
    assert code == 0
    assert said.splitlines()[1].startswith(f"v0002 *  damaged    Version {store.folder / 'v0002'} is damaged, its adap")
    report = json.loads(run(store, "list", "--json")[1])
    assert report["versions"][1]["status"] == "damaged"
    code, said = run(store, "show", "2")
    assert code == 2
    assert "roll back to another version" in " ".join(said.split())


def test_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    assert run(AdapterStore(tmp_path / "adapters"), "list") == (0, "There are no versions yet.\n")
    assert json.loads(run(AdapterStore(tmp_path / "adapters"), "list", "--json")[1]) == {
        "current": None,
        "versions": [],
    }


def test_one_version_is_shown(store: AdapterStore) -> None:
    code, said = run(store, "show", "v0002")
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == "v0002: current"
    assert "trained from: v0001" in lines
    assert "  liver: 0.900 (v0001 0.820)" in lines
    assert "  spleen: 0.700" in lines
    assert "  Fall-Ä2 [final] 222222222222" in lines
    assert 'configuration: {"rank": 8}' in lines
    assert f"file: {store.folder / 'v0002' / 'adapter.safetensors'}" in lines
    assert "why: The liver fell by 0.04." in run(store, "show", "3")[1].splitlines()
    report = json.loads(run(store, "show", "2", "--json")[1])
    assert (report["number"], report["status"], report["current"]) == (2, "published", True)
    assert report["manifest"]["training"]["metrics"] == {"liver": 0.9, "spleen": 0.7}


def test_two_versions_are_compared(store: AdapterStore) -> None:
    code, said = run(store, "compare", "1", "2")
    assert code == 0
    assert said.splitlines() == [
        "         v0001   v0002",
        "liver    0.820   0.900  +0.080",
        "spleen       -   0.700",
        "labels gained: spleen",
        "trained on more accepted labels: Fall-Ä2",
    ]
    said = run(store, "compare", "1", "3")[1]
    assert "Neither was trained from the other" in said
    report = json.loads(run(store, "compare", "1", "2", "--json")[1])
    assert report["metrics"] == {"liver": [0.82, 0.9], "spleen": [None, 0.7]}
    assert report["same_cases"] is True


def test_rolling_back(store: AdapterStore) -> None:
    assert run(store, "rollback", "v0001") == (0, "v0001 is current again; it was v0002.\n")
    assert store.current() == 1
    event = json.loads(run(store, "rollback", "2", "--json")[1])
    assert (event["act"], event["number"], event["before"]) == ("roll back", 2, 1)
    assert store.current() == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rollback", "3"), "v0003 was never published"),
        (("rollback", "2"), "v0002 is current already"),
        (("rollback", "latest"), "A version is given by its number, such as 3 or v0003, not 'latest'."),
        (("show", "9"), "There is no version v0009"),
        (("compare", "1", "9"), "There is no version v0009"),
    ],
)
def test_mistakes_are_said_in_a_sentence(store: AdapterStore, arguments: tuple[str, ...], sentence: str) -> None:
    code, said = run(store, *arguments)
    assert code == 2
    assert sentence in " ".join(said.split())
    assert store.current() == 2


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    code, said = run(AdapterStore(tmp_path / "nowhere"), "rollback", "1")
    assert code == 2
    assert "give that of an adapter store" in " ".join(said.split())
    assert not (tmp_path / "nowhere").exists()
