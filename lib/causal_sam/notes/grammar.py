"""The grammar of a fragment: negations, prepositions, orders and reports, and what its words say alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.mentions import Mention
from causal_sam.notes.schema import Action
from causal_sam.notes.vocabulary import load_vocabulary

PREPOSITIONS = ("into", "near", "beyond", "in", "from", "of", "as", "not", "by")
# What may stand between a preposition and its name: "in the upper part of".
BETWEEN = frozenset(
    {"plain", "word", "edges", "masks", "place", "pieces", "small", "large", "actual", "strength", "both", "all"}
)
# Between a negation and what it negates nothing else may be said.
SAYS = frozenset({"cue", "wanted", "include", "exclude", "delete", "keep", "wrong", "belongs", "taken_for"})
_SIZES = {"large": "large", "small": "small", "shrink": "large", "expand": "small"}
LONGEST_WORD = 30  # letters of a word in a name that no lexicon knows


@dataclass(frozen=True)
class Act:
    """What a fragment asks for.

    Attributes:
        action: what to do.
        subjects: names of what to do it on; none if the fragment does not say.
        nears: names of neighbours.
        absent: a name in the place of the subject that is no label.
        places: words for where; None for all of the fragment's.
        is_weak: whether it counts only if nothing else is said.
        says_whose: whether it says to what a part belongs, and not yet from what to take it.
        says_what: whether its neighbours are what a part really is.
    """

    action: Action
    subjects: tuple[Mention, ...] = ()
    nears: tuple[Mention, ...] = ()
    absent: Mention | None = None
    places: tuple[str, ...] | None = None
    is_weak: bool = False
    says_whose: bool = False
    says_what: bool = False


def says(mark: Mark, words: str) -> bool:
    """Whether a mark is one of the vocabulary's `sets` of words."""
    return mark.text in load_vocabulary().sets[words]


def is_negated(fragment: Fragment, mark: Mark) -> bool:
    """Whether a negation stands before a mark, with nothing else said between them."""
    is_after_name = False
    if any(before.kind == "no_more" for before in fragment.before(mark)[-1:]):
        return True
    for before in reversed(fragment.before(mark)):
        if before.kind == "denial" or (before.kind == "not_part" and before.text.startswith("no ")):
            return True  # "no part of the liver is missing"
        if before.kind == "not":
            return not (is_after_name and before.text == "not")  # "not the liver is too small"
        is_after_name = before.mention is not None or (is_after_name and before.kind in BETWEEN)
        if mark.values == ("restyle",) and before.kind == "effects":
            return False
        # "do not fill the holes"
        if before.kind in SAYS and before.values != mark.values:
            return False
    return False


def _is_misled(fragment: Fragment) -> bool:
    return fragment.has("effects") and any(each.text in ("do", "should", "must", "let") for each in fragment.marks)


def preposition(fragment: Fragment, name: Mark) -> str:
    """The kind of the preposition before a name: one of `PREPOSITIONS`, "place" for "above", or nothing."""
    before = fragment.before(name)
    for place, mark in reversed(list(enumerate(before))):
        if mark.kind in PREPOSITIONS:
            if says(mark, "neither"):
                return ""  # "neither the liver nor the spleen reaches the diaphragm"
            if mark.text == "to" and place > 0 and before[place - 1].kind == "not":
                return "not"
            is_relative = mark.text == "to" and place > 0 and says(before[place - 1], "relative")
            return "place" if is_relative else mark.kind
        if says(mark, "about_place"):
            return "place"
        if mark.kind not in BETWEEN:
            return ""
    return ""


def is_known(mention: Mention) -> bool:
    """Whether a name is that of a label, or of one of several."""
    return bool(mention.labels or mention.candidates)


def live(fragment: Fragment, *actions: str) -> list[Mark]:
    """Cues of these actions that are not negated, before or after ("holes are not real")."""
    return [
        mark
        for mark in fragment.all("cue")
        if mark.values[0] in actions and (not is_negated(fragment, mark))
        if mark.values[0] != "fill" or not is_genuine(fragment, mark)
    ]


def approvals(fragment: Fragment) -> list[Mark]:
    """Words that say that something is right, or needs no change; not "would be nice" or "make it perfect"."""
    found = [mark for mark in fragment.all("keep") if not is_negated(fragment, mark)]
    if any(mark.kind == "modal" and "need" in mark.text for mark in fragment.marks):
        found += [m for m in fragment.all("wrong", "keep") if says(m, "changes") and is_negated(fragment, m)]
    return found


