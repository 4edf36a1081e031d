"""Style description by a vision-language model through LangChain, with validation, cache and fallback."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from causal_sam.chat import ModelUse, call_with_timeout, load_chat_model
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, intensity_window
from causal_sam.plain_cache import PlainCache
from causal_sam.style.description import StyleDescription, describe
from causal_sam.style.slices import sample_slices

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

VISION = ModelUse("vision model", "ollama:llava", "pixels", "vlm", frozenset({"ollama", "huggingface"}))
SHOWN_SLICES = 4
# Longer side of each slice in the PNG, in pixels.
TILE_SIDE = 256
MIN_LENGTH, MAX_LENGTH = 20, 600
MAX_ATTEMPTS = 2
SECONDS = 60.0
CACHE_BYTES = 16 * 2**20
INSTRUCTION = (
    "These are slices of one medical image. Describe in one or two English sentences how the image was made and looks: "
    "modality, sequence or contrast phase, noise, sharpness, evenness of brightness, contrast, resolution, artefacts. "
    "Say nothing about organs, diseases or the person, and name no names, dates or numbers that identify anybody."
)
# Patterns of identifying text, with their names for messages.
_IDENTIFIERS = (
    (r"\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b", "a date"),
    (r"\b(19|20)\d{2}\b", "a year"),
    (r"\d{5,}", "a long number"),
    (r"\S+@\S+|https?://|www\.", "an address"),
    (r"\b(Mr|Mrs|Ms|Dr|Prof)\b\.?\s+[A-Z]", "a name"),
    (r"\w\^\w", "a name"),
    (r"\b(patient|name|id|dob|mrn|accession)\s*(name|id|number)?\s*[:#=]", "a field of a header"),
)


def load_vision_model(name: str, consent: bool) -> BaseChatModel:
    """Load a chat model with image input.

    Args:
        name: PROVIDER:MODEL, as LangChain's `init_chat_model` takes it.
        consent: whether pixels may leave this machine.

    Raises:
        InputError: the name has another form, the model is remote and there is no consent, its package
            is missing, or it cannot be set up.
    """
    return load_chat_model(name, consent, VISION)


class VisionDescriber:
    """Describes images with a vision-language model, or with measures if the model fails.

    Args:
        model: chat model with image input.
        name: name of the model, also in the keys of the cache.
        cache_dir: folder of the cache, which stores answers and hashes but no pixels; None disables the cache.
        seconds: time limit of an answer in seconds.

    Raises:
        InputError: ``cache_dir`` cannot be used.
    """

    def __init__(
        self, model: BaseChatModel, name: str, cache_dir: Path | None = None, seconds: float = SECONDS
    ) -> None:
        self._model, self._name, self._seconds = model, name, seconds
        self._cache = None if cache_dir is None else PlainCache(cache_dir, CACHE_BYTES, "descriptions")

    def describe(self, volume: Volume) -> StyleDescription:
        """Describe a volume; the measured description is used if the model fails."""
        measured = describe(volume)
        key = hashlib.sha256(f"{self._name}:{INSTRUCTION}:{volume.content_hash}".encode()).hexdigest()
        model_sentence = None if self._cache is None else self._cache.get(key)
        if model_sentence is None:
            try:
                model_sentence = self._ask(render_png(volume))
            except Exception as error:  # providers raise errors of their own, and none may fail the request
                reason = " ".join(str(error).split()) or type(error).__name__
                return replace(measured, failure=f"{self._name}: {reason}")
            if self._cache is not None:
                self._cache.set(key, model_sentence)
        return replace(measured, model_sentence=model_sentence, source=self._name)

    def _ask(self, png: bytes) -> str:
        from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

        image = {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}
        messages: list[BaseMessage] = [HumanMessage([{"type": "text", "text": INSTRUCTION}, image])]
        problem = ""
        for _ in range(MAX_ATTEMPTS):
            answer = call_with_timeout(self._seconds, partial(self._model.invoke, messages))
            text = " ".join(answer.text.split())
            problem = find_problem(text)
            if not problem:
                return text
            messages += [AIMessage(text), HumanMessage(f"This cannot be used: {problem}. Answer again.")]
        raise InputError(f"its answer cannot be used: {problem}")


def find_problem(text: str) -> str:
    """Return the reason why an answer of a vision model is unusable; "" if it is usable."""
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        return f"it has {len(text)} characters, and {MIN_LENGTH} to {MAX_LENGTH} are wanted"
    found = next((what for pattern, what in _IDENTIFIERS if re.search(pattern, text, re.IGNORECASE)), None)
    return f"it holds {found}" if found else ""


def render_png(volume: Volume) -> bytes:
    """Render a few slices side by side as a PNG without metadata."""
    slices = sample_slices(volume, SHOWN_SLICES)
    shown = intensity_window(volume).apply(slices.array)
    _, row_mm, column_mm = slices.spacing
    height, width = shown.shape[1] * row_mm, shown.shape[2] * column_mm
    scale = TILE_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    tiles = [cv2.resize(slice_, size, interpolation=cv2.INTER_AREA) for slice_ in shown]
    _, png = cv2.imencode(".png", (np.hstack(tiles) * 255).astype(np.uint8))
    return png.tobytes()
