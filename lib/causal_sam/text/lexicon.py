"""Lexicon of anatomical names: sides, synonyms, abbreviations and spellings from `structures.yaml`."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from causal_sam.errors import InputError

MAX_NAME_WORDS = 7  # words of a name in the lexicon
MAX_READINGS = 16  # a text with more readings is not a name
Side = Literal["left", "right"]
_SIDES: dict[str, frozenset[Side]] = {
    "left": frozenset({"left"}),
    "right": frozenset({"right"}),
    "both": frozenset({"left", "right"}),
}
_NO_SIDE: frozenset[Side] = frozenset()
_SECTIONS = {"sides": dict, "words": dict, "structures": dict, "fillers": list, "marks": list, "not_misspelt": list}
_FORMS = {"also": list, "left": list, "right": list, "kind_of": str}


@dataclass(frozen=True)
class Reading:
    """One interpretation of a name.

    Attributes:
        sides: "left", "right", both or none.
        parts: common names of structures, and words that belong to no structure. If all are known, a finding is the
            last part.
        unknown: parts that are not in the lexicon.
    """

    sides: frozenset[Side]
    parts: tuple[str, ...]
    unknown: frozenset[str]

    def __str__(self) -> str:
        return " ".join(filter(None, (" and ".join(sorted(self.sides)), *self.parts)))

    @property
    def known(self) -> frozenset[str]:
        """The parts that are in the lexicon."""
        return frozenset(self.parts) - self.unknown


class _Meaning(NamedTuple):
    """Meaning of a word or phrase: a structure, and the side that an abbreviation implies."""

    part: str
    sides: frozenset[Side] = _NO_SIDE


class Lexicon:
    """Interprets names with the words of one or several files; see `load_lexicon`.

    Args:
        contents: validated contents of the files; later ones extend earlier ones.

    Attributes:
        structures: common names of all structures.
        findings: structures in a hierarchy of kinds, such as metastasis, tumor and lesion.
        broad_findings: findings that have kinds.
        words: all words of names, as targets of spelling correction.
    """

    def __init__(self, contents: Sequence[Mapping[str, Any]]) -> None:
        self._sides: dict[str, frozenset[Side]] = {}
        self._words: dict[str, list[str]] = {}
        self._fillers: set[str] = set()
        self._marks: set[str] = set()
        # Keys are the compact form of a name, and its words in alphabetical order.
        self._names: dict[str, list[_Meaning]] = {}
        self._reordered: dict[tuple[str, ...], list[_Meaning]] = {}
        self._broader: dict[str, str] = {}
        self.structures: set[str] = set()
        vocabulary: set[str] = set()
        not_misspelt: set[str] = set()
        for content in contents:
            for side, words in content.get("sides", {}).items():
                self._sides.update(dict.fromkeys(map(_plain, words), _SIDES[side]))
            for word, replacement in content.get("words", {}).items():
                self._words[_plain(word)] = self._words[singular(_plain(word))] = split_words(replacement)
            self._fillers.update(map(_plain, content.get("fillers", ())))
            self._marks.update(map(_plain, content.get("marks", ())))
            not_misspelt.update(map(_plain, content.get("not_misspelt", ())))
            for key, entry in content.get("structures", {}).items():
                common = key.lower()
                forms: Mapping[str, Any] = {"also": entry} if isinstance(entry, list) else entry
                if "kind_of" in forms:
                    self._broader[common] = forms["kind_of"].lower()
                self.structures.add(common)
                names = [(name, _NO_SIDE) for name in (common, *forms.get("also", ()))]
                names += [(name, _SIDES[side]) for side in ("left", "right") for name in forms.get(side, ())]
                for name, sides in names:
                    words = split_words(name)
                    in_order = self._names.setdefault(self.compact_form(name), [])
                    for meanings in (in_order, self._reordered.setdefault(self._sorted(words), [])):
                        if (common, sides) not in meanings:
                            meanings.append(_Meaning(common, sides))
                    vocabulary.update(words)
        self.words = vocabulary.union(self._words, *self._words.values()) - self._sides.keys()
        known = self.words.union(self._marks, self._fillers, self._sides, not_misspelt)
        self._known = set(map(singular, known))
        self.broad_findings = set(self._broader.values())
        self.findings = self._broader.keys() | self.broad_findings

    @property
    def names(self) -> Collection[str]:
        """The compact forms of all names of structures."""
        return self._names.keys()

    def is_known_word(self, word: str) -> bool:
        """Return whether a word, in the singular or plural, is in the lexicon, or a number or letter."""
        return singular(word) in self._known or _is_mark(word)

    def broader_terms(self, structure: str) -> tuple[str, ...]:
        """Return the broader terms of a structure, the nearest first."""
        terms = [structure]
        # A site's file may contain a cycle.
        while (term := self._broader.get(terms[-1])) and term not in terms:
            terms.append(term)
        return tuple(terms[1:])

    def compact_form(self, name: str) -> str:
        """Return a name as one word, in the singular and without fillers."""
        return "".join(self._singulars(split_words(name)))

    def readings(self, name: str) -> list[Reading]:
        """Return all interpretations of a name; several if it belongs to several structures."""
        words = [word for word in split_words(name) if word not in self._fillers]
        # The whole name takes precedence: the letters of "L V" are not sides.
        whole = self._lookup(words)
        if whole:
            return [Reading(sides, (part,), frozenset()) for part, sides in whole]
        sides, rest = self._split_sides(words)
        readings = []
        for choice in itertools.islice(itertools.product(*self._meanings(self._expanded(rest))), MAX_READINGS):
            parts = tuple(meaning.part for meaning in choice)
            unknown = frozenset(part for part in parts if part not in self.structures and not self._is_identifier(part))
            if not unknown:
                # "tumor of the kidney" is a "kidney tumor", "1st rib" is "rib 1".
                parts = tuple(sorted(parts, key=lambda part: (part in self.findings, part not in self.structures)))
            readings.append(Reading(sides.union(*(meaning.sides for meaning in choice)), parts, unknown))
        return readings

    def with_side_first(self, name: str) -> str:
        """Return a name with its side first, without interpretation."""
        sides, rest = self._split_sides(split_words(name))
        return str(Reading(sides, tuple(rest), frozenset()))

    def is_same(self, first: Sequence[str], second: Sequence[str]) -> bool:
        """Return whether two lists of parts are equal up to order and number."""
        return sorted(map(singular, first)) == sorted(map(singular, second))

    def _split_sides(self, words: list[str]) -> tuple[frozenset[Side], list[str]]:
        """Split words into their sides and the other words."""
        words = list(itertools.chain.from_iterable(map(self._split_attached_side, words)))
        sides: frozenset[Side] = _NO_SIDE.union(*(self._sides[word] for word in words if word in self._sides))
        return sides, [word for word in words if word not in self._sides]

    def _meanings(self, words: list[str]) -> list[list[_Meaning]]:
        """Divide words into the longest known names; other words are kept."""
        found, start = [], 0
        while start < len(words):
            for end in range(min(len(words), start + MAX_NAME_WORDS), start, -1):
                meanings = self._lookup(words[start:end])
                if meanings:
                    break
            found.append(meanings or [_Meaning(words[start])])
            start = end
        return found

    def _lookup(self, words: Sequence[str]) -> list[_Meaning]:
        """Look up a name by its words, whatever their division and order."""
        return self._names.get("".join(self._singulars(words))) or self._reordered.get(self._sorted(words)) or []

    def _sorted(self, words: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(self._singulars(words)))

    def _singulars(self, words: Sequence[str]) -> list[str]:
        return [singular(word) for word in self._expanded(words) if word not in self._fillers]

    def _expanded(self, words: Sequence[str]) -> list[str]:
        found = (self._words.get(word) or self._words.get(singular(word)) or [word] for word in words)
        return list(itertools.chain.from_iterable(found))

    def _split_attached_side(self, word: str) -> list[str]:
        """Split "leftkidney" and "kidneyleft", but not other words with such a beginning or end."""
        for side in ("left", "right"):
            for rest, words in (
                (word.removeprefix(side), [side, word.removeprefix(side)]),
                (word.removesuffix(side), [word.removesuffix(side), side]),
            ):
                if rest != word and self._lookup([rest]):
                    return words
        return [word]

    def _is_identifier(self, word: str) -> bool:
        return word in self._marks or singular(word) in self._marks or _is_mark(word)


@cache
def load_lexicon(*more: Path) -> Lexicon:
    """Load the lexicon of the package, extended by a site's own words.

    Args:
        more: YAML files with any of the sections of ``structures.yaml`` in this package, which documents them. New
            structures and names are added; an existing word gets the new meaning.

    Raises:
        InputError: a file cannot be read or is invalid.
    """
    return Lexicon([_read(path) for path in (Path(__file__).with_name("structures.yaml"), *more)])


def canonical(name: str, lexicon: Lexicon | None = None) -> str:
    """Return the common name of a structure, which is the same for all its names.

    Unknown and ambiguous names are returned in lower case with spaces and the side first.

    Args:
        name: name as written by a person or a data set.
        lexicon: lexicon; that of the package by default.

    >>> canonical("LK"), canonical("Renal_sinister"), canonical("hepatic mets"), canonical("Left-Frobnicator")
    ('left kidney', 'left kidney', 'liver metastasis', 'left frobnicator')
    """
    lexicon = lexicon or load_lexicon()
    readings = lexicon.readings(name)
    return str(readings[0]) if len(readings) == 1 else lexicon.with_side_first(name)


def split_words(name: str) -> list[str]:
    """Split a name in any notation into words in lower case without accents.

    >>> split_words("Left-Lateral_Ventricle"), split_words("kidneyLeft"), split_words("Vésicule (gauche)")
    (['left', 'lateral', 'ventricle'], ['kidney', 'left'], ['vesicule', 'gauche'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    decomposed = unicodedata.normalize("NFKD", spaced)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter)).replace("'", "")
    return re.findall(r"[^\W_]+", plain.casefold())


