"""Words and phrases of notes with their meanings, read from `vocabulary.yaml`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from causal_sam.notes.tokens import tokenise

GAP = "_"
AS_WRITTEN = "!"
MAX_GAP_WORDS = 9  # words
# Lists of words that are no sections of phrases.
_WORD_LISTS = frozenset({"plain", "tissues", "heads"})
MIN_CORRECTED_LENGTH, MIN_CORRECTED_LENGTH_IN_PHRASE = 5, 9  # letters
ENDINGS = ("s", "ed", "ing", "ly")
_SPELL_CHECKED_SECTIONS = frozenset(
    {
        *("cue", "place", "strength", "include", "exclude", "taken_for", "delete", "keep", "wanted", "edges", "masks"),
        *("not", "except", "protect", "retain", "modal", "near", "pieces", "nothing_else"),
    }
)
# Adverbs with another meaning than their adjective.
_IRREGULAR_ADVERBS = frozenset(
    {"roughly", "nearly", "highly", "mainly", "largely", "hardly", "finely", "closely", "shortly", "greatly"}
)
_NO_GAP_BEFORE = frozenset({"the", "its", "further", "more", "at", "on"})


@dataclass(frozen=True)
class Meaning:
    """Meaning of a phrase: a section of the vocabulary, and its subsections."""

    kind: str
    values: tuple[str, ...] = ()


class Vocabulary:
    """Finds phrases in notes; see `load_vocabulary`.

    Args:
        content: content of `vocabulary.yaml`.

    Attributes:
        parts: part of an organ -> structure -> direction of the part.
        sides: structure on one side of the body -> side.
        tissues: names of neighbours that are not in the lexicon of structures.
        heads: words that form a name with a preceding adjective or name.
        sets: named sets of words that the grammar distinguishes within a section.
        words: targets of spelling correction.
        forms: inflected forms of the targets.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self._phrases: dict[tuple[str, ...], Meaning] = {}  # by stems
        self._as_written: dict[tuple[str, ...], Meaning] = {}
        self._gapped: dict[str, list[tuple[tuple[str, ...], tuple[str, ...], Meaning]]] = {}
        self.parts: dict[str, dict[str, str]] = dict(content["parts"])
        for where, parts in content["parts_anywhere"].items():
            self.parts |= {part: {"any": "" if where == "none" else where} for part in parts}
        self.sides = {name: side for side, names in content["sides"].items() for name in names}
        self.sets = {name: frozenset(words) for name, words in content["sets"].items()}
        self.tissues = frozenset(_stems(name) for name in content["tissues"])
        self.heads = frozenset(map(stem, content["heads"]))
        self.words: set[str] = set()
        self.forms: set[str] = set()
        raw: set[str] = set()
        for section, phrases in content.items():
            if isinstance(phrases, list) and section not in _WORD_LISTS:
                self._add(phrases, Meaning(section), raw)
        for section, kind in (("cues", "cue"), ("wanted", "wanted"), ("strength", "strength"), ("directions", "place")):
            for value, phrases in content[section].items():
                self._add(phrases, Meaning(kind, (value,)), raw)
        for section in ("axes", "corners"):
            for values, phrases in content[section].items():
                self._add(phrases, Meaning("place", tuple(values.split())), raw)
        for part in self.parts:
            self._add([part], Meaning("place", (part,)), raw)
        self._prefixes = {prefix: Meaning("cue", (action,)) for prefix, action in content["prefixes"].items()}
        plain = {phrase for phrase in content["plain"] if phrase.isalpha()}
        self._add([phrase for phrase in content["plain"] if phrase not in plain], Meaning("plain"), raw)
        self._longest = max(map(len, self._phrases))
        tissue_words = set(itertools.chain.from_iterable(map(str.split, (*content["tissues"], *content["heads"]))))
        self._listed = raw | plain | tissue_words
        self._stems = set(map(stem, self._listed))
        self._plain = set(map(stem, plain))

    def is_spelt_correctly(self, word: str) -> bool:
        """Return whether a word or its stem is listed, so that it needs no spelling correction."""
        return stem(word) in self._stems

    def is_listed_form(self, word: str) -> bool:
        """Return whether a word is listed, possibly without a regular ending."""
        return word in self._listed or (word.endswith(ENDINGS) and stem(word) in self._stems)

    def is_listed(self, word: str) -> bool:
        """Return whether a word is listed, or an inflected form of a target of spelling correction."""
        return word in self._listed or word in self.forms

    def is_plain(self, word: str) -> bool:
        """Return whether a word has no meaning of its own."""
        return stem(word) in self._plain

    def direction_of_word(self, word: str) -> str | None:
        """Return the direction or part of a word; None for other words, or for several directions."""
        meaning = self._phrases.get(_stems(word))
        return meaning.values[0] if meaning and meaning.kind == "place" and len(meaning.values) == 1 else None

    def longest_phrase(self, words: Sequence[str]) -> tuple[int, Meaning] | None:
        """Return length and meaning of the longest phrase that the words begin with."""
        stems = tuple(map(stem, words[: self._longest]))
        for length in range(len(stems), 0, -1):
            meaning = self._as_written.get(tuple(words[:length])) or self._phrases.get(stems[:length])
            if meaning is not None:
                return length, meaning
        for prefix, meaning in self._prefixes.items():
            is_longer = len(words[0]) >= len(prefix) + MIN_CORRECTED_LENGTH
            if words[0].startswith(prefix) and is_longer and stem(words[0]) not in self._stems:
                return 1, meaning
        return None

    def split_phrase(self, words: Sequence[str]) -> tuple[int, range, Meaning] | None:
        """Return length of the first part, range of the second part, and meaning of a split phrase at these words."""
        for first, second, meaning in self._gapped.get(stem(words[0]), ()):
            length = len(first)
            stems = tuple(map(stem, words[: length + MAX_GAP_WORDS + len(second)]))
            if stems[:length] != first:
                continue
            for start in range(length + 1, len(stems) - len(second) + 1):
                if _is_divided(words[length:start]):
                    break
                if stems[start : start + len(second)] == second and words[start - 1] not in _NO_GAP_BEFORE:
                    return length, range(start, start + len(second)), meaning
        return None

    def _add(self, phrases: Sequence[str], meaning: Meaning, raw: set[str]) -> None:
        for phrase in phrases:
            first, gap, second = (part.strip() for part in phrase.partition(f" {GAP} "))
            if phrase.endswith(AS_WRITTEN):
                phrase = first = phrase.removesuffix(AS_WRITTEN)
                self._as_written[tuple(phrase.split())] = meaning
            elif gap:
                entry = (_stems(first), _stems(second), meaning)
                self._gapped.setdefault(entry[0][0], []).append(entry)
            elif self._phrases.setdefault(_stems(phrase), meaning) != meaning:
                raise ValueError(f"{phrase!r} stands under {self._phrases[_stems(phrase)]} and {meaning}")
            raw.update(token.text for token in tokenise(f"{first} {second}"))
            if meaning.kind not in _SPELL_CHECKED_SECTIONS:
                continue
            # Words that occur only in phrases must be long to be distinguished from others.
            long = [word for word in phrase.split() if word.isalpha() and len(word) >= MIN_CORRECTED_LENGTH_IN_PHRASE]
            for word in [phrase] if phrase.isalpha() and len(phrase) >= MIN_CORRECTED_LENGTH else long:
                self.words.add(word)
                self.forms |= _forms(word, meaning.kind)


