"""How an image was made and looks: in words, in other versions of itself, and out of a model's features."""

from causal_sam.style.acquisition import Acquisition
from causal_sam.style.description import StyleDescription, describe, describe_slices
from causal_sam.style.measures import Measured
from causal_sam.style.slices import StyledSlices

__all__ = ["Acquisition", "Measured", "StyleDescription", "StyledSlices", "describe", "describe_slices"]
