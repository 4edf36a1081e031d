"""What people call structures: sides, synonyms, abbreviations and spellings, as `structures.yaml` lists them."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from causal_sam.errors import InputError

MAX_NAME = 7  # words of a name in the lexicon
MAX_READINGS = 16  # a text with more is no name
_SIDES = {"left": frozenset({"left"}), "right": frozenset({"right"}), "both": frozenset({"left", "right"})}
_NO_SIDE: frozenset[str] = frozenset()
_SECTIONS = {"sides": dict, "words": dict, "structures": dict, "fillers": list, "marks": list, "not_misspelt": list}
_FORMS = {"also": list, "left": list, "right": list, "kind_of": str}


@dataclass(frozen=True)
class Reading:
    """One way to understand a name.

    Attributes:
        sides: "left", "right", both or none.
        parts: what it names: common names of structures, and words that belong to none. Where all are known, a
            finding is the last.
        unknown: those of the parts that the lexicon does not know.
    """

    sides: frozenset[str]
    parts: tuple[str, ...]
    unknown: frozenset[str]

    def __str__(self) -> str:
        return " ".join(filter(None, (" and ".join(sorted(self.sides)), *self.parts)))

    @property
    def known(self) -> frozenset[str]:
        """The parts that the lexicon knows."""
        return frozenset(self.parts) - self.unknown


class _Meaning(NamedTuple):
    """What a word or a few may stand for: a structure, and the side that an abbreviation says."""

    part: str
    sides: frozenset[str] = _NO_SIDE


class Lexicon:
    """Reads names with the words of one or several files; `load_lexicon` makes it.

    Args:
        contents: of the files, checked; a later one adds to those before.

    Attributes:
        structures: their common names.
        findings: those that are kinds of one another, such as metastasis, tumor and lesion.
        broad: those of the findings that have kinds.
        words: all words of names, for comparison with misspelt ones.
    """

    def __init__(self, contents: Sequence[Mapping[str, Any]]) -> None:
        self._sides: dict[str, frozenset[str]] = {}
        self._words: dict[str, list[str]] = {}
        self._fillers: set[str] = set()
        self._marks: set[str] = set()
        # By the name as one word, and by its words in the order of the alphabet.
        self._names: dict[str, list[_Meaning]] = {}
        self._reordered: dict[tuple[str, ...], list[_Meaning]] = {}
        self._wider: dict[str, str] = {}
        self.structures: set[str] = set()
        vocabulary: set[str] = set()
        not_misspelt: set[str] = set()
        for content in contents:
            for side, words in content.get("sides", {}).items():
                self._sides.update(dict.fromkeys(map(_plain, words), _SIDES[side]))
            for word, instead in content.get("words", {}).items():
                self._words[_plain(word)] = self._words[singular(_plain(word))] = split_words(instead)
            self._fillers.update(map(_plain, content.get("fillers", ())))
            self._marks.update(map(_plain, content.get("marks", ())))
            not_misspelt.update(map(_plain, content.get("not_misspelt", ())))
            for key, entry in content.get("structures", {}).items():
                common = key.lower()
                forms = {"also": entry} if isinstance(entry, list) else entry
                if "kind_of" in forms:
                    self._wider[common] = forms["kind_of"].lower()
                self.structures.add(common)
                names = [(name, _NO_SIDE) for name in (common, *forms.get("also", ()))]
                names += [(name, _SIDES[side]) for side in ("left", "right") for name in forms.get(side, ())]
                for name, sides in names:
                    words = split_words(name)
                    for index, form in ((self._names, self.squashed(name)), (self._reordered, self._sorted(words))):
                        meanings = index.setdefault(form, [])
                        if (common, sides) not in meanings:
                            meanings.append(_Meaning(common, sides))
                    vocabulary.update(words)
        self.words = vocabulary.union(self._words, *self._words.values()) - self._sides.keys()
        known = self.words.union(self._marks, self._fillers, self._sides, not_misspelt)
        self._known = set(map(singular, known))
        self.broad = set(self._wider.values())
        self.findings = self._wider.keys() | self.broad

    @property
    def names(self) -> Collection[str]:
        """All names of all structures, each as one word."""
        return self._names.keys()

    def knows(self, word: str) -> bool:
        """Whether a word, in the singular or plural, is one of the lexicon's, or a number or letter."""
        return singular(word) in self._known or _is_mark(word)

    def wider(self, structure: str) -> tuple[str, ...]:
        """The wider terms of a structure, the nearest first."""
        terms = [structure]
        # A site's file may make a circle.
        while (term := self._wider.get(terms[-1])) and term not in terms:
            terms.append(term)
        return tuple(terms[1:])

    def squashed(self, name: str) -> str:
        """A name as one word, in the singular, without the words that say nothing."""
        return "".join(self._singulars(split_words(name)))

    def readings(self, name: str) -> list[Reading]:
        """Return all ways to understand a name; several if it stands under several structures."""
        words = [word for word in split_words(name) if word not in self._fillers]
        # The name as a whole comes first: the letters of "L V" are no sides by themselves.
        whole = self._named(words)
        if whole:
            return [Reading(sides, (part,), frozenset()) for part, sides in whole]
        sides, rest = self._divided(words)
        readings = []
        for choice in itertools.islice(itertools.product(*self._meanings(self._expanded(rest))), MAX_READINGS):
            parts = tuple(meaning.part for meaning in choice)
            unknown = frozenset(part for part in parts if part not in self.structures and not self._tells_apart(part))
            if not unknown:
                # "tumor of the kidney" is a "kidney tumor", "1st rib" is "rib 1".
                parts = tuple(sorted(parts, key=lambda part: (part in self.findings, part not in self.structures)))
            readings.append(Reading(sides.union(*(meaning.sides for meaning in choice)), parts, unknown))
        return readings

    def spelt_out(self, name: str) -> str:
        """A name with its side in front, whatever it may mean."""
        sides, rest = self._divided(split_words(name))
        return str(Reading(sides, tuple(rest), frozenset()))

    def is_same(self, first: Sequence[str], second: Sequence[str]) -> bool:
        """Whether two lists of parts name the same, whatever their order, and whether singular or plural."""
        return sorted(map(singular, first)) == sorted(map(singular, second))

    def _divided(self, words: list[str]) -> tuple[frozenset[str], list[str]]:
        """The sides that words say, and the other words."""
        words = list(itertools.chain.from_iterable(map(self._unglued, words)))
        sides = _NO_SIDE.union(*(self._sides[word] for word in words if word in self._sides))
        return sides, [word for word in words if word not in self._sides]

    def _meanings(self, words: list[str]) -> list[list[_Meaning]]:
        """Divide words into the longest names that there are; other words stay as they are."""
        found, start = [], 0
        while start < len(words):
            for end in range(min(len(words), start + MAX_NAME), start, -1):
                meanings = self._named(words[start:end])
                if meanings:
                    break
            found.append(meanings or [_Meaning(words[start])])
            start = end
        return found

    def _named(self, words: Sequence[str]) -> list[_Meaning]:
        """What is called by these words, which may be divided in another way, or stand in another order."""
        return self._names.get("".join(self._singulars(words))) or self._reordered.get(self._sorted(words)) or []

    def _sorted(self, words: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(self._singulars(words)))

    def _singulars(self, words: Sequence[str]) -> list[str]:
        return [singular(word) for word in self._expanded(words) if word not in self._fillers]

    def _expanded(self, words: Sequence[str]) -> list[str]:
        found = (self._words.get(word) or self._words.get(singular(word)) or [word] for word in words)
        return list(itertools.chain.from_iterable(found))

    def _unglued(self, word: str) -> list[str]:
        """Divide "leftkidney" and "kidneyleft", but not other words that begin or end like that."""
        for side in ("left", "right"):
            for rest, words in (
                (word.removeprefix(side), [side, word.removeprefix(side)]),
                (word.removesuffix(side), [word.removesuffix(side), side]),
            ):
                if rest != word and self._named([rest]):
                    return words
        return [word]

    def _tells_apart(self, word: str) -> bool:
        return word in self._marks or singular(word) in self._marks or _is_mark(word)


