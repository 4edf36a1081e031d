"""What a sentence means that uses none of the known words: the nearest of example sentences, if one is near enough."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from causal_sam.notes.schema import Action
from causal_sam.text import TextEncoder

# Cosine from which on a sentence means the same as an example, and how much less any other action may be like it.
LEAST_MEANING, LEAST_MARGIN = 0.55, 0.1
# The same for two that encoders hardly tell apart.
OPPOSITES, OPPOSITE_MARGIN = {"expand", "shrink"}, 0.3
NO_ACT = "none"


class Meanings:
    """Finds the action that a sentence asks for by its meaning.

    Args:
        encoder: of sentences.
        examples: sentences of each action, and under "none" such as ask for no action.
    """

    def __init__(self, encoder: TextEncoder, examples: dict[str, list[str]]) -> None:
        self._encoder = encoder
        self._actions = tuple(examples)
        sentences = [sentence for each in examples.values() for sentence in each]
        self._vectors = encoder.encode(sentences)
        self._owner = torch.tensor([i for i, each in enumerate(examples.values()) for _ in each])

    def action(self, sentence: str) -> Action | None:
        """Return the action that a sentence means; None if it is near to none, or to several.

        Args:
            sentence: with its names `masked`.
        """
        similar = self._vectors @ self._encoder.encode([sentence])[0]
        best = [float(similar[self._owner == place].max()) for place in range(len(self._actions))]
        ranked = sorted(zip(best, self._actions, strict=True), reverse=True)
        (cosine, action), *others = ranked
        is_certain = cosine >= LEAST_MEANING and action != NO_ACT
        for less, other in others:
            margin = OPPOSITE_MARGIN if {action, other} == OPPOSITES else LEAST_MARGIN
            is_certain = is_certain and cosine - less >= margin
        return action if is_certain else None  # type: ignore[return-value]


def masked(words: Sequence[tuple[str, bool]]) -> str:
    """A sentence with "it" for each name, which would count more than what is said of it.

    Args:
        words: and whether each is a name.

    >>> masked([("the", False), ("spleen", True), ("ends", False), ("early", False)])
    'it ends early'
    """
    kept: list[str] = []
    for word, is_name in words:
        if is_name and kept[-1:] == ["the"]:
            kept.pop()
        kept.append("it" if is_name else word)
    return " ".join(kept)
