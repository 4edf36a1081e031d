"""Compare methods in and out of their domain: `causal-sam benchmark ood` as a script, for schedulers and containers.

python training/evaluate.py --protocol brain --data DIR -o REPORT
"""

from __future__ import annotations

import sys

import typer

from causal_sam.cli.benchmark.ood import ood
from causal_sam.errors import CausalSamError

if __name__ == "__main__":
    try:
        typer.run(ood)
    except CausalSamError as error:
        sys.exit(f"evaluate.py: {error}")
