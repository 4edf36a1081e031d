"""Text encoders, the lexicon of anatomical names, and the resolution of names to a site's labels."""

from causal_sam.text.encoders import TextEncoder
from causal_sam.text.lexicon import Lexicon, Reading, canonical, load_lexicon
from causal_sam.text.loading import DEFAULT_TEXT_ENCODER, load_text_encoder
from causal_sam.text.names import LabelNames, Resolved

__all__ = [
    "DEFAULT_TEXT_ENCODER",
    "LabelNames",
    "Lexicon",
    "Reading",
    "Resolved",
    "TextEncoder",
    "canonical",
    "load_lexicon",
    "load_text_encoder",
]