@cache
def load_vocabulary() -> Vocabulary:
    """Load the vocabulary of the package."""
    path = Path(__file__).with_name("vocabulary.yaml")
    return Vocabulary(yaml.safe_load(path.read_text(encoding="utf-8")))


def stem(word: str) -> str:
    """Return the stem of a word, which is equal for all its inflected forms but need not be a word itself.

    >>> {stem(word) for word in ("trim", "trims", "trimmed", "trimming")}, stem("laterally")
    ({'trim'}, 'lateral')
    """
    if len(word) > 5 and word.endswith("ly"):
        return word if word in _IRREGULAR_ADVERBS else word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("ses", "xes", "ches", "shes", "sses")) else word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and any(vowel in rest for vowel in "aeiouy"):
            is_doubled = rest[-1] == rest[-2] and (rest[-1] not in "lsz" or (rest.endswith("ell") and len(rest) > 5))
            word = rest[:-1] if is_doubled else rest
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _is_divided(words: Sequence[str]) -> bool:
    """Return whether there is punctuation among tokens."""
    return any(not word[:1].isalnum() for word in words)


def _stems(phrase: str) -> tuple[str, ...]:
    return tuple(stem(token.text) for token in tokenise(phrase) if token.kind == "word")


def _forms(word: str, kind: str) -> set[str]:
    """Return the inflected forms of a word of a section."""
    adverb = set() if word.endswith(("ly", "o", "y", "ad", "s")) else {f"{word}ly"}
    if kind in ("place", "strength"):
        return {word} | adverb
    root = word.removesuffix("e")
    return {word, f"{word}s", f"{root}ed", f"{root}ing"} | adverb
