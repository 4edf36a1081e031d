"""`causal-sam benchmark latency --http` on a small volume: a real server, and MONAI Label's deepgrow beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from causal_sam.cli import app

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_clicks_are_timed_beside_deepgrow(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    command = ["benchmark", "latency", "--http", "--size", "64x48x32", "--repeats", "2", "--json", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    found = report["latency"]
    assert [one["name"].split(",")[0] for one in found] == [
        "click",
        "click",
        "whole structure",
        "MONAI Label's deepgrow 2D",
        "MONAI Label's deepgrow 3D",
    ]
    assert all(one["repeated"] > 0 and one["first"] > 0 for one in found)
    assert found[0]["megabytes"] == pytest.approx(64 * 48 * 32 / 1e6, rel=0.05)  # OHIF's NRRD is not compressed
    assert found[1]["megabytes"] < found[0]["megabytes"] / 4
    assert report["server_peak_mb"] > 100
    assert "A repeated click takes" in result.output


@pytest.mark.parametrize("size", ["64x64", "64x64x8", "axbxc"])
def test_a_size_that_is_none_is_said(size: str) -> None:
    result = CliRunner().invoke(app, ["benchmark", "latency", "--http", "--size", size])
    assert result.exit_code == 2
    assert "three numbers of voxels" in result.output
