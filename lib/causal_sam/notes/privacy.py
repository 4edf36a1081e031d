"""De-identification of notes: only words and numbers that are known not to identify a person are kept."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from causal_sam.notes.vocabulary import ENDINGS, Vocabulary, load_vocabulary, stem
from causal_sam.text import Lexicon, load_lexicon
from causal_sam.text.lexicon import singular, split_words
from causal_sam.text.spelling import MIN_CORRECTABLE_LENGTH, correct_spelling

NAME, DATE, NUMBER, ADDRESS = "[name]", "[date]", "[number]", "[address]"
# Above this share of capitalised words, capitals do not distinguish names.
MAX_CAPITALS_SHARE = 0.6
NEGATIONS = frozenset({"not", "no", "never", "without", "nor", "neither", "none", "nothing"})

_PLACEHOLDER = "\ue000{}\ue001"
_PLACEHOLDER_PATTERN = re.compile("\ue000(\\d+)\ue001")
_DECIMAL = r"\d{1,4}(?:[.,]\d{1,2})?"
_LENGTH = re.compile(
    rf"(?<![\w.,/-])[+-]?{_DECIMAL}(?:\s*(?:-|\bto\b|x)\s*{_DECIMAL})*\s*-?\s*"
    r"(?:(?:mm|cm|ml|cc|millimet(?:er|re)s?|centimet(?:er|re)s?|voxels?|pixels?|percent)\b|%)",
    re.IGNORECASE,
)
_SLICES = re.compile(
    r"\b(?:slices?|slcs?|sl|images?|imgs?|cuts?|frames?|sections?|levels?|segments?)(?:\b|(?=\d))[\s.:#=]*"
    r"(?:(?:nos?|numbers?|from|between)\b\.?\s*)?"
    r"\d{1,4}(?:\s*(?:-|,|&|/|\b(?:to|till|until|through|and)\b)\s*(?:(?:slices?|sl)\s*)?\d{1,4})*(?![\w./-]*\d)",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"(?<![\w./-])[123]/[2-5](?![\w./-])")
_PLACES = re.compile(r"\S*(?:@|://|\\|\bwww\.)\S*", re.IGNORECASE)
_DATES = (
    re.compile(r"\b\d{1,4}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{1,4}\b"),
    re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?\b"),
    re.compile(r"\b(?:19|20)\d{2}\b"),
)
_AGE = re.compile(r"\b\d{1,3}[\s-]*(?:yo|y/o|yrs?|years?)\b(?:[\s-]*old\b)?", re.IGNORECASE)
# Identifiers, telephone numbers and whatever else is longer than a number of slices.
_LONG_NUMBER = re.compile(r"\+?\(?\d(?:[\s().,/-]{0,2}\d){4,}|\b\d{4,}\b|\b\d+(?:[./-]\d+)+\b")
# Letters with digits: vertebrae, segments and sequences are short.
_MIXED = re.compile(r"[^\W\d_]{1,3}\d{1,2}[^\W\d_]?|\d{1,2}(?:[^\W\d_]{1,2})|\d{1,3}")
_TOKEN = re.compile(
    r"\[(?:name|date|number|address)\]|\ue000\d+\ue001|[^\W_]+(?:'[^\W_]+)?|[\s,.;:!?'^_/()-]+|.", re.DOTALL
)
_BETWEEN = re.compile(r"[\s,.'^_-]{1,3}")
_STARTS = re.compile(r"[.!?;:\n]\s*$|[\n*-]\s+$")
_CONTRACTION = re.compile(r"(?:n't|'(?:s|re|ve|ll|d|m|t))$")
_REPEATED = re.compile(r"(\[(?:name|number|date|address)\])(?:[\s,.'^_-]*\1)+")
_APOSTROPHES = str.maketrans({mark: "'" for mark in "’‘`´"} | {dash: "-" for dash in "‐‑‒–—−"})  # noqa: RUF001


@dataclass
class _Piece:
    """A word, a number, or the characters between them."""

    text: str
    word: str = ""  # in lower case, without accents and contractions
    starts: bool = False  # whether the piece begins a sentence
    is_anatomy: bool = False
    is_removed: bool = False

    @property
    def is_capital(self) -> bool:
        return self.text[:1].isupper()


class Scrubber:
    """Replaces everything that may identify a person: names, dates, identifiers, addresses.

    A word is kept if it belongs to anatomy, to notes about masks or to the site's labels; a number is kept if it is a
    length, a slice or short. Everything else is replaced by "[name]", "[date]", "[number]" or "[address]". A misspelt
    word of notes is kept with corrected spelling. Words of other languages and some rare English words are replaced.

    A name that is also a word of notes, such as "Mark", is replaced where capitals or its neighbours suggest a name.

    Args:
        content: content of `privacy.yaml`.
        vocabulary: vocabulary of notes.
        lexicon: lexicon of structures.
    """

    def __init__(self, content: dict[str, Any], vocabulary: Vocabulary, lexicon: Lexicon) -> None:
        self._vocabulary, self._lexicon = vocabulary, lexicon
        eponyms = content["eponyms"]
        self._words = frozenset([*content["words"], *itertools.chain.from_iterable(eponyms.values())])
        self._stems = frozenset(map(stem, self._words))
        self._short = frozenset(content["short"])
        self._capitals = frozenset(content["capitals"])
        self._eponyms = {name: frozenset(nouns) for name, nouns in eponyms.items()}
        self._eponym_prepositions = frozenset(content["into"])
        self._possible_names = frozenset(content["also_names"])
        self._before_names = frozenset(content["before_names"])
        self._known_words = lexicon.words | vocabulary.words
        months = "|".join(sorted(content["months"], key=len, reverse=True))
        day = r"\d{1,2}(?:st|nd|rd|th)?"
        dates = (
            rf"{day}\.?\s*(?:of\s+)?(?:{months})\b\.?(?:,?\s*\d{{2,4}})?",
            rf"(?:{months})\b\.?\s*{day}(?:,?\s*\d{{4}})?",
        )
        self._dates = [*_DATES, *(re.compile(rf"\b{pattern}(?![\w-])", re.IGNORECASE) for pattern in dates)]
        self._numbered = re.compile(
            rf"\b(?:{'|'.join(content['numbered'])})\b[\s.:#=-]*(?:(?:nos?|nr|number|is)\b[\s.:#=-]*)?[\w/.-]*\d[\w/.-]*",
            re.IGNORECASE,
        )
        self._streets = re.compile(
            rf"\b\d{{1,5}}[a-z]?,?\s+(?:[^\W\d_]+\.?\s+){{1,3}}(?:{'|'.join(content['streets'])})\b"
            rf"|\b[^\W\d_]+(?:{'|'.join(content['streets'])})\s+\d{{1,4}}\b",
            re.IGNORECASE,
        )

    def scrub(self, text: str, labels: Iterable[str] = ()) -> str:
        """Replace everything that may identify a person.

        Args:
            text: note, or answer of a tool.
            labels: the site's names of structures, which are kept.
        """
        text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
        text = "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter)[0] != "C")
        kept: list[str] = []

        def keep(match: re.Match[str]) -> str:
            kept.append(match.group())
            return _PLACEHOLDER.format(len(kept) - 1)

        text = _PLACES.sub(ADDRESS, text)
        text = _LENGTH.sub(keep, text)
        for date in self._dates:
            text = date.sub(DATE, text)
        text = self._streets.sub(ADDRESS, text)
        text = self._numbered.sub(NUMBER, text)
        text = _FRACTION.sub(keep, _SLICES.sub(keep, text))
        text = _LONG_NUMBER.sub(NUMBER, _AGE.sub(NUMBER, text))
        own = {word for label in labels for word in split_words(label)}
        text = "".join(piece.text for piece in self._without_names(text, own))
        text = _REPEATED.sub(r"\1", text)
        return _PLACEHOLDER_PATTERN.sub(lambda match: kept[int(match[1])], text)

    def _without_names(self, text: str, own: set[str]) -> list[_Piece]:
        pieces = [_Piece(match.group()) for match in _TOKEN.finditer(text)]
        words: list[_Piece] = []
        before = "\n"
        for piece in pieces:
            if piece.text[0].isalnum():
                piece.word = _plain(piece.text)
                piece.starts = not words or _STARTS.search(before) is not None
                words.append(piece)
            before = piece.text
        capitals = sum(piece.is_capital for piece in words if not piece.starts)
        ignore_capitals = capitals > MAX_CAPITALS_SHARE * max(1, sum(not piece.starts for piece in words))
        for place, piece in enumerate(words):
            self._decide_removal(
                piece, words[max(0, place - 2) : place], words[place + 1 : place + 2], own, ignore_capitals
            )
        # Words of notes beside a removed name may belong to it.
        for order in (range(1, len(pieces)), range(len(pieces) - 2, -1, -1)):
            step = 1 if order.step < 0 else -1
            for place in order:
                self._remove_adjacent_name(pieces, place, step, own)
        for piece in pieces:
            if piece.is_removed:
                piece.text = NAME if piece.text[0].isalpha() else NUMBER
        return pieces

    def _decide_removal(
        self, piece: _Piece, before: Sequence[_Piece], after: Sequence[_Piece], own: set[str], ignore_capitals: bool
    ) -> None:
        """Decide whether a word is removed."""
        word = piece.word
        if word in own or piece.text in self._capitals or word in self._short:
            return
        if any(letter.isdigit() for letter in word):
            piece.is_removed = _MIXED.fullmatch(word) is None
            return
        eponym = word if word in self._eponyms else word.removesuffix("s")
        if eponym in self._eponyms:
            piece.is_removed = not self._is_eponym(eponym, piece, before, after)
            return
        piece.is_anatomy = self._is_anatomy(word)
        if piece.is_anatomy or self._is_note_word(word):
            may_be_name = word in self._possible_names and piece.is_capital
            piece.is_removed = may_be_name and not piece.starts and not ignore_capitals
            return
        may_be_misspelt = len(word) >= MIN_CORRECTABLE_LENGTH and (
            not piece.is_capital or piece.starts or ignore_capitals
        )
        meant = correct_spelling(word, self._lexicon, self._known_words) if may_be_misspelt else None
        if meant:
            piece.text = piece.word = meant
        else:
            piece.is_removed = True

    def _is_anatomy(self, word: str) -> bool:
        return len(word) > 1 and (
            word in self._lexicon.words or (word.endswith("s") and self._lexicon.is_known_word(word))
        )

    def _is_note_word(self, word: str) -> bool:
        if len(word) < 2:
            return False
        is_own = word in self._words or (word.endswith(ENDINGS) and stem(word) in self._stems)
        return is_own or self._vocabulary.is_listed_form(word)

    def _is_eponym(self, name: str, piece: _Piece, before: Sequence[_Piece], after: Sequence[_Piece]) -> bool:
        nouns = self._eponyms[name]
        if after and singular(after[0].word) in nouns:
            return True
        words = [each.word for each in before]
        if words[-1:] == ["of"] and singular(words[0]) in nouns:
            return True
        return words[-1:] != [] and words[-1] in self._eponym_prepositions and not piece.text.casefold().endswith("s")

    def _remove_adjacent_name(self, pieces: list[_Piece], place: int, step: int, own: set[str]) -> None:
        """Remove a word beside a removed name if it may be part of the name."""
        piece = pieces[place]
        if not piece.word or piece.is_removed or piece.word in own or piece.word in NEGATIONS:
            return
        at = place + step
        if 0 <= at < len(pieces) and not pieces[at].word and _BETWEEN.fullmatch(pieces[at].text):
            at += step
        if not 0 <= at < len(pieces):
            return
        other = pieces[at]
        is_name = other.is_removed and other.text[0].isalpha()
        is_title = step < 0 and other.word in self._before_names
        may_belong = piece.word in self._possible_names
        is_written_so = piece.text.istitle() and not piece.starts and not piece.is_anatomy and len(piece.word) > 1
        piece.is_removed = (is_name or is_title) and (may_belong or (is_written_so and other.is_capital))


@cache
def load_scrubber() -> Scrubber:
    """Load the scrubber with the word lists of the package."""
    path = Path(__file__).with_name("privacy.yaml")
    return Scrubber(yaml.safe_load(path.read_text(encoding="utf-8")), load_vocabulary(), load_lexicon())


def scrub(text: str, labels: Iterable[str] = ()) -> str:
    """Replace everything in a text that may identify a person; see `Scrubber`.

    >>> scrub("Dr. Jane Doe, MRN 48151623: liver misses the dome by 5 mm in slices 30-36, seen on 12 March 2024")
    '[name], [number]: liver misses the dome by 5 mm in slices 30-36, seen on [date]'
    """
    return load_scrubber().scrub(text, labels)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", _CONTRACTION.sub("", text.casefold()))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).replace("'", "")
