"""Everything that trains or segments works where the model is not on the CPU; shown on a stand-in for a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PATHS = Path(__file__).parents[1] / "stub_gpu_paths.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_tensors_are_where_they_are_needed() -> None:
    result = subprocess.run([sys.executable, str(PATHS)], capture_output=True, text=True, timeout=900)
    assert result.stdout.splitlines()[-1:] == ["failed: none"], result.stderr[-8000:]
    assert result.stdout.count(": done") >= 8
