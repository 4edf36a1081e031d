"""Small models and a labelled case of two blocks that tests of training share."""

from __future__ import annotations

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from causal_sam.imaging import Volume
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact

SIZE = 64
NAMES = ("left block", "right block", "other")


def small_model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


def small_vit() -> CausalSam:
    """ViT-B's layers in ViT-B's places, but few and narrow."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(img_size=SIZE, embed_dim=96, depth=2, num_heads=2, use_rel_pos=True, window_size=2)
    prompts = PromptEncoder(256, (SIZE // 16, SIZE // 16), (SIZE, SIZE), 16)
    decoder = MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048))
    return CausalSam(Sam(encoder, prompts, decoder), "vit_b").eval()


def two_blocks() -> tuple[Volume, dict[str, np.ndarray]]:
    """Two blocks in a body; only their place tells them apart. The third name was not annotated."""
    structures = {name: np.zeros((48, 40, 20), bool) for name in NAMES[:2]}
    structures["left block"][30:40, 12:28] = True
    structures["right block"][8:18, 12:28] = True
    array = np.random.default_rng(0).normal(0, 6, (48, 40, 20)).astype(np.float32)
    array[4:44, 4:36] += 300
    array[structures["left block"] | structures["right block"]] += 250
    return Volume(np.abs(array), np.diag([-3.0, -3.0, 6.0, 1.0]), "MR"), structures
