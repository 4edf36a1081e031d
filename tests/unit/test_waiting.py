"""Threads of PyTorch wait passively, however we are started, unless somebody has chosen otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The order of what is imported decides: what is read when torch comes is shown.
SHOW = """
import builtins, os, sys
real = builtins.__import__
def shown(name, *args, **options):
    if name.split(".")[0] == "torch" and "torch" not in sys.modules:
        print("policy", os.environ.get("OMP_WAIT_POLICY"))
        sys.exit()
    return real(name, *args, **options)
builtins.__import__ = shown
"""
STARTS = {
    "Python": "import causal_sam.sam",
    "command line": "import sys; sys.argv = ['causal-sam', 'train', '.']; from causal_sam.cli import main; main()",
    **{
        path.name: f"import runpy; runpy.run_path({str(path)!r}, run_name='x')"
        for path in sorted((ROOT / "training").glob("*.py"))
        if path.name != "evaluate.py"  # imports torch when it has something to do
    },
}


@pytest.mark.parametrize("start", STARTS)
def test_the_policy_is_set_before_torch_is_imported(start: str) -> None:
    for chosen in (None, "ACTIVE"):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        environment |= {} if chosen is None else {"OMP_WAIT_POLICY": chosen}
        command = [sys.executable, "-c", SHOW + STARTS[start]]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert result.stdout.splitlines()[-1:] == [f"policy {chosen or 'PASSIVE'}"], result.stderr
