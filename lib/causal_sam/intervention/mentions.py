"""Names of structures in a note, and which of the labels that are present they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from causal_sam.intervention.vocabulary import Vocabulary, stem
from causal_sam.text import LabelNames, Lexicon, Reading, canonical
from causal_sam.text.lexicon import singular, split_words
from causal_sam.text.spelling import correct

LONGEST_NAME = 6  # words
SHORT = 2  # letters of abbreviations that are words as well, unless written in capitals
_SIDES = ("left", "right")


@dataclass(frozen=True)
class Mention:
    """A name in a note.

    Attributes:
        text: as written, with its spelling corrected.
        labels: that it means: one, or several for "both kidneys". Empty if there is none, or it is not certain which.
        candidates: between which it leaves open which is meant.
    """

    text: str
    labels: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()

    @property
    def neighbour(self) -> str:
        """The name to give it as a neighbour: the label's, or its own without abbreviations and misspellings."""
        return self.labels[0] if len(self.labels) == 1 else self.text


class Names:
    """Finds names among words, for one list of labels.

    Args:
        labels: that are present.
        lexicon: of structures.
        vocabulary: of notes; its words are right as they are written.
    """

    def __init__(self, labels: Sequence[str], lexicon: Lexicon, vocabulary: Vocabulary) -> None:
        self.labels = tuple(labels)
        self._lexicon, self._vocabulary = lexicon, vocabulary
        self._resolver = LabelNames(self.labels, lexicon=lexicon)
        self._readings = {label: lexicon.readings(label) for label in self.labels}
        self._own_words = {word for label in self.labels for word in split_words(label)}
        self._own_phrases = {"".join(map(singular, split_words(label))) for label in self.labels}
        self._right = lexicon.words | vocabulary.words | self._own_words
        self.mention = lru_cache(4096)(self._mention)
        self.corrected = lru_cache(4096)(self._corrected)

    def said_side(self, label: str) -> str | None:
        """The side that the name of a label says."""
        sides = {side for reading in self._readings[label] for side in reading.sides}
        return sides.pop() if len(sides) == 1 else None

    def longest(self, words: Sequence[str], capitals: Sequence[bool]) -> tuple[int, Mention] | None:
        """The longest name that these words begin with, if any; one of a label that is present comes first.

        Args:
            words: in lower case.
            capitals: of each word, whether it is in capital letters.

        Returns:
            How many words, and what they mention.
        """
        others = None
        for length in range(min(len(words), LONGEST_NAME), 0, -1):
            phrase = tuple(words[:length])
            mention = self.mention(phrase)
            following = words[length] if length < len(words) else ""
            if others and self._vocabulary.direction(following) is None:
                mention = None  # "spleen" is no part of "splenic vein", but "hippocampus" of "hippocampus head"
            if mention is not None and self._says_where(phrase, mention):
                mention = None
            if mention is None or (length == 1 and self._is_only_a_word(phrase[0], capitals[0], mention)):
                continue
            if mention.labels or mention.candidates:
                return length, mention
            others = others or (length, mention)
        return others

    def _says_where(self, phrase: tuple[str, ...], mention: Mention) -> bool:
        """Whether the side before a name is a place on it, as in "the right prostate"."""
        if phrase[0] not in _SIDES or len(phrase) == 1 or mention.labels:
            return False
        if self._vocabulary.direction(" ".join(phrase[1:])) is not None:
            return True
        whole = self.mention(phrase[1:])
        return whole is not None and len(whole.labels) == 1 and self.said_side(whole.labels[0]) is None

    def _is_only_a_word(self, word: str, is_capital: bool, mention: Mention) -> bool:
        return len(word) <= SHORT and not is_capital and not mention.labels

    def _corrected(self, word: str) -> tuple[str, ...]:
        if self._vocabulary.knows(word) or word in self._own_words:
            return (word,)
        # Endings come second: "undersegmentd" is as near to two forms of "undersegment".
        found = correct(word, self._lexicon, self._right) or correct(word, self._lexicon, self._vocabulary.forms)
        return tuple((found or word).split())

    def _mention(self, words: tuple[str, ...]) -> Mention | None:
        text = " ".join(words)
        if "".join(map(singular, words)) in self._own_phrases:
            resolved = self._resolver.resolve(text)
            if resolved is not None:
                return Mention(text, (resolved.label,))
        if tuple(map(stem, words)) in self._vocabulary.tissues:
            return Mention(text)
        readings = [reading for reading in self._lexicon.readings(text) if self._is_name(reading)]
        if not readings or not self._is_compact(words, readings):
            return None
        resolved = self._resolver.resolve(text)
        if resolved is None and not self._lexicon.structures.issuperset(readings[0].parts):
            return None  # a number that is no part of the name
        if resolved is not None:
            return Mention(text, (resolved.label,))
        narrower = [label for label in self.labels if self._is_narrower(label, words)]
        if len(narrower) == 1:
            return Mention(text, (narrower[0],))
        of_kind = [label for label in self.labels if self._is_same_kind(label, readings)]
        sides = readings[0].sides
        of_sides = tuple(label for side in _SIDES for label in of_kind if self.said_side(label) == side)
        is_several = len(sides) == len(_SIDES) or (not sides and words[-1] != singular(words[-1]))
        if is_several and len(of_sides) == len(_SIDES):
            return Mention(text, tuple(sorted(of_sides, key=self.labels.index)))
        return Mention(self._spelt_out(words, text), candidates=() if sides else tuple(of_kind))

    def _is_name(self, reading: Reading) -> bool:
        parts = [part for part in reading.parts if not part.isdigit()]
        places = [part for part in parts if part not in self._lexicon.findings]
        return bool(parts) and len(places) <= 1 and self._lexicon.structures.issuperset(parts)

    def _is_compact(self, words: tuple[str, ...], readings: Sequence[Reading]) -> bool:
        """Whether a phrase neither begins nor ends beside its name, and is not two names."""
        ends = (words[0], words[-1])
        if words[1:2] == ("of",) and words[0] in _SIDES:
            return False  # "left of the bladder"
        if any(self._lexicon.squashed(word) == "" for word in ends):
            return False
        if "and" in words or "or" in words:
            return len(readings[0].sides) == len(_SIDES) or tuple(words) in self._whole_names()
        if len(readings[0].sides) == len(_SIDES) and words[-1] == singular(words[-1]):
            return False  # "both the liver and the spleen"
        inner = {word for word in words if self._lexicon.squashed(word) == ""}
        return inner <= {"of", "the"}

    def _whole_names(self) -> set[tuple[str, ...]]:
        return {tuple(split_words(label)) for label in self.labels}

    def _is_narrower(self, label: str, words: Sequence[str]) -> bool:
        """Whether a label is the name with more words: "vertebra L2" for the vertebra; not a finding in it."""
        own = set(map(singular, split_words(label)))
        parts = {part for reading in self._readings[label] for part in reading.parts}
        return own > set(map(singular, words)) and parts <= self._lexicon.structures - self._lexicon.findings

    def _is_same_kind(self, label: str, readings: Sequence[Reading]) -> bool:
        return any(
            self._lexicon.is_same(reading.parts, own.parts) for reading in readings for own in self._readings[label]
        )

    def _spelt_out(self, words: Sequence[str], text: str) -> str:
        """The name as written, unless it holds abbreviations, Latin or adjectives."""
        is_plain = all(word in _SIDES or self._is_plain(word) for word in words)
        common = canonical(text, self._lexicon)
        is_divided = len(words) > len(common.split()) and self._lexicon.squashed(common) == self._lexicon.squashed(text)
        return common if is_divided or not is_plain else text

    def _is_plain(self, word: str) -> bool:
        return len(word) > 3 and self._lexicon.squashed(word) == singular(word)
