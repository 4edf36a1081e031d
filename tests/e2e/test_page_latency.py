"""`causal-sam benchmark page` on a small volume: a real server and Chromium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from causal_sam.cli import app

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_page_is_timed_by_its_own_clock(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    command = ["benchmark", "page", "--size", "96x64x32", "--repeats", "2", "--json", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    first = report["first_mask"]
    assert 0 < first["served"] < first["listed"] < first["opened"] < first["mask"]
    assert all(seconds > 0 for seconds in report["page"]["opened"])
    kinds = {kind["name"]: kind["steps"] for kind in report["page"]["kinds"]}
    assert list(kinds) == ["brush", "point, one slice", "point, whole structure"]
    for name, steps in kinds.items():
        assert len(steps) == 2
        for step in steps:
            assert 0 < step["answered"] < step["drawn"], name
            assert step["model"] < step["answered"], name
            assert step["page"] > 0, name
    assert all(step["model"] > 0 for step in kinds["point, one slice"])
    assert "From the command to the first mask" in result.output
