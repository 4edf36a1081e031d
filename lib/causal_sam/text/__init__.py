"""Words for the model: text encoders, and what people call the structures of the body."""

from causal_sam.text.encoders import DEFAULT_TEXT_ENCODER, TextEncoder, load_text_encoder
from causal_sam.text.names import LabelNames, Lexicon, Name, Resolved, canonical

__all__ = [
    "DEFAULT_TEXT_ENCODER",
    "LabelNames",
    "Lexicon",
    "Name",
    "Resolved",
    "TextEncoder",
    "canonical",
    "load_text_encoder",
]
