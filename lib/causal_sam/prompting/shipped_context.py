"""The volume context that comes with this package, for predictors of any model."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging.intensity import WIDE_CT_WINDOW, IntensityWindow
from causal_sam.prompting.cache import EmbeddingCache
from causal_sam.prompting.contexts import DEFAULT_BYTES, ContextCache
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.predictor import DEFAULT_CACHE_BYTES, Predictor
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.prompting.slots import Slot, no_queue
from causal_sam.sam.causal_sam import BASE_VERSION, CausalSam
from causal_sam.sam.loading import load_model
from causal_sam.text import load_lexicon, load_text_encoder
from causal_sam.volume.context import CONTEXT_WEIGHTS, ContextModel, VolumeContext
from causal_sam.volume.grid import SliceGeometry

# The context was trained on the embeddings of this model, as it is shipped.
CONTEXT_MODEL = "compact"


def shipped_contexts(
    encoder: SliceEncoder, max_bytes: int = DEFAULT_BYTES, slot: Slot = no_queue
) -> ContextCache | None:
    """Load the context network of this package.

    Args:
        encoder: encoder of the predictor's model. If that is the shipped compact model without adapters, the context
            shares its embeddings; otherwise a second encoder is loaded, which keeps its embeddings in the same cache.
        max_bytes: limit of all contexts together.
        slot: entered around the use of the model in the background.

    Returns:
        Contexts for `Predictor`; None if the package has no weights for them.

    Raises:
        CheckpointError: the weights are damaged.
    """
    if not CONTEXT_WEIGHTS.is_file():
        return None
    load_lexicon()  # kept, so that the first click need not wait for it
    texts = load_text_encoder()
    network = ContextModel.load(texts.encode)
    return ContextCache(_base_encoder(encoder), partial(volume_context, network), max_bytes, slot)


@cache
def context_digest() -> str:
    """Return the SHA-256 of the weights of the context network, hexadecimal."""
    return hashlib.sha256(CONTEXT_WEIGHTS.read_bytes()).hexdigest()


def volume_context(network: ContextModel, encoder: SliceEncoder, slices: VolumeSlices) -> VolumeContext:
    """Return the context of a volume, not prepared yet.

    Args:
        network: the trained network.
        encoder: encoder of the model that it was trained with.
        slices: whole slices, scaled for that model.
    """
    geometry = SliceGeometry(slices.frame, slices.height, slices.width)
    return VolumeContext(network, geometry, partial(encoder.embedding, slices), partial(_wide, slices))


def _wide(slices: VolumeSlices, index: int) -> NDArray[np.float32]:
    """Return the brightness (rows, columns) of a slice in a window that shows air and bone of CT too."""
    window = IntensityWindow(*WIDE_CT_WINDOW) if slices.volume.modality == "CT" else slices.window
    return window.apply(np.ascontiguousarray(slices.frame.extract(slices.volume.array, index)))


def _base_encoder(encoder: SliceEncoder) -> SliceEncoder:
    """Return an encoder of the shipped compact model: the given one if it is that."""
    base = load_model(CONTEXT_MODEL, device=encoder.model.device)
    model = encoder.model
    is_base = model.adapter_version == BASE_VERSION and model.image_size == base.image_size
    if is_base and model.encoder_hash() == base.encoder_hash():
        return encoder
    return SliceEncoder(base, encoder.cache)


def predictor_with_context(model: CausalSam, cache: EmbeddingCache | None = None, **options: Any) -> Predictor:
    """Return a predictor with the volume context of this package, if that has weights.

    Args:
        model: model in evaluation mode.
        cache: embedding cache; by default 512 MiB of memory.
        options: further arguments of `Predictor`.
    """
    cache = EmbeddingCache(DEFAULT_CACHE_BYTES) if cache is None else cache
    return Predictor(model, cache, contexts=shipped_contexts(SliceEncoder(model, cache)), **options)
