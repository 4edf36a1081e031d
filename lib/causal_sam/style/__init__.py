"""Imaging style: description in words, measures, augmentations, and its removal from features (LAD)."""

from causal_sam.style.acquisition import Acquisition
from causal_sam.style.description import StyleDescription, describe, describe_slices
from causal_sam.style.measures import StyleMeasures
from causal_sam.style.slices import StyledSlices

__all__ = ["Acquisition", "StyleDescription", "StyleMeasures", "StyledSlices", "describe", "describe_slices"]
