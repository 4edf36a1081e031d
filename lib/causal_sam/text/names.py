"""Resolution of a written name to one of a site's labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rapidfuzz.distance import OSA

from causal_sam.text.encoders import TextEncoder
from causal_sam.text.lexicon import Lexicon, Reading, load_lexicon, singular, split_words
from causal_sam.text.spelling import correct_spelling

MatchType = Literal["exact", "synonym", "spelling", "meaning"]
MAX_TEXT_LENGTH = 100  # characters; longer texts are not names
# Minimum cosine of two names with the same meaning, and minimum margin over any other label.
MIN_COSINE, MIN_MARGIN = 0.85, 0.1
# Separators in a label of alternative structures, such as "prostate/uterus".
_MEMBERS = re.compile(r"\s*[/&+]\s*|\s+(?:and|or)\s+|_and_|_or_")


@dataclass(frozen=True)
class Resolved:
    """A label that a text refers to.

    Attributes:
        label: the site's name of the label.
        how: "exact" if only case, punctuation, spaces or number differ; "synonym" by the lexicon; "spelling" after a
            correction; "meaning" by the text encoder.
        score: 1 for "exact" and "synonym"; otherwise the similarity of the spellings, or the cosine of the vectors.
    """

    label: str
    how: MatchType
    score: float


class LabelNames:
    """Resolves a text to one of the labels of a site.

    A text that fits several labels or none is not resolved. Left and right are never confused.

    Args:
        names: names of the labels.
        encoder: text encoder for names without common words; None disables this step.
        lexicon: lexicon; that of the package by default.
    """

    def __init__(
        self, names: Sequence[str], encoder: TextEncoder | None = None, lexicon: Lexicon | None = None
    ) -> None:
        self.names = tuple(names)
        self._encoder = encoder
        self._lexicon = lexicon or load_lexicon()
        self._readings = {name: self._lexicon.readings(name) for name in self.names}
        self._exact_forms: dict[str, list[str]] = {}
        for name in self.names:
            self._exact_forms.setdefault(_squash(name), []).append(name)
        self._members = {
            name: [reading for part in _MEMBERS.split(name) for reading in self._lexicon.readings(part)]
            for name in self.names
            if _MEMBERS.search(name)
        }
        self._vocabulary = self._lexicon.words.union(*map(split_words, self.names))

    def resolve(self, text: str) -> Resolved | None:
        """Return the label that ``text`` refers to; None if there is none, or it is ambiguous."""
        label = self._exact_match(text)
        if label is not None:
            return Resolved(label, "exact", 1.0)
        if len(text) > MAX_TEXT_LENGTH:
            return None
        readings = self._lexicon.readings(text)
        matches = self._best_matches(readings)
        if matches:
            return Resolved(matches[0], "synonym", 1.0) if self._is_certain(matches, readings) else None
        corrected = correct_spelling(text, self._lexicon, self._vocabulary)
        if corrected is not None:
            label = self._exact_match(corrected)
            readings_of_it = self._lexicon.readings(corrected)
            matches = self._best_matches(readings_of_it) if label is None else [label]
            if matches:
                similarity = OSA.normalized_similarity(" ".join(split_words(text)), corrected)
                certain = self._is_certain(matches, readings_of_it)
                return Resolved(matches[0], "spelling", similarity) if certain else None
        return self._match_by_encoder(readings[0]) if len(readings) == 1 else None

    def candidates(self, text: str) -> tuple[str, ...]:
        """Return the labels that ``text`` may refer to, for a question to the user."""
        resolved = self.resolve(text)
        if resolved is not None:
            return (resolved.label,)
        if len(text) > MAX_TEXT_LENGTH:
            return ()
        readings = self._lexicon.readings(correct_spelling(text, self._lexicon, self._vocabulary) or text)
        matches = self._best_matches(readings) or self._best_matches(
            [replace(reading, sides=frozenset()) for reading in readings]
        )
        if matches:
            return tuple(matches)
        structures = {part for reading in readings for part in reading.known & self._lexicon.structures}
        return tuple(
            name
            for name, own in self._readings.items()
            if any(structures & reading.known for reading in (*own, *self._members.get(name, ())))
        )

    def _exact_match(self, text: str) -> str | None:
        """Return the label that differs only in case, punctuation, number and spaces."""
        if text in self._readings:
            return text
        equal = self._exact_forms.get(_squash(text), [])
        return equal[0] if len(equal) == 1 else None

    def _best_matches(self, readings: Sequence[Reading]) -> list[str]:
        """Return the labels with the best match level over all readings."""
        levels: dict[int, list[str]] = {}
        for name in self.names:
            found = [self._match_level(reading, own) for reading in readings for own in self._readings[name]]
            if all(level is None for level in found):
                members = [
                    self._match_level(reading, own) for reading in readings for own in self._members.get(name, ())
                ]
                found = [3 for level in members if level in (0, 1)]
            level = min((level for level in found if level is not None), default=None)
            if level is not None:
                levels.setdefault(level, []).append(name)
        return levels[min(levels)] if levels else []

    def _is_certain(self, matches: Sequence[str], readings: Sequence[Reading]) -> bool:
        """Return whether one label matches, and not only as a kind of a finding that has others."""
        special = {
            part
            for name in matches
            for own in self._readings[name]
            for part in own.parts
            if part not in self._lexicon.broad_findings
        }
        findings = {self._place_and_finding(reading)[1] for reading in readings}
        return len(matches) == 1 and not any(
            findings.intersection(self._lexicon.broader_terms(part)) for part in special
        )

    def _match_level(self, text: Reading, label: Reading) -> int | None:
        """Return the match level of a label by the lexicon; None for no match.

        0 means equal, 1 equal except for a side that the text omits, 2 a broader term for a finding at the same place,
        3 a finding whose kind or place is given by only one of the two.
        """
        if not text.parts:
            return None
        (place, finding), (own_place, own_finding) = self._place_and_finding(text), self._place_and_finding(label)
        is_same_place = self._lexicon.is_same(place, own_place)
        is_side_open = not text.sides and len(label.sides) == 1
        if is_same_place and finding == own_finding and (text.sides == label.sides or is_side_open):
            return 0 if text.sides == label.sides else 1
        if finding is None or own_finding is None:
            return None
        is_wider = own_finding in self._lexicon.broader_terms(finding)
        is_narrower = finding in self._lexicon.broader_terms(own_finding)
        if not (is_wider or is_narrower or finding == own_finding):
            return None
        if is_same_place and (text.sides == label.sides or is_side_open):
            return 2 if place and is_wider else 3
        is_placed_by_one = (not own_place and not label.sides) or (not place and not text.sides)
        return 3 if is_placed_by_one and self._lexicon.structures.issuperset((*place, *own_place)) else None

    def _place_and_finding(self, reading: Reading) -> tuple[tuple[str, ...], str | None]:
        """Split a reading into the place and the finding, if there is one."""
        findings = [part for part in reading.parts if part in self._lexicon.findings]
        if len(findings) != 1:
            return reading.parts, None
        return tuple(part for part in reading.parts if part not in findings), findings[0]

    def _match_by_encoder(self, text: Reading) -> Resolved | None:
        # Sides are compared separately, since an encoder hardly distinguishes left and right.
        labels: dict[str, list[str]] = {}
        comparable = set()
        for name, readings in self._readings.items():
            phrase = " ".join(readings[0].parts)
            labels.setdefault(phrase, []).append(name)
            if len(readings) == 1 and _encoder_may_decide(text, readings[0]):
                comparable.add(phrase)
        if self._encoder is None or not text.parts or not comparable:
            return None
        phrases = list(filter(None, labels))
        vectors = self._encoder.encode([" ".join(text.parts), *phrases])
        (best, cosine), *others = sorted(
            zip(phrases, (vectors[1:] @ vectors[0]).tolist(), strict=True), key=lambda pair: pair[1], reverse=True
        )
        if best not in comparable or cosine < MIN_COSINE or (others and cosine - others[0][1] < MIN_MARGIN):
            return None
        same_side = [name for name in labels[best] if self._readings[name][0].sides == text.sides]
        matches = same_side or ([] if text.sides else labels[best])
        return Resolved(matches[0], "meaning", cosine) if len(matches) == 1 else None


def _encoder_may_decide(text: Reading, label: Reading) -> bool:
    """Return whether the text encoder may decide if two readings have the same meaning.

    Known parts must be equal in both, since an encoder places "gallstones" as near to the gallbladder as another name
    of it.
    """
    return bool(label.unknown) and (
        (bool(text.unknown) and text.known == label.known) or not (label.known or text.unknown)
    )


def _squash(text: str) -> str:
    return "".join(map(singular, split_words(text)))
