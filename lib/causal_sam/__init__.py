"""Causal-SAM: promptable segmentation of CT and MR that keeps working when the scanner changes.

The method is Causal-SAM-LLM (arXiv 2507.03585). This package contains everything except the MONAI Label app:
`imaging` reads and writes volumes, `sam` has the models, `prompting` turns prompts into masks, `notes` and `correction`
correct masks by text, `style` removes the imaging style from features, `training` and `site` learn from labels.
"""

import os

# Waiting threads of PyTorch would otherwise spin, which slows down all work on a busy machine. The variable is read
# when torch is imported; an existing value is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
