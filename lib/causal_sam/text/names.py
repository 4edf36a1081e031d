"""From what a person writes to one of a site's labels, or to none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rapidfuzz.distance import OSA

from causal_sam.text.encoders import TextEncoder
from causal_sam.text.lexicon import Lexicon, Reading, load_lexicon, singular, split_words
from causal_sam.text.spelling import correct

How = Literal["exact", "synonym", "spelling", "meaning"]
MAX_TEXT = 100  # characters; what is longer is no name, and takes long to look for
# Cosine from which on two names mean the same, and how much less any other label may be like it.
MIN_MEANING, LEAST_MARGIN = 0.85, 0.1
# Between the structures of a label that is for whichever is there, such as "prostate/uterus".
_MEMBERS = re.compile(r"\s*[/&+]\s*|\s+(?:and|or)\s+|_and_|_or_")


@dataclass(frozen=True)
class Resolved:
    """The label that a text means.

    Attributes:
        label: as the site calls it.
        how: "exact" if only case, punctuation, spaces or plural differ; "synonym" by the lexicon; "spelling" after a
            correction; "meaning" by the text encoder.
        score: 1 if it is certain; the similarity of the spellings, or the cosine of the meanings.
    """

    label: str
    how: How
    score: float


class LabelNames:
    """Finds the label that a text means, among the labels of a site.

    It does not guess: a text that fits several labels, or none, gives none. Left is never taken for right.

    Args:
        names: the labels, whatever they are called.
        encoder: finds names that mean the same without a word in common; None to do without.
        lexicon: that of the package if not given.
    """

    def __init__(
        self, names: Sequence[str], encoder: TextEncoder | None = None, lexicon: Lexicon | None = None
    ) -> None:
        self.names = tuple(names)
        self._encoder = encoder
        self._lexicon = lexicon or load_lexicon()
        self._readings = {name: self._lexicon.readings(name) for name in self.names}
        self._equals: dict[str, list[str]] = {}
        for name in self.names:
            self._equals.setdefault(_as_one_word(name), []).append(name)
        self._members = {
            name: [reading for part in _MEMBERS.split(name) for reading in self._lexicon.readings(part)]
            for name in self.names
            if _MEMBERS.search(name)
        }
        self._vocabulary = self._lexicon.words.union(*map(split_words, self.names))

    def resolve(self, text: str) -> Resolved | None:
        """Return the label that ``text`` means; None if there is none, or it is not certain which."""
        label = self._equal(text)
        if label is not None:
            return Resolved(label, "exact", 1.0)
        if len(text) > MAX_TEXT:
            return None
        readings = self._lexicon.readings(text)
        fitting = self._fitting(readings)
        if fitting:
            return Resolved(fitting[0], "synonym", 1.0) if self._is_certain(fitting, readings) else None
        corrected = correct(text, self._lexicon, self._vocabulary)
        if corrected is not None:
            label = self._equal(corrected)
            readings_of_it = self._lexicon.readings(corrected)
            fitting = self._fitting(readings_of_it) if label is None else [label]
            if fitting:
                similarity = OSA.normalized_similarity(" ".join(split_words(text)), corrected)
                certain = self._is_certain(fitting, readings_of_it)
                return Resolved(fitting[0], "spelling", similarity) if certain else None
        return self._by_meaning(readings[0]) if len(readings) == 1 else None

    def candidates(self, text: str) -> tuple[str, ...]:
        """Return the labels that ``text`` could mean, to ask which one; none if it has nothing to do with any."""
        resolved = self.resolve(text)
        if resolved is not None:
            return (resolved.label,)
        if len(text) > MAX_TEXT:
            return ()
        readings = self._lexicon.readings(correct(text, self._lexicon, self._vocabulary) or text)
        fitting = self._fitting(readings) or self._fitting(
            [replace(reading, sides=frozenset()) for reading in readings]
        )
        if fitting:
            return tuple(fitting)
        structures = {part for reading in readings for part in reading.known & self._lexicon.structures}
        return tuple(
            name
            for name, own in self._readings.items()
            if any(structures & reading.known for reading in (*own, *self._members.get(name, ())))
        )

    def _equal(self, text: str) -> str | None:
        """The label that differs in case, punctuation, plural and spaces only."""
        if text in self._readings:
            return text
        equal = self._equals.get(_as_one_word(text), [])
        return equal[0] if len(equal) == 1 else None

    def _fitting(self, readings: Sequence[Reading]) -> list[str]:
        """The labels that fit one of the readings, and none fits better."""
        levels: dict[int, list[str]] = {}
        for name in self.names:
            found = [self._level(reading, own) for reading in readings for own in self._readings[name]]
            if all(level is None for level in found):
                members = [self._level(reading, own) for reading in readings for own in self._members.get(name, ())]
                found = [3 for level in members if level in (0, 1)]
            level = min((level for level in found if level is not None), default=None)
            if level is not None:
                levels.setdefault(level, []).append(name)
        return levels[min(levels)] if levels else []

    def _is_certain(self, fitting: Sequence[str], readings: Sequence[Reading]) -> bool:
        """Whether one label fits, and by more than being a kind: "lesion" is said for a tumor, but not for a cyst."""
        special = {
            part
            for name in fitting
            for own in self._readings[name]
            for part in own.parts
            if part not in self._lexicon.broad
        }
        findings = {self._divided(reading)[1] for reading in readings}
        return len(fitting) == 1 and not any(findings.intersection(self._lexicon.wider(part)) for part in special)

    def _level(self, text: Reading, label: Reading) -> int | None:
        """How well a label fits, by the lexicon; None for not at all.

        0 is the same, 1 the same but for the side, which the text leaves open, 2 a wider term for a finding at the same
        place, 3 a finding whose kind or place only one of both says.
        """
        if not text.parts:
            return None
        (place, finding), (own_place, own_finding) = self._divided(text), self._divided(label)
        is_same_place = self._lexicon.is_same(place, own_place)
        is_side_open = not text.sides and len(label.sides) == 1
        if is_same_place and finding == own_finding and (text.sides == label.sides or is_side_open):
            return 0 if text.sides == label.sides else 1
        if finding is None or own_finding is None:
            return None
        is_wider = own_finding in self._lexicon.wider(finding)
        is_narrower = finding in self._lexicon.wider(own_finding)
        if not (is_wider or is_narrower or finding == own_finding):
            return None
        if is_same_place and (text.sides == label.sides or is_side_open):
            return 2 if place and is_wider else 3
        is_placed_by_one = (not own_place and not label.sides) or (not place and not text.sides)
        return 3 if is_placed_by_one and self._lexicon.structures.issuperset((*place, *own_place)) else None

    def _divided(self, reading: Reading) -> tuple[tuple[str, ...], str | None]:
        """Where and what: the place, and the finding if there is one."""
        findings = [part for part in reading.parts if part in self._lexicon.findings]
        if len(findings) != 1:
            return reading.parts, None
        return tuple(part for part in reading.parts if part not in findings), findings[0]

    def _by_meaning(self, text: Reading) -> Resolved | None:
        # Sides are compared by themselves: to an encoder, left and right are nearly the same.
        labels: dict[str, list[str]] = {}
        comparable = set()
        for name, readings in self._readings.items():
            phrase = " ".join(readings[0].parts)
            labels.setdefault(phrase, []).append(name)
            if len(readings) == 1 and _may_mean_the_same(text, readings[0]):
                comparable.add(phrase)
        if self._encoder is None or not text.parts or not comparable:
            return None
        phrases = list(filter(None, labels))
        vectors = self._encoder.encode([" ".join(text.parts), *phrases])
        (best, cosine), *others = sorted(
            zip(phrases, (vectors[1:] @ vectors[0]).tolist(), strict=True), key=lambda pair: pair[1], reverse=True
        )
        if best not in comparable or cosine < MIN_MEANING or (others and cosine - others[0][1] < LEAST_MARGIN):
            return None
        same_side = [name for name in labels[best] if self._readings[name][0].sides == text.sides]
        fitting = same_side or ([] if text.sides else labels[best])
        return Resolved(fitting[0], "meaning", cosine) if len(fitting) == 1 else None


def _may_mean_the_same(text: Reading, label: Reading) -> bool:
    """Whether the lexicon leaves open that two readings mean the same.

    It says what the names of its own structures are. To an encoder, "gallstones" are as near to the gallbladder as any
    other name of it, so what the lexicon knows has to be the same in both.
    """
    return bool(label.unknown) and (
        (bool(text.unknown) and text.known == label.known) or not (label.known or text.unknown)
    )


def _as_one_word(text: str) -> str:
    return "".join(map(singular, split_words(text)))
