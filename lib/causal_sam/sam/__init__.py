"""Models: those of `segment_anything`, a compact one of the same kind, their weights, adapters and bundles."""

from causal_sam.sam.causal_sam import CausalSam, Decoded
from causal_sam.sam.checkpoints import CheckpointFile, checkpoint_dir, fetch_checkpoint, load_state_dict
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.loading import load_model
from causal_sam.sam.registry import MODELS, ModelSpec

__all__ = [
    "MODELS",
    "CausalSam",
    "CheckpointFile",
    "Decoded",
    "Embedding",
    "ModelSpec",
    "checkpoint_dir",
    "fetch_checkpoint",
    "load_model",
    "load_state_dict",
]
