"""`causal-sam benchmark page` on a small volume: a real server and Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_page_is_timed_by_its_own_clock(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    # In a process of its own, since other tests here run Playwright in this one.
    command = [sys.executable, "-c", "from causal_sam.cli import main; main()", "benchmark", "page"]
    options = ["--size", "96x64x32", "--repeats", "2", "--json", str(path)]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
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
    assert "From the command to the first mask" in result.stdout