@cache
def load_lexicon(*more: Path) -> Lexicon:
    """Load the lexicon of the package, and a site's own words.

    Args:
        more: YAML files with any of the sections of ``structures.yaml`` in this package, which explains them. New
            structures and new names of known ones are added; a word that is there already gets its new meaning.

    Raises:
        InputError: a file cannot be read, or has another form.
    """
    return Lexicon([_read(path) for path in (Path(__file__).with_name("structures.yaml"), *more)])


def canonical(name: str, lexicon: Lexicon | None = None) -> str:
    """Return the common name of a structure, so that all names of it are the same text.

    What is not in the lexicon stays as it is, in lower case and with spaces, and so does a name with several meanings;
    their side comes first.

    Args:
        name: as a person or a data set writes it.
        lexicon: that of the package if not given.

    >>> canonical("LK"), canonical("Renal_sinister"), canonical("hepatic mets"), canonical("Left-Frobnicator")
    ('left kidney', 'left kidney', 'liver metastasis', 'left frobnicator')
    """
    lexicon = lexicon or load_lexicon()
    readings = lexicon.readings(name)
    return str(readings[0]) if len(readings) == 1 else lexicon.spelt_out(name)


def split_words(name: str) -> list[str]:
    """Words in lower case, without accents, of a name in any way of writing.

    >>> split_words("Left-Lateral_Ventricle"), split_words("kidneyLeft"), split_words("Vésicule (gauche)")
    (['left', 'lateral', 'ventricle'], ['kidney', 'left'], ['vesicule', 'gauche'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    decomposed = unicodedata.normalize("NFKD", spaced)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter)).replace("'", "")
    return re.findall(r"[^\W_]+", plain.casefold())


def singular(word: str) -> str:
    """A word without the ending of the plural. What comes out need not be a word, only the same for both forms."""
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith("sses"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _plain(word: str) -> str:
    return "".join(split_words(word))


def _is_mark(word: str) -> bool:
    """Letters and numbers tell structures apart: "L1" from "L2", "widget A" from "widget B"."""
    return len(word) == 1 or any(letter.isdigit() for letter in word)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The lexicon {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The lexicon {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    wrong = _what_is_wrong(content)
    if wrong:
        raise InputError(f"The lexicon {path} {wrong}; structures.yaml in causal_sam.text shows the form.")
    return content


def _what_is_wrong(content: Any) -> str | None:
    if not isinstance(content, dict):
        return f"must have sections, such as {', '.join(_SECTIONS)}"
    for section, value in content.items():
        if section not in _SECTIONS:
            return f"has a section {section!r}, and known are {', '.join(_SECTIONS)}"
        if not isinstance(value, _SECTIONS[section]):
            return f"has a section {section} that is no {'list' if _SECTIONS[section] is list else 'mapping'}"
    texts = [*content.get("fillers", ()), *content.get("marks", ()), *content.get("not_misspelt", ())]
    for word, instead in content.get("words", {}).items():
        texts += [word, instead]
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
