"""Causal-SAM: promptable segmentation of CT and MR that keeps working when the scanner changes.

The method is Causal-SAM-LLM (arXiv 2507.03585). This package holds everything that is not MONAI Label:
`imaging` reads and writes volumes, `sam` is the model, `prompting` turns clicks and boxes into masks,
`phantom` makes images with known anatomy.
"""

import os

# Threads of PyTorch that wait for each other would keep the processors busy, which makes all work slow where there is
# other work. They read this when torch is imported; what somebody has chosen stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
