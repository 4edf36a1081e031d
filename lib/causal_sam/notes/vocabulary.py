"""The words and phrases of notes, as `vocabulary.yaml` lists them."""

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
LONGEST_GAP = 9  # words
# Sections whose words all have the same meaning.
_PLAIN_SECTIONS = (
    *("effects", "include", "exclude", "belongs", "not_part", "taken_for", "delete", "retain", "pieces", "keep"),
    *(
        "wrong",
        "nothing_else",
        "denial",
        "protect",
        "except",
        "not",
        "modal",
        "than",
        "too",
        "enough",
        "large",
        "small",
    ),
    *("starts", "move", "edges", "masks", "actual", "beyond", "into", "near", "in", "from", "of", "as", "one"),
    *("it", "both", "all", "only", "also", "more", "no_more", "other", "surroundings", "unsure", "foreign", "asks"),
    *("requests", "by", "contrary", "correction"),
)
SHORTEST_SPELT, LONG_SPELT = 5, 9  # letters
ENDINGS = ("s", "ed", "ing", "ly")
_OFTEN_MISSPELT = frozenset(
    {
        *("cue", "place", "strength", "include", "exclude", "taken_for", "delete", "keep", "wanted", "edges", "masks"),
        *("not", "except", "protect", "retain", "modal", "near", "pieces", "nothing_else"),
    }
)
# Adverbs that say another thing than their adjectives.
_OWN_MEANING = frozenset(
    {"roughly", "nearly", "highly", "mainly", "largely", "hardly", "finely", "closely", "shortly", "greatly"}
)
_NO_GAP_BEFORE = frozenset({"the", "its", "further", "more", "at", "on", "this", "that"})


@dataclass(frozen=True)
class Meaning:
    """What a phrase does in a note: a section of the vocabulary, and which of its kinds."""

    kind: str
    values: tuple[str, ...] = ()


class Vocabulary:
    """Finds phrases in notes; `load_vocabulary` makes it.

    Args:
        content: of the file.

    Attributes:
        parts: of organs -> where they are, by structure.
        sides: structures on one side of the body -> the side.
        tissues: names of neighbours that are no structures.
        heads: words that are a name with an adjective or another name before them.
        sets: of words that the grammar tells from others of their section.
        words: that may be meant by misspelt ones.
        forms: these with other endings.
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
        for section in _PLAIN_SECTIONS:
            self._add(content[section], Meaning(section), raw)
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

    def knows(self, word: str) -> bool:
        """Whether a word is right as it is written."""
        return stem(word) in self._stems

    def lists(self, word: str) -> bool:
        """Whether a word is listed, or has a usual ending and is listed without it."""
        return word in self._listed or (word.endswith(ENDINGS) and stem(word) in self._stems)

    def has(self, word: str) -> bool:
        """Whether a word stands in the lists, or is a usual form of one of theirs."""
        return word in self._listed or word in self.forms

    def is_plain(self, word: str) -> bool:
        """Whether a word says nothing by itself."""
        return stem(word) in self._plain

    def direction(self, word: str) -> str | None:
        """The direction or part that a word stands for; None for any other word, or one with several directions."""
        meaning = self._phrases.get(_stems(word))
        return meaning.values[0] if meaning and meaning.kind == "place" and len(meaning.values) == 1 else None

    def longest(self, words: Sequence[str]) -> tuple[int, Meaning] | None:
        """The longest phrase that these words begin with: its length and meaning."""
        stems = tuple(map(stem, words[: self._longest]))
        for length in range(len(stems), 0, -1):
            meaning = self._as_written.get(tuple(words[:length])) or self._phrases.get(stems[:length])
            if meaning is not None:
                return length, meaning
        for prefix, meaning in self._prefixes.items():
            is_longer = len(words[0]) >= len(prefix) + SHORTEST_SPELT
            if words[0].startswith(prefix) and is_longer and stem(words[0]) not in self._stems:
                return 1, meaning
        return None

    def gapped(self, words: Sequence[str]) -> tuple[int, range, Meaning] | None:
        """A phrase in two parts that these words begin with: length of the first, place of the second, meaning."""
        for first, second, meaning in self._gapped.get(stem(words[0]), ()):
            length = len(first)
            stems = tuple(map(stem, words[: length + LONGEST_GAP + len(second)]))
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
            if meaning.kind not in _OFTEN_MISSPELT:
                continue
            # Words that stand only in phrases must be long to be told from others.
            long = [word for word in phrase.split() if word.isalpha() and len(word) >= LONG_SPELT]
            for word in [phrase] if phrase.isalpha() and len(phrase) >= SHORTEST_SPELT else long:
                self.words.add(word)
                self.forms |= _forms(word, meaning.kind)


@cache
def load_vocabulary() -> Vocabulary:
    """Load the vocabulary of the package."""
    path = Path(__file__).with_name("vocabulary.yaml")
    return Vocabulary(yaml.safe_load(path.read_text(encoding="utf-8")))


def stem(word: str) -> str:
    """A word without its usual endings. What comes out need not be a word, only the same for all forms.

    >>> {stem(word) for word in ("trim", "trims", "trimmed", "trimming")}, stem("laterally")
    ({'trim'}, 'lateral')
    """
    if len(word) > 5 and word.endswith("ly"):
        return word if word in _OWN_MEANING else word[:-2]
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
    """Whether there is punctuation between words."""
    return any(not word[:1].isalnum() for word in words)


def _stems(phrase: str) -> tuple[str, ...]:
    return tuple(stem(token.text) for token in tokenise(phrase) if token.kind == "word")


def _forms(word: str, kind: str) -> set[str]:
    """A word with other endings, of those that words of its kind have."""
    adverb = set() if word.endswith(("ly", "o", "y", "ad", "s")) else {f"{word}ly"}
    if kind in ("place", "strength"):
        return {word} | adverb
    root = word.removesuffix("e")
    return {word, f"{word}s", f"{root}ed", f"{root}ing"} | adverb
