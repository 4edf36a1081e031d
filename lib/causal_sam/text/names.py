"""What people call a structure: synonyms, abbreviations and misspellings of label names, with the side kept apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import yaml
from rapidfuzz.distance import OSA

from causal_sam.errors import InputError
from causal_sam.text.encoders import TextEncoder

# Shorter words differ from each other by too little to be told from misspellings of one another.
LEAST_MISSPELT = 4
LONG_WORD = 8
# Cosine of the vectors of two names that mean the same, and how much farther any other label must be.
LEAST_MEANING = 0.72
LEAST_MARGIN = 0.12


class Name(NamedTuple):
    """What a name says: which side, "" for none, and the common name of the structure."""

    side: str
    structure: str

    def __str__(self) -> str:
        return f"{self.side} {self.structure}".strip()


@dataclass(frozen=True)
class Resolved:
    """The label that a text means.

    Attributes:
        label: as the site calls it.
        how: "exact", "synonym", "spelling" or "meaning".
        score: 1 for the first three, the cosine of the vectors for the last.
    """

    label: str
    how: str
    score: float = 1.0


class Lexicon:
    """The words of `structures.yaml`, and more that a site adds.

    Args:
        more: common name -> other names.

    Raises:
        InputError: ``more`` is not of this form.
    """

    def __init__(self, more: Mapping[str, Iterable[str]] | None = None) -> None:
        data = yaml.safe_load((files("causal_sam.text") / "structures.yaml").read_text(encoding="utf-8"))
        self._sides = {word: side for side, words in data["sides"].items() for word in words}
        self._fillers = frozenset(data["fillers"])
        self._phrases: dict[tuple[str, ...], str] = {}
        for structures in (data["structures"], more or {}):
            for common, others in structures.items():
                if (
                    not isinstance(common, str)
                    or isinstance(others, str)
                    or not all(isinstance(o, str) for o in others)
                ):
                    raise InputError("More names must be given as a common name with a list of its other names.")
                for phrase in (common, *others):
                    self._phrases[tuple(_words(phrase))] = " ".join(_words(common))
        self._abbreviations = {key: tuple(values) for key, values in data["abbreviations"].items()}
        self._longest = max(map(len, self._phrases))
        self.words = frozenset(word for phrase in self._phrases for word in phrase) | self._sides.keys()

    def readings(self, text: str) -> list[Name]:
        """All that a text may mean, the most likely first; one reading unless it is an abbreviation of several."""
        words = _words(text)
        whole = self._abbreviations.get("".join(words)) if len(words) == 1 else None
        if whole is not None:
            return [self._read(_words(meaning)) for meaning in whole]
        return [self._read(words)]

    def _read(self, words: Sequence[str]) -> Name:
        words = [self.singular(word) for word in words]
        # "left ventricle" is the name of a structure, and so is told before its side is.
        if tuple(words) in self._phrases and words[0] in self._sides:
            return Name("", self._phrases[tuple(words)])
        sides = {self._sides[word] for word in words if word in self._sides}
        rest = [word for word in words if word not in self._sides]
        rest = self._common(rest)
        side = sides.pop() if len(sides) == 1 else " and ".join(sorted(sides))
        return Name(side, " ".join(rest))

    def _common(self, words: list[str]) -> list[str]:
        """Replace the longest known phrases by their common names, leaving out words that say nothing."""
        said, n = [], 0
        while n < len(words):
            for length in range(min(self._longest, len(words) - n), 0, -1):
                common = self._phrases.get(tuple(words[n : n + length]))
                if common is not None:
                    said += common.split()
                    n += length
                    break
            else:
                if words[n] not in self._fillers:
                    said.append(words[n])
                n += 1
        # Common names side by side may be a longer name, such as "liver" and "tumor", or one inside fillers.
        joined = self._phrases.get(tuple(said))
        return joined.split() if joined else said or words

    def singular(self, word: str) -> str:
        """The singular of a word that the lexicon knows; other words as they are."""
        for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
            stem = word[: -len(ending)] + instead if word.endswith(ending) else word
            if word not in self.words and stem in self.words:
                return stem
        return word


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon()


def canonical(name: str) -> str:
    """The common name of a structure, so that all its names are one to a text encoder.

    >>> canonical("Lt. renal"), canonical("LK"), canonical("kidney_left"), canonical("Widget")
    ('left kidney', 'left kidney', 'left kidney', 'widget')
    """
    return str(_lexicon().readings(name)[0])


class LabelNames:
    """Finds out which label of a site a text means; never guesses, and never confuses left and right.

    Args:
        names: the labels, as the site calls them.
        encoder: for names that the lexicon does not know; None to do without.
        more: names of the site's own: common name -> other names.
    """

    def __init__(
        self,
        names: Sequence[str],
        encoder: TextEncoder | None = None,
        more: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._lexicon = Lexicon(more) if more else _lexicon()
        self._encoder = encoder
        self._spelt = {" ".join(_words(name)): name for name in reversed(self.names)}
        self._meant = {name: self._lexicon.readings(name)[0] for name in self.names}
        self._vocabulary = self._lexicon.words | {word for name in self.names for word in _words(name)}

    def resolve(self, text: str) -> Resolved | None:
        """Return the label that ``text`` means; None if it means none of them, or could mean several."""
        words = _words(text)
        if not words:
            return None
        known = self._by_words(words)
        if known is not None:
            return known
        corrected = [self._corrected(word) for word in words]
        known = self._by_words(corrected)
        if known is not None:
            return Resolved(known.label, "spelling")
        return self._by_meaning(self._lexicon.readings(" ".join(corrected))[0])

    def candidates(self, text: str) -> tuple[str, ...]:
        """The labels that ``text`` could mean, to ask which one: all sides of its structure where it names none."""
        found = self.resolve(text)
        if found is not None:
            return (found.label,)
        words = " ".join(self._corrected(word) for word in _words(text))
        structures = {reading.structure for reading in self._lexicon.readings(words)} if words else set()
        return tuple(name for name, meant in self._meant.items() if meant.structure in structures)

    def _by_words(self, words: list[str]) -> Resolved | None:
        text = " ".join(words)
        exact = self._spelt.get(text)
        if exact is not None:
            return Resolved(exact, "exact")
        for reading in self._lexicon.readings(text):
            same = [name for name, meant in self._meant.items() if meant == reading]
            if len(same) == 1:
                return Resolved(same[0], "synonym")
        return None

    def _corrected(self, word: str) -> str:
        """The one known word that this is a misspelling of; the word itself if there is none or several."""
        if len(word) < LEAST_MISSPELT or word in self._vocabulary or self._lexicon.singular(word) != word:
            return word
        most = 2 if len(word) >= LONG_WORD else 1
        near: dict[int, set[str]] = {}
        for known in self._vocabulary:
            if len(known) >= LEAST_MISSPELT and abs(len(known) - len(word)) <= most:
                distance = OSA.distance(word, known, score_cutoff=most)
                if distance <= most:
                    near.setdefault(distance, set()).add(known)
        nearest = near[min(near)] if near else set()
        # Words of the same common name are as good as one word.
        meanings = {canonical(known): known for known in sorted(nearest)}
        return next(iter(meanings.values())) if len(meanings) == 1 else word

    def _by_meaning(self, reading: Name) -> Resolved | None:
        same_side = [name for name, meant in self._meant.items() if meant.side == reading.side]
        if self._encoder is None or not same_side:
            return None
        vectors = self._encoder.encode([str(reading), *(str(self._meant[name]) for name in same_side)])
        cosines = (vectors[1:] @ vectors[0]).tolist()
        best = max(range(len(cosines)), key=cosines.__getitem__)
        others = [cosine for n, cosine in enumerate(cosines) if n != best]
        if cosines[best] < LEAST_MEANING or cosines[best] - max(others, default=-1.0) < LEAST_MARGIN:
            return None
        return Resolved(same_side[best], "meaning", cosines[best])


def _words(text: str) -> list[str]:
    """Words in lower case, of names in any way of writing: "Left-Lateral_Ventricle", "leftKidney", "Lt. kidney"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.findall(r"[^\W_]+", spaced.lower())