def is_genuine(fragment: Fragment, mark: Mark) -> bool:
    """Whether what a mark says is right: "the hole is real", but not "the hole is not real"."""
    after = [each for each in fragment.after(mark) if each.kind != "strength"]
    for verb, said in itertools.pairwise(after):
        if says(verb, "copulas"):
            return says(said, "genuine")
    return any(says(each, "genuine") for each in after[-1:])


def names_in(marks: Iterable[Mark]) -> list[Mark]:
    """The names among marks."""
    return [mark for mark in marks if mark.mention]


def is_order(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb says what should be: "include", "should include", but not "includes"."""
    before = fragment.before(mark)
    is_asked = bool(before) and before[-1].text == "be" and any(each.kind == "requests" for each in before)
    if is_asked or any(each.kind == "modal" for each in before):
        return True  # "could the dome be included"
    if before and says(before[-1], "copulas"):
        return False
    is_first = all(each.kind in ("plain", "requests", "strength", "also", "not", "only") for each in before)
    is_first = is_first and not any(says(each, "persons") for each in before)
    return is_first and not mark.text.split()[0].endswith(("s", "ed", "ing"))


def is_passive(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb is about what comes before it: "is included", but not "has included"."""
    before = fragment.before(mark)
    is_participle = mark.text.split()[-1].endswith(("ed", "en")) or mark.text.startswith(("caught", "be "))
    words = [*(each.text for each in before[-3:]), mark.text.split()[0]]
    is_perfect = any(word in ("has", "have", "had") for word in words)
    return is_participle and (not is_perfect or any(each.text == "been" for each in before[-3:]))


def is_statement(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb says what is so: "does not include", but not "do not include"."""
    return any(each.text in ("does", "did") for each in fragment.before(mark))


def free_noun(marks: Sequence[Mark], is_open: bool = False) -> str:
    """A name that no lexicon knows, such as "the falciform ligament": up to three words after an article.

    Args:
        marks: that it begins, after articles and prepositions.
        is_open: whether it needs no article.
    """
    words: list[str] = []
    for mark in marks:
        if mark.text in ("the", "a", "some") or mark.kind in ("of", "pieces", "into", "near"):
            if words:
                break
            is_open = True
        elif is_open and mark.kind == "word" and mark.text.isalpha() and len(mark.text) <= LONGEST_WORD:
            words.append(mark.text)
        else:
            break
    return " ".join(words[:3])


def before_than(fragment: Fragment) -> Sequence[Mark]:
    """The marks that are not only compared with."""
    than = fragment.all("than")
    return fragment.before(than[0]) if than else fragment.marks


def precedes(fragment: Fragment, mark: Mark, kind: str) -> bool:
    """Whether a mark stands before one of a kind, with nothing but articles between."""
    after = [each for each in fragment.after(mark) if each.kind != "plain" and not says(each, "determiners")]
    return bool(after) and after[0].kind == kind


def is_of_mask(marks: Sequence[Mark]) -> bool:
    """Whether words are about what was drawn, and not about what is there: "the mask", "where you stop"."""
    if any(mark.kind == "masks" for mark in marks):
        return True
    is_drawn = any(says(mark, "called") or says(mark, "drawers") for mark in marks)
    return is_drawn and not any(mark.kind == "actual" for mark in marks)


def is_about_mask(fragment: Fragment, marks: Sequence[Mark]) -> bool:
    """Whether the subject of a fragment is a mask: "the contour", "the segmented liver"."""
    return any(mark.kind == "masks" or (says(mark, "called") and is_before_name(fragment, mark)) for mark in marks)


def is_before_name(fragment: Fragment, mark: Mark) -> bool:
    """Whether a name follows a mark at once."""
    after = [each for each in fragment.after(mark) if not says(each, "determiners")]
    return bool(after) and after[0].mention is not None


def is_about_all(fragment: Fragment) -> bool:
    """Tell whether a fragment is about all labels: "all labels", "everything"."""
    for mark in fragment.all("all"):
        after = fragment.after(mark)
        is_counted = bool(after) and (after[0].kind == "masks" or says(after[0], "numbers"))
        if mark.text in ("everything", "all labels", "all of them") or is_counted or not after:
            return True
    return False
