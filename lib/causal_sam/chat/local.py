"""Chat models in this process, from weights of Hugging Face or a GGUF file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, PrivateAttr
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from causal_sam.errors import InputError

# Limits of an answer in tokens and seconds, so that abandoned requests end.
MAX_TOKENS = 400
SECONDS = 60.0


class LocalChatModel(BaseChatModel):
    """A causal language model as a chat model: deterministic, one request at a time, without tools.

    Args:
        model: causal language model.
        tokenizer: tokenizer of the model, with or without a chat template.
        seconds: time limit of an answer in seconds.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    seconds: float = SECONDS
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "transformers"

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        tokens = self.tokenizer(self._prompt(messages), return_tensors="pt", add_special_tokens=False)
        tokens = tokens.to(self.model.device)
        with self._lock, torch.inference_mode():
            answer = self.model.generate(  # type: ignore[operator]  # a causal language model, which can
                **tokens, max_new_tokens=MAX_TOKENS, do_sample=False, max_time=self.seconds, stop_strings=stop
            )
        text = self.tokenizer.decode(answer[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(str(text)))])

    def _prompt(self, messages: Sequence[BaseMessage]) -> str:
        if self.tokenizer.chat_template is None:
            return (self.tokenizer.bos_token or "") + "".join(f"{message.text}\n\n" for message in messages)
        # Some templates have no system role, and most require alternating roles.
        instruction = "".join(f"{message.text}\n\n" for message in messages if isinstance(message, SystemMessage))
        turns: list[dict[str, str]] = []
        for message in messages:
            if not isinstance(message, SystemMessage):
                role = "assistant" if isinstance(message, AIMessage) else "user"
                turns.append({"role": role, "content": message.text if turns else instruction + message.text})
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def load_hugging_face(name: str) -> LocalChatModel:
    """Load a language model of Hugging Face into this process.

    Args:
        name: name of the model on the Hugging Face Hub, or its folder.

    Raises:
        InputError: the model does not exist or cannot be loaded.
    """
    folder = Path(name).expanduser()
    return _load(name, str(folder) if folder.is_dir() else name)


def load_gguf(file: str) -> LocalChatModel:
    """Load a language model of a GGUF file into this process.

    Args:
        file: path of the GGUF file.

    Raises:
        InputError: the file does not exist, the package gguf is missing, or the model cannot be loaded.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"gguf:FILE must name an existing file, and {path} is none.")
    return _load(file, str(path.parent), gguf_file=path.name)


def _load(name: str, place: str, **where: str) -> LocalChatModel:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **where)
        model = AutoModelForCausalLM.from_pretrained(place, dtype="auto", **where)
    except ImportError as error:
        raise InputError(f"The language model {name} needs a package: {' '.join(str(error).split())}") from error
    except Exception as error:  # transformers raises many types for missing and damaged files
        raise InputError(f"The language model {name} cannot be loaded: {' '.join(str(error).split())}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()  # type: ignore[arg-type]  # its decorator hides what it takes
    return LocalChatModel(model=model, tokenizer=tokenizer)
