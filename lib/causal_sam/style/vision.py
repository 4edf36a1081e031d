"""An image's style as a vision-language model sees it, through LangChain: checked, kept, and never in the way."""

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
# Longer side of each slice in the picture, in pixels.
PICTURE_SIDE = 256
SHORTEST, LONGEST = 20, 600
ATTEMPTS = 2
SECONDS = 60.0
CACHE_BYTES = 16 * 2**20
INSTRUCTION = (
    "These are slices of one medical image. Describe in one or two English sentences how the image was made and looks: "
    "modality, sequence or contrast phase, noise, sharpness, evenness of brightness, contrast, resolution, artefacts. "
    "Say nothing about organs, diseases or the person, and name no names, dates or numbers that identify anybody."
)
# What would identify somebody: dates, long numbers, addresses of mail and web, titles before names, DICOM's names.
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
    """Make a chat model that sees images.

    Args:
        name: PROVIDER:MODEL, as LangChain's `init_chat_model` takes it.
        consent: whether pixels may leave this machine.

    Raises:
        InputError: the name is of another form, the model is not on this machine and there is no consent, its package
            is missing, or it cannot be set up.
    """
    return load_chat_model(name, consent, VISION)


class VisionDescriber:
    """Describes images with a vision-language model, and with measures where the model fails.

    Args:
        model: that sees images.
        name: under which its answers are kept.
        cache_dir: where answers are kept; None keeps none. Only answers and hashes are written, no pixels.
        seconds: the longest wait for an answer.

    Raises:
        InputError: ``cache_dir`` cannot be used.
    """

    def __init__(
        self, model: BaseChatModel, name: str, cache_dir: Path | None = None, seconds: float = SECONDS
    ) -> None:
        self._model, self._name, self._seconds = model, name, seconds
        self._kept = None if cache_dir is None else PlainCache(cache_dir, CACHE_BYTES, "descriptions")

    def describe(self, volume: Volume) -> StyleDescription:
        """Describe a volume; the measured description is beside the model's, and takes its place if that fails."""
        measured = describe(volume)
        key = hashlib.sha256(f"{self._name}:{INSTRUCTION}:{volume.content_hash}".encode()).hexdigest()
        seen = None if self._kept is None else self._kept.get(key)
        if seen is None:
            try:
                seen = self._ask(picture(volume))
            except Exception as error:  # providers fail in their own ways, and none may stop the work
                reason = " ".join(str(error).split()) or type(error).__name__
                return replace(measured, failure=f"{self._name}: {reason}")
            if self._kept is not None:
                self._kept.set(key, seen)
        return replace(measured, seen=seen, source=self._name)

    def _ask(self, png: bytes) -> str:
        from langchain_core.messages import AIMessage, HumanMessage

        image = {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}
        messages = [HumanMessage([{"type": "text", "text": INSTRUCTION}, image])]
        problem = ""
        for _ in range(ATTEMPTS):
            answer = call_with_timeout(self._seconds, partial(self._model.invoke, messages))
            text = " ".join(answer.text.split())
            problem = problem_with(text)
            if not problem:
                return text
            messages += [AIMessage(text), HumanMessage(f"This cannot be used: {problem}. Answer again.")]
        raise InputError(f"its answer cannot be used: {problem}")


def problem_with(text: str) -> str:
    """Say what is wrong with an answer of a vision model; empty if it can be used."""
    if not SHORTEST <= len(text) <= LONGEST:
        return f"it has {len(text)} characters, and {SHORTEST} to {LONGEST} are wanted"
    found = next((what for pattern, what in _IDENTIFIERS if re.search(pattern, text, re.IGNORECASE)), None)
    return f"it holds {found}" if found else ""


def picture(volume: Volume) -> bytes:
    """Draw a few slices side by side as a PNG, with nothing of the header."""
    slices = sample_slices(volume, SHOWN_SLICES)
    shown = intensity_window(volume).apply(slices.array)
    _, row_mm, column_mm = slices.spacing
    height, width = shown.shape[1] * row_mm, shown.shape[2] * column_mm
    scale = PICTURE_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    tiles = [cv2.resize(slice_, size, interpolation=cv2.INTER_AREA) for slice_ in shown]
    _, png = cv2.imencode(".png", (np.hstack(tiles) * 255).astype(np.uint8))
    return png.tobytes()
