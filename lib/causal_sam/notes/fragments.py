"""Fragments of a note and their grammar: negations, prepositions, orders, reports and approvals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causal_sam.notes.mentions import NO_NAME, Mention
from causal_sam.notes.tokens import OpenRange, Ranges
from causal_sam.notes.vocabulary import load_vocabulary

PREPOSITIONS = ("into", "near", "beyond", "in", "from", "of", "as", "not", "by")
# Kinds that may stand between a preposition and its name: "in the upper part of".
SKIPPED_KINDS = frozenset(
    {
        "plain",
        "word",
        "edges",
        "masks",
        "place",
        "pieces",
        "small",
        "large",
        "actual",
        "strength",
        "both",
        "all",
        "asks",
    }
)
# Kinds that end the scope of a negation.
STATEMENT_KINDS = frozenset({"cue", "wanted", "include", "exclude", "delete", "keep", "wrong", "belongs", "taken_for"})
MAX_NOUN_LENGTH = 30  # letters of a word in a name that is in no lexicon


@dataclass(frozen=True)
class Mark:
    """A word or phrase of a note.

    Attributes:
        kind: section of the vocabulary, or "name", "mm", "slices", "open slices", "word", "plain", "join", "comma".
        text: the words in lower case, with corrected spelling.
        values: subsection of the vocabulary, such as the action of a cue.
        mention: structure that a name refers to.
        mm: length in mm.
        slices: first and last slice of each range.
        open_range: range without a first or last slice.
        count: number of slices; negative for the last ones.
    """

    kind: str
    text: str
    values: tuple[str, ...] = ()
    mention: Mention = NO_NAME
    mm: float = 0.0
    slices: Ranges = ()
    open_range: OpenRange = (None, None)
    count: int = 0

    def is_in(self, words: str) -> bool:
        """Return whether the text is in one of the vocabulary's `sets` of words."""
        return self.text in load_vocabulary().sets[words]


