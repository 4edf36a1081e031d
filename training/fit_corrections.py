"""Fit the weights by which a correcting click changes a mask of the volume context.

    python training/fit_corrections.py lib/causal_sam/volume/weights/corrections.json --folders PATH [PATH ...]

Bodies are rendered from label maps (`causal_sam.phantom.bodies`). A simulated annotator clicks structures of each in an
`InteractiveSession`, and what `VolumeContext.evidence` says about the cells that each correction may change is fitted
to the truth by logistic regression; 24 bodies take some minutes.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import argparse
from pathlib import Path

import numpy as np

from causal_sam.training.correction_fit import collect_samples, fit, write_weights

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file of the weights")
    parser.add_argument("--folders", type=Path, nargs="+", required=True, help="folders of named label maps")
    parser.add_argument("--bodies", type=int, default=24, help="number of bodies (default: 24)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    samples = collect_samples(options.folders, options.bodies, np.random.default_rng(options.seed), print)
    write_weights(options.out, fit(samples))
