"""Runs a training script of `training/` in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run_script(script: str, sample: str, out: Path, *before: str, **values: Any) -> list[dict[str, Any]]:
    """Run ``training/<script>`` with a sample configuration and changed values; return the records of its log.

    Args:
        script: file name.
        sample: file name in ``sample_configs/training``.
        out: folder of the run.
        before: words between the interpreter and the script, such as `TORCHRUN`.
        values: changes of the configuration.
    """
    options = [word for key, value in {"out": out, **values}.items() for word in ("--set", f"{key}={value}")]
    paths = ROOT / "training" / script, ROOT / "sample_configs" / "training" / sample
    command = [sys.executable, *before, *map(str, paths), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