@dataclass(frozen=True)
class Fragment:
    """Part of a sentence between commas and conjunctions.

    Attributes:
        marks: words and phrases in their order.
        sentence: index of the sentence.
        join: the conjunction, "," or ":" before the fragment, or an empty string.
        asks: whether the sentence ends in a question mark.
    """

    marks: tuple[Mark, ...]
    sentence: int
    join: str = ""
    asks: bool = False

    def all(self, *kinds: str) -> list[Mark]:
        """Return the marks of these kinds."""
        return [mark for mark in self.marks if mark.kind in kinds]

    def has(self, *kinds: str) -> bool:
        """Return whether there is a mark of one of these kinds."""
        return any(mark.kind in kinds for mark in self.marks)

    def has_word(self, words: str) -> bool:
        """Return whether a mark is in one of the vocabulary's `sets` of words."""
        return any(mark.is_in(words) for mark in self.marks)

    def index(self, mark: Mark) -> int:
        """Return the index of a mark of this fragment."""
        return next(place for place, own in enumerate(self.marks) if own is mark)

    def before(self, mark: Mark) -> tuple[Mark, ...]:
        """Return the marks before a mark."""
        return self.marks[: self.index(mark)]

    def after(self, mark: Mark) -> tuple[Mark, ...]:
        """Return the marks after a mark."""
        return self.marks[self.index(mark) + 1 :]

    @property
    def names(self) -> list[Mark]:
        """The marks that are names."""
        return name_marks(self.marks)

    def names_before(self, mark: Mark) -> list[Mark]:
        """Return the names before a mark."""
        return name_marks(self.before(mark))

    def names_after(self, mark: Mark) -> list[Mark]:
        """Return the names after a mark."""
        return name_marks(self.after(mark))

    def is_negated(self, mark: Mark) -> bool:
        """Return whether a negation precedes a mark, with no other statement between them."""
        is_after_name = False
        if any(before.kind == "no_more" for before in self.before(mark)[-1:]):
            return True
        for before in reversed(self.before(mark)):
            if before.kind == "denial" or (before.kind == "not_part" and before.text.startswith("no ")):
                return True  # "no part of the liver is missing"
            if before.kind == "not":
                return not (is_after_name and before.text == "not")  # "not the liver is too small"
            is_after_name = bool(before.mention) or (is_after_name and before.kind in SKIPPED_KINDS)
            if mark.values == ("restyle",) and before.kind == "effects":
                return False
            # "do not fill the holes"
            if before.kind in STATEMENT_KINDS and before.values != mark.values:
                return False
        return False

    def preposition(self, name: Mark) -> str:
        """Return the kind of the preposition before a name: one of `PREPOSITIONS`, "place" for "above", or ""."""
        before = self.before(name)
        for place, mark in reversed(list(enumerate(before))):
            if (mark.kind == "cue" and mark.text.endswith((" of", " before"))) or mark.is_in("reaching"):
                return "place"  # "2 cm short of the cava"
            if mark.kind in PREPOSITIONS:
                if mark.is_in("neither"):
                    return ""  # "neither the liver nor the spleen reaches the diaphragm"
                if mark.text == "to" and place > 0 and before[place - 1].kind == "not":
                    return "not"
                is_relative = mark.text == "to" and place > 0 and before[place - 1].is_in("relative")
                return "place" if is_relative else mark.kind
            if mark.is_in("about_place"):
                return "place"
            if mark.kind not in SKIPPED_KINDS:
                return ""
        return ""

    def cues(self, *actions: str) -> list[Mark]:
        """Return the cues of these actions that are not negated, neither before nor after ("holes are not real")."""
        return [
            mark
            for mark in self.all("cue")
            if mark.values[0] in actions and not self.is_negated(mark)
            if mark.values[0] != "fill" or not self.is_genuine(mark)
        ]

    def cues_of(self, action: str) -> list[Mark]:
        """Return the cues of an action, negated or not."""
        return [mark for mark in self.all("cue") if mark.values[0] == action]

    def approvals(self) -> list[Mark]:
        """Return the marks that approve of a mask or need no change, but not "would be nice" or "make it perfect"."""
        found = [mark for mark in self.all("keep") if not self.is_negated(mark)]
        if any(mark.kind == "modal" and "need" in mark.text for mark in self.marks):
            found += [m for m in self.all("wrong", "keep") if m.is_in("changes") and self.is_negated(m)]
        return found

    def is_genuine(self, mark: Mark) -> bool:
        """Return whether a finding is real: "the hole is real", but not "the hole is not real"."""
        after = [each for each in self.after(mark) if each.kind != "strength"]
        for verb, following in itertools.pairwise(after):
            if verb.is_in("copulas"):
                return following.is_in("genuine")
        return any(each.is_in("genuine") for each in after[-1:])

    def is_order(self, mark: Mark) -> bool:
        """Return whether a verb is an order: "include", "should include", but not "includes"."""
        before = self.before(mark)
        is_requested = bool(before) and before[-1].text == "be" and any(each.kind == "requests" for each in before)
        if is_requested or any(each.kind == "modal" for each in before):
            return True  # "could the dome be included"
        if before and before[-1].is_in("copulas"):
            return False
        is_first = all(each.kind in ("plain", "requests", "strength", "also", "not", "only") for each in before)
        is_first = is_first and not any(each.is_in("persons") for each in before)
        return is_first and not mark.text.split()[0].endswith(("s", "ed", "ing"))

    def is_passive(self, mark: Mark) -> bool:
        """Return whether a verb is passive: "is included", but not "has included"."""
        before = self.before(mark)
        is_participle = mark.text.split()[-1].endswith(("ed", "en")) or mark.text.startswith(("caught", "be "))
        words = [*(each.text for each in before[-3:]), mark.text.split()[0]]
        is_perfect = any(word in ("has", "have", "had") for word in words)
        return is_participle and (not is_perfect or any(each.text == "been" for each in before[-3:]))

    def is_statement(self, mark: Mark) -> bool:
        """Return whether a verb is a statement: "does not include", but not "do not include"."""
        return any(each.text in ("does", "did") for each in self.before(mark))

    def marks_before_than(self) -> Sequence[Mark]:
        """Return the marks before "than"."""
        than = self.all("than")
        return self.before(than[0]) if than else self.marks

    def precedes(self, mark: Mark, kind: str) -> bool:
        """Return whether a mark of a kind follows a mark, with only articles between them."""
        after = [each for each in self.after(mark) if each.kind != "plain" and not each.is_in("determiners")]
        return bool(after) and after[0].kind == kind

    def is_about_mask(self, marks: Sequence[Mark]) -> bool:
        """Return whether the subject of a fragment is a mask: "the contour", "the segmented liver"."""
        return any(mark.kind == "masks" or (mark.is_in("called") and self.is_before_name(mark)) for mark in marks)

    def is_before_name(self, mark: Mark) -> bool:
        """Return whether a name follows a mark directly."""
        after = [each for each in self.after(mark) if not each.is_in("determiners")]
        return bool(after and after[0].mention)

    def is_about_all(self) -> bool:
        """Return whether a fragment is about all labels: "all labels", "everything"."""
        for mark in self.all("all"):
            after = self.after(mark)
            is_counted = bool(after) and (after[0].kind == "masks" or after[0].is_in("numbers"))
            if mark.text in ("everything", "all labels", "all of them") or is_counted or not after:
                return True
        return self._excepts_label()

    def _excepts_label(self) -> bool:
        """Return whether a fragment is about all labels but one: "everything but the liver", not "all but its tip"."""
        for mark in self.all("except"):
            after = [each for each in self.after(mark) if each.kind != "plain"]
            if mark.text.startswith(("everything ", "all ")) and after and after[0].mention:
                return True
        return False

    def protects(self) -> bool:
        """Return whether the fragment forbids changes: "do not touch", "hands off"."""
        for mark in self.all("protect"):
            if any(cue.values[0] == "restyle" for cue in self.all("cue")):
                return False
            if mark.text not in ("touch", "touches", "touched", "touching") or self.is_negated(mark):
                return True
        return False

    def spares(self) -> list[Mark]:
        """Return the labels that other acts must spare: "stay out of the cord", "but not into the cord"."""
        names = [mark for mark in self.names if mark.mention.is_label]
        if len(names) != len(self.names) or self.has("pieces", "masks", "wrong", "include"):
            return []
        orders = [mark for mark in (*self.all("exclude"), *self.all("not")) if mark.is_in("sparing")]
        leaks = [mark for mark in self.cues_of("leak") if self.is_negated(mark) and not self.is_statement(mark)]
        if orders or leaks:
            verb = (orders or leaks)[0]
            return names if not self.names_before(verb) else []
        is_only_negated = all(mark.kind in ("not", "into", "plain", "name", "it") for mark in self.marks)
        return [name for name in names if is_only_negated and self.has("into") and self.has("not")]

    def refuses(self) -> bool:
        """Return whether the fragment denies any act: "kidneys: nothing", "but the vessel no", or only says "keep"."""
        words = [mark for mark in self.marks if mark.kind not in ("plain", "name", "it")]
        if [mark.text for mark in words] == ["keep"]:
            return True
        is_denial = bool(words) and self.marks[-1].kind == "not" and all(mark.kind == "not" for mark in words)
        is_report = any(mark.is_in("copulas") or mark.text in ("has", "have", "had", "without") for mark in self.marks)
        return is_denial and not is_report

    def has_only_names(self) -> bool:
        """Return whether the fragment only continues a list of names."""
        return self.has("name") and all(mark.kind in ("name", "plain", "protect", "place") for mark in self.marks)

    def repeats_statement(self) -> bool:
        """Return whether the fragment repeats a statement for another name: "right lung too", "L lung also"."""
        marks = [mark for mark in self.marks if mark.kind != "plain"]
        return len(marks) == 2 and marks[0].kind == "name" and (marks[1].kind == "also" or marks[1].text == "too")

    def is_about_past(self) -> bool:
        """Return whether the fragment describes an earlier time: "was too small before"."""
        if self.has("modal", "requests", "than"):
            return False
        is_before = self.marks[-1].text == "before" and any(mark.text in ("was", "were") for mark in self.marks)
        return is_before or self.has_word("formerly")

    def is_denial(self) -> bool:
        """Return whether a sentence begins as in "does not include", which is no question without a subject."""
        kinds = [mark.kind for mark in self.marks if mark.kind != "plain"]
        return kinds[:2] == ["asks", "not"]


def name_marks(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks that are names."""
    return [mark for mark in marks if mark.mention]


def unlisted_noun(marks: Sequence[Mark], is_open: bool = False) -> str:
    """Return a name that is in no lexicon, such as "the falciform ligament": up to three words after an article.

    Args:
        marks: marks that begin with the name, after articles and prepositions.
        is_open: whether the name needs no article.
    """
    words: list[str] = []
    for mark in marks:
        if mark.text in ("the", "a", "some") or mark.kind in ("of", "pieces", "into", "near"):
            if words:
                break
            is_open = True
        elif is_open and mark.kind == "word" and mark.text.isalpha() and len(mark.text) <= MAX_NOUN_LENGTH:
            words.append(mark.text)
        else:
            break
    return " ".join(words[:3])


def is_of_mask(marks: Sequence[Mark]) -> bool:
    """Return whether words refer to the drawn mask, not to the anatomy: "the mask", "where you stop"."""
    if any(mark.kind == "masks" for mark in marks):
        return True
    is_drawn = any(mark.is_in("called") or mark.is_in("drawers") for mark in marks)
    return is_drawn and not any(mark.kind == "actual" for mark in marks)
