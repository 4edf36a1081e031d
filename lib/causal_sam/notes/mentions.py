"""Names of structures in a note, and the present labels that they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from causal_sam.notes.laterality import structures_of
from causal_sam.notes.vocabulary import Vocabulary, stem
from causal_sam.text import LabelNames, Lexicon, Reading, canonical
from causal_sam.text.lexicon import singular, split_words
from causal_sam.text.spelling import correct_spelling

MAX_NAME_WORDS = 6  # words
MAX_AMBIGUOUS_ABBREVIATION = 2  # letters; abbreviations up to this length count only in capitals
_SIDES = ("left", "right")
_SIDE_WORDS = {"l": "left", "lt": "left", "left": "left", "r": "right", "rt": "right", "right": "right", "both": "both"}
MIN_PREFIX_LENGTH = 2  # letters of an abbreviation that is the beginning of a label's word
_VOWELS = frozenset("aeiouy")
# Endings of anatomical adjectives, which have at least five letters.
ADJECTIVE_ENDINGS = ("al", "ar", "ary", "ic", "ous", "oid", "ine", "ian")


@dataclass(frozen=True)
class Mention:
    """A name of a structure in a note; false where there is no name.

    Attributes:
        text: the name in lower case, with corrected spelling.
        labels: labels that the name refers to, several for "both kidneys"; empty if there is none, or it is ambiguous.
        candidates: possible labels of an ambiguous name.
    """

    text: str
    labels: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text)

    @property
    def is_label(self) -> bool:
        """Return whether the name refers to a label, or to one of several."""
        return bool(self.labels or self.candidates)

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels that the name refers to, or may refer to."""
        return self.labels or self.candidates

    @property
    def neighbour(self) -> str:
        """The name as a neighbour: that of its label, or its own without abbreviations and misspellings."""
        return self.labels[0] if len(self.labels) == 1 else self.text


NO_NAME = Mention("")


