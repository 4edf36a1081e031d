"""Causal-SAM: promptable segmentation of CT and MR that keeps working when the scanner changes.

The method is Causal-SAM-LLM (arXiv 2507.03585). This package holds everything that is not MONAI Label:
`imaging` reads and writes volumes, `sam` is the model, `prompting` turns clicks and boxes into masks,
`phantom` makes images with known anatomy.
"""

__version__ = "0.1.0"
