"""Adapter bundles of labels that nobody trained: they find something, nowhere in particular."""

from __future__ import annotations

from pathlib import Path

import torch

from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, LabelPart
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.text import load_text_encoder


def teach(path: Path, seed: int) -> None:
    """A file of two labels that nobody trained."""
    torch.manual_seed(seed)
    model, encoder = load_model("compact", device="cpu"), load_text_encoder()
    prompt = new_label_prompt(model, encoder.dimension)
    torch.nn.init.normal_(prompt.to_filter.bias)
    said = BundleMetadata(
        ("liver", "spleen"), encoder.name, encoder.fingerprint, model.encoder_hash(), encoder.dimension, 128, {}
    )
    said = BundleMetadata(**{**vars(said), "skip_channels": prompt.skip_channels, "embed_dim": prompt.embed_dim})
    AdapterBundle(LabelPart.from_training(prompt, said, model)).write(path)