def singular(word: str) -> str:
    """Strip the plural ending; the result is equal for singular and plural but need not be a word."""
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith("sses"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _plain(word: str) -> str:
    return "".join(split_words(word))


def _is_mark(word: str) -> bool:
    """Return whether a word is a letter or has digits, which distinguish structures: "L1", "widget A"."""
    return len(word) == 1 or any(letter.isdigit() for letter in word)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The lexicon {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The lexicon {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    wrong = _find_error(content)
    if wrong:
        raise InputError(f"The lexicon {path} {wrong}; structures.yaml in causal_sam.text shows the form.")
    return content


def _find_error(content: Any) -> str | None:
    if not isinstance(content, dict):
        return f"must have sections, such as {', '.join(_SECTIONS)}"
    for section, value in content.items():
        if section not in _SECTIONS:
            return f"has a section {section!r}, and known are {', '.join(_SECTIONS)}"
        if not isinstance(value, _SECTIONS[section]):
            return f"has a section {section} that is no {'list' if _SECTIONS[section] is list else 'mapping'}"
    texts = [*content.get("fillers", ()), *content.get("marks", ()), *content.get("not_misspelt", ())]
    for word, replacement in content.get("words", {}).items():
        texts += [word, replacement]
    for side, words in content.get("sides", {}).items():
        if side not in _SIDES or not isinstance(words, list):
            return f"has {side!r} under sides, where only left, right and both may have lists of words"
        texts += words
    for common, entry in content.get("structures", {}).items():
        forms = {"also": entry} if isinstance(entry, list) else entry
        if not isinstance(forms, dict) or not all(isinstance(v, _FORMS.get(k, ())) for k, v in forms.items()):
            return f"must have a list of names, or {', '.join(_FORMS)}, for {common!r}"
        texts += [common, *(name for key, value in forms.items() if key != "kind_of" for name in value)]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    return None if wrong is None else f"has {wrong!r} where a text must be: put it in quotation marks"