class NameFinder:
    """Finds names of structures among words, for one list of labels.

    Args:
        labels: labels that are present.
        lexicon: lexicon of structures.
        vocabulary: vocabulary of notes, whose words are never respelt.
    """

    def __init__(self, labels: Sequence[str], lexicon: Lexicon, vocabulary: Vocabulary) -> None:
        self.labels = tuple(labels)
        self._lexicon, self._vocabulary = lexicon, vocabulary
        self._resolver = LabelNames(self.labels, lexicon=lexicon)
        self._readings = {label: lexicon.readings(label) for label in self.labels}
        self._structures = {structure for label in self.labels for structure in structures_of(label)}
        self._label_words = {word for label in self.labels for word in split_words(label)}
        self._label_phrases = {"".join(map(singular, split_words(label))) for label in self.labels}
        self._respelt: dict[tuple[str, ...], list[str]] = {}  # names in the lexicon's spelling -> labels
        for label in self.labels:
            self._respelt.setdefault(self._spelt(split_words(label)), []).append(label)
        self._kinds: dict[str, list[str]] = {}  # names without sides -> labels
        for label in self.labels:
            self._kinds.setdefault(self._kind(split_words(label)), []).append(label)
        self._known_words = lexicon.words | vocabulary.words | self._label_words
        self.mention = lru_cache(4096)(self._mention)
        self.corrected = lru_cache(4096)(self._corrected)

    def side_in_name(self, label: str) -> str | None:
        """Return the side that is part of the name of a label."""
        sides = {side for reading in self._readings[label] for side in reading.sides}
        return sides.pop() if len(sides) == 1 else None

    def kind(self, label: str) -> str:
        """Return the name of a label without its side."""
        return self._kind(split_words(label))

    def longest_name(self, words: Sequence[str], capitals: Sequence[bool]) -> tuple[int, Mention] | None:
        """Return the longest name that these words begin with; names of present labels take precedence.

        Args:
            words: words in lower case.
            capitals: for each word, whether it is written in capital letters.

        Returns:
            Number of words and their mention; None if there is no name.
        """
        others = None
        for length in range(min(len(words), MAX_NAME_WORDS), 0, -1):
            phrase = tuple(words[:length])
            mention = self.mention(phrase)
            following = words[length] if length < len(words) else ""
            is_layer = following in self._vocabulary.sets["layers"]
            if others and self._vocabulary.direction_of_word(following) is None and not is_layer:
                mention = None  # "spleen" is no part of "splenic vein", but "hippocampus" of "hippocampus head"
            if mention is not None and (self._begins_with_place(phrase, mention) or self._is_part_of(phrase, mention)):
                mention = None
            if mention is None or (length == 1 and self._is_common_word(phrase[0], capitals[0], mention)):
                continue
            if mention.labels or mention.candidates:
                return length, mention
            others = others or (length, mention)
        return others

    def has_part(self, word: str) -> bool:
        """Return whether a part of an organ can belong to a label; with a bladder alone, the cervix is a neighbour."""
        places = self._vocabulary.parts.get(word)
        return places is None or "any" in places or not self._structures.isdisjoint(places)

    def _is_part_of(self, phrase: tuple[str, ...], mention: Mention) -> bool:
        """Return whether a name is a part of a label: "the lower lobe of the right lung"."""
        if mention.labels or "of" not in phrase[1:-1]:
            return False
        at = phrase.index("of")
        whole = self.mention(tuple(word for word in phrase[at + 1 :] if word != "the"))
        place = self._vocabulary.longest_phrase(phrase[:at])
        is_place = place is not None and place[0] == at and place[1].kind == "place"
        is_part = is_place or " ".join(phrase[:at]) in self._vocabulary.sets["layers"]
        return bool(whole and whole.labels) and is_part

    def _begins_with_place(self, phrase: tuple[str, ...], mention: Mention) -> bool:
        """Return whether a side before a name is a place on the label: "the right prostate"."""
        if phrase[0] not in _SIDES or len(phrase) == 1 or mention.labels:
            return False
        if self._vocabulary.direction_of_word(" ".join(phrase[1:])) is not None:
            return True
        whole = self.mention(phrase[1:])
        return whole is not None and len(whole.labels) == 1 and self.side_in_name(whole.labels[0]) is None

    def _is_common_word(self, word: str, is_capital: bool, mention: Mention) -> bool:
        return len(word) <= MAX_AMBIGUOUS_ABBREVIATION and not is_capital and not mention.labels

    def _corrected(self, word: str) -> tuple[str, ...]:
        if word.isdigit() or self._vocabulary.is_spelt_correctly(word) or word in self._label_words:
            return (word,)
        if len(word) > MAX_AMBIGUOUS_ABBREVIATION and not _VOWELS.intersection(word):
            meant = {own for own in self._label_words if _consonants(own) == word}
            if len(meant) == 1:
                return (meant.pop(),)
        shorter = next((each for each in _without_repeated_letters(word) if self._is_spelt_correctly(each)), None)
        if shorter is not None:
            return (shorter,)
        # Inflected forms come second: "undersegmentd" is equally near to two forms of "undersegment".
        found = correct_spelling(word, self._lexicon, self._known_words) or correct_spelling(
            word, self._lexicon, self._vocabulary.forms
        )
        if found and word.endswith("s") and not found.endswith("s") and self._is_spelt_correctly(f"{found}s"):
            found += "s"  # "incudes" is no order
        return tuple((found or word).split())

    def _is_spelt_correctly(self, word: str) -> bool:
        return self._vocabulary.is_listed(word) or word in self._label_words or self._lexicon.is_known_word(word)

    def _mention(self, words: tuple[str, ...]) -> Mention | None:
        text = " ".join(words)
        if "".join(map(singular, words)) in self._label_phrases:
            resolved = self._resolver.resolve(text)
            if resolved is not None:
                return Mention(text, (resolved.label,))
        respelt = self._respelt.get(self._spelt(words), [])
        if len(respelt) == 1:
            return Mention(text, (respelt[0],))
        own = self._labels_without_side(words)
        if own is not None:
            return own
        if tuple(stem(word) for word in words if word not in _SIDES) in self._vocabulary.tissues:
            longer = [label for label in self.labels if set(split_words(label)) > set(words)]
            return Mention(text, (longer[0],)) if len(longer) == 1 else Mention(text)
        abbreviated = self._labels_with_word(words[0]) if len(words) == 1 else None
        if abbreviated is not None:
            return abbreviated
        is_free = self._is_unlisted_anatomy(words)
        readings = [reading for reading in self._lexicon.readings(text) if self._is_name(reading)]
        if not readings or not self._is_compact(words, readings):
            return Mention(text) if is_free else None
        resolved = self._resolver.resolve(text)
        if resolved is None and not self._lexicon.structures.issuperset(readings[0].parts):
            return Mention(text) if is_free else None  # a number that is not part of the name
        if resolved is not None:
            return Mention(text, (resolved.label,))
        narrower = tuple(label for label in self.labels if self._is_narrower(label, words))
        if len(narrower) == 1 or (narrower and _is_plural(words[-1])):
            return Mention(text, narrower)
        of_kind = [label for label in self.labels if self._is_same_kind(label, readings)]
        sides = readings[0].sides
        of_sides = tuple(label for side in _SIDES for label in of_kind if self.side_in_name(label) == side)
        is_several = len(sides) == len(_SIDES) or (not sides and _is_plural(words[-1]))
        if is_several and len(of_sides) == len(_SIDES):
            return Mention(text, tuple(sorted(of_sides, key=self.labels.index)))
        return Mention(self._common_name(words, text), candidates=() if sides else narrower or tuple(of_kind))

    def _labels_without_side(self, words: Sequence[str]) -> Mention | None:
        """Match labels by their name without the side: "widget" matches "left widget" and "right widget"."""
        kind = self._kind(words)
        labels = self._kinds.get(kind, [])
        if len(labels) < 2 or not kind:
            return None
        sides = {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
        fitting = tuple(label for label in labels if not sides - {"both"} or self.side_in_name(label) in sides)
        if not fitting:
            return None
        is_several = "both" in sides or len(sides) == len(_SIDES) or (not sides and _is_plural(words[-1]))
        text = " ".join(words)
        return Mention(text, fitting) if is_several or len(fitting) == 1 else Mention(text, candidates=fitting)

    def _labels_with_word(self, word: str) -> Mention | None:
        """Match the labels of one kind that have a word, or a word that begins so: "bl" for "urinary bladder"."""
        is_listed = self._vocabulary.is_plain(word) or self._vocabulary.longest_phrase((word,)) is not None
        if is_listed or word in _SIDE_WORDS or len(word) < MIN_PREFIX_LENGTH:
            return None
        if _is_plural(word):  # "the arteries"
            several = [each for each in self.labels if singular(word) in map(singular, split_words(each))]
            return Mention(word, tuple(several)) if several else None
        for is_match in (str.__eq__, str.startswith):
            labels = [each for each in self.labels if any(is_match(own, word) for own in split_words(each))]
            is_known = self._vocabulary.is_spelt_correctly(word) or self._lexicon.is_known_word(word)
            if is_match is str.startswith and is_known:
                return None
            if labels and len(set(map(self.kind, labels))) == 1:
                return Mention(word, (labels[0],)) if len(labels) == 1 else Mention(word, candidates=tuple(labels))
        return None

    def _spelt(self, words: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._lexicon.compact_form(word) or word for word in words)

    def _kind(self, words: Iterable[str]) -> str:
        return "".join(singular(word) for word in words if word not in _SIDE_WORDS)

    def _is_name(self, reading: Reading) -> bool:
        parts = [part for part in reading.parts if not part.isdigit()]
        places = [part for part in parts if part not in self._lexicon.findings]
        return bool(parts) and len(places) <= 1 and self._lexicon.structures.issuperset(parts)

    def _is_compact(self, words: tuple[str, ...], readings: Sequence[Reading]) -> bool:
        """Return whether a phrase begins and ends with its name, and is a single name."""
        ends = (words[0], words[-1])
        if words[1:2] in (("of",), ("the",)) and words[0] in _SIDES:
            return False  # "left of the bladder"
        if any(self._lexicon.compact_form(word) == "" for word in ends) or words[-1] in ("lower", "upper", "middle"):
            return False
        if words[-1] in _SIDES and "of" in words:
            return False  # "the lower lobe of the right"
        if "and" in words or "or" in words:
            return len(readings[0].sides) == len(_SIDES) or tuple(words) in self._whole_names()
        if len(readings[0].sides) == len(_SIDES) and words[-1] == singular(words[-1]):
            return False  # "both the liver and the spleen"
        inner = {word for word in words if self._lexicon.compact_form(word) == ""}
        return inner <= {"of", "the"}

    def _whole_names(self) -> set[tuple[str, ...]]:
        return {tuple(split_words(label)) for label in self.labels}

    def _is_narrower(self, label: str, words: Sequence[str]) -> bool:
        """Return whether a label narrows the name, as "vertebra L2" and "L2" do for "vertebra", and is no finding."""
        own = set(map(singular, split_words(label)))
        parts = {part for reading in self._readings[label] for part in reading.parts}
        kinds = {" ".join(word for word in part.split() if not _is_number(word)) for part in parts}
        is_kind = any(map(_is_number, own)) and {self._lexicon.compact_form(word) for word in words} == kinds
        return (
            is_kind or own > set(map(singular, words))
        ) and parts <= self._lexicon.structures - self._lexicon.findings

    def _is_same_kind(self, label: str, readings: Sequence[Reading]) -> bool:
        return any(
            self._lexicon.is_same(reading.parts, own.parts) for reading in readings for own in self._readings[label]
        )

    def _common_name(self, words: Sequence[str], text: str) -> str:
        """Return the common name in place of abbreviations, Latin and adjectives, otherwise the name as written."""
        common = canonical(text, self._lexicon)
        is_divided = len(words) > len(common.split()) and self._lexicon.compact_form(
            common
        ) == self._lexicon.compact_form(text)
        is_noun = self._is_plain(words[-1])
        is_plain = is_noun and all(word in _SIDES or self._is_plain(word) or _is_adjective(word) for word in words)
        return common if is_divided or not is_plain else text

    def _is_plain(self, word: str) -> bool:
        return len(word) > 3 and self._lexicon.compact_form(word) == singular(word)

    def _is_unlisted_anatomy(self, words: Sequence[str]) -> bool:
        """Return whether words are an anatomical name that is in no lexicon: "gonadal vein", "gallbladder fossa"."""
        *modifiers, head = words
        if not modifiers or stem(head) not in self._vocabulary.heads:
            return False
        inner = tuple(word for word in modifiers if word not in _SIDES)
        return (len(inner) == 1 and self._is_modifier(inner[0])) or (len(inner) > 1 and self._is_unlabelled_name(inner))

    def _is_unlabelled_name(self, words: tuple[str, ...]) -> bool:
        """Return whether words name a structure without a label."""
        mention = self.mention(words)
        return mention is not None and not (mention.labels or mention.candidates)

    def _is_modifier(self, word: str) -> bool:
        if self._vocabulary.is_plain(word) or self._vocabulary.longest_phrase((word,)):
            return False
        return _is_adjective(word) or (word in self._lexicon.words and self._lexicon.compact_form(word) != "")


def _is_plural(word: str) -> bool:
    is_regular = word != singular(word) and not word.endswith(("as", "ps"))  # "psoas", "biceps"
    return is_regular or word.endswith(("ae", "i", "ia", "ora"))


def _consonants(word: str) -> str:
    """Return a word without its vowels: "spln" for "spleen"."""
    return "".join(letter for letter in word if letter not in _VOWELS)


def _without_repeated_letters(word: str) -> Iterator[str]:
    """Yield spellings of a word with fewer repeated letters, as in "wayyy", "tooo" and "liittle"."""
    shorter = re.sub(r"(.)\1{2,}", r"\1\1", word)
    found = [shorter, re.sub(r"(.)\1+", r"\1", word)] if shorter != word else []
    found += [word[: match.start()] + word[match.start() + 1 :] for match in re.finditer(r"(.)\1", word)]
    yield from (each for each in found if each != word)


def _is_adjective(word: str) -> bool:
    return len(word) > 4 and word.endswith(ADJECTIVE_ENDINGS)


def _is_number(word: str) -> bool:
    return any(letter.isdigit() for letter in word)
