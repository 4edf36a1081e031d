"""Adapter bundles of labels that nobody trained: they find something, nowhere in particular."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, LabelPart
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.text import load_text_encoder


def write_untrained_bundle(path: Path, seed: int = 0, labels: Sequence[str] = ("liver", "spleen")) -> None:
    """Write a bundle of labels that nobody trained."""
    torch.manual_seed(seed)
    model, encoder = load_model("compact", device="cpu"), load_text_encoder()
    prompt = new_label_prompt(model, encoder.dimension)
    torch.nn.init.normal_(prompt.to_filter.bias)
    identity = (encoder.name, encoder.fingerprint, model.encoder_hash(), prompt.text_dim, prompt.embed_dim)
    metadata = BundleMetadata(tuple(labels), *identity, {}, skip_channels=prompt.skip_channels)
    AdapterBundle(LabelPart.from_training(prompt, metadata, model)).write(path)
