"""Grammar of a fragment: negations, prepositions, orders, reports and approvals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.mentions import Mention
from causal_sam.notes.schema import Action

PREPOSITIONS = ("into", "near", "beyond", "in", "from", "of", "as", "not", "by")
# Kinds that may stand between a preposition and its name: "in the upper part of".
SKIPPED_KINDS = frozenset(
    {"plain", "word", "edges", "masks", "place", "pieces", "small", "large", "actual", "strength", "both", "all"}
)
# Kinds that end the scope of a negation.
STATEMENT_KINDS = frozenset({"cue", "wanted", "include", "exclude", "delete", "keep", "wrong", "belongs", "taken_for"})
MAX_NOUN_LENGTH = 30  # letters of a word in a name that is in no lexicon


@dataclass(frozen=True)
class Act:
    """An act that a fragment requests.

    Attributes:
        action: kind of the act.
        subjects: structures to correct; none if the fragment names none.
        nears: neighbours.
        unknown_subject: name in the position of the subject that is not a label.
        places: directions or parts; None for all places of the fragment.
        is_weak: whether any other act takes precedence.
        names_owner_only: whether the owner of a part is known, but not the label to take it from.
        neighbour_is_content: whether the neighbours are the true identity of a part of the mask.
    """

    action: Action
    subjects: tuple[Mention, ...] = ()
    nears: tuple[Mention, ...] = ()
    unknown_subject: Mention | None = None
    places: tuple[str, ...] | None = None
    is_weak: bool = False
    names_owner_only: bool = False
    neighbour_is_content: bool = False


def is_negated(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a negation precedes a mark, with no other statement between them."""
    is_after_name = False
    if any(before.kind == "no_more" for before in fragment.before(mark)[-1:]):
        return True
    for before in reversed(fragment.before(mark)):
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


def preposition(fragment: Fragment, name: Mark) -> str:
    """Return the kind of the preposition before a name: one of `PREPOSITIONS`, "place" for "above", or ""."""
    before = fragment.before(name)
    for place, mark in reversed(list(enumerate(before))):
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


def cues(fragment: Fragment, *actions: str) -> list[Mark]:
    """Return the cues of these actions that are not negated, neither before nor after ("holes are not real")."""
    return [
        mark
        for mark in fragment.all("cue")
        if mark.values[0] in actions and not is_negated(fragment, mark)
        if mark.values[0] != "fill" or not is_genuine(fragment, mark)
    ]


def approval_marks(fragment: Fragment) -> list[Mark]:
    """Return the marks that approve of a mask or need no change, but not "would be nice" or "make it perfect"."""
    found = [mark for mark in fragment.all("keep") if not is_negated(fragment, mark)]
    if any(mark.kind == "modal" and "need" in mark.text for mark in fragment.marks):
        found += [m for m in fragment.all("wrong", "keep") if m.is_in("changes") and is_negated(fragment, m)]
    return found


def is_genuine(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a finding is real: "the hole is real", but not "the hole is not real"."""
    after = [each for each in fragment.after(mark) if each.kind != "strength"]
    for verb, following in itertools.pairwise(after):
        if verb.is_in("copulas"):
            return following.is_in("genuine")
    return any(each.is_in("genuine") for each in after[-1:])


def name_marks(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks that are names."""
    return [mark for mark in marks if mark.mention]


def is_order(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a verb is an order: "include", "should include", but not "includes"."""
    before = fragment.before(mark)
    is_requested = bool(before) and before[-1].text == "be" and any(each.kind == "requests" for each in before)
    if is_requested or any(each.kind == "modal" for each in before):
        return True  # "could the dome be included"
    if before and before[-1].is_in("copulas"):
        return False
    is_first = all(each.kind in ("plain", "requests", "strength", "also", "not", "only") for each in before)
    is_first = is_first and not any(each.is_in("persons") for each in before)
    return is_first and not mark.text.split()[0].endswith(("s", "ed", "ing"))


def is_passive(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a verb is passive: "is included", but not "has included"."""
    before = fragment.before(mark)
    is_participle = mark.text.split()[-1].endswith(("ed", "en")) or mark.text.startswith(("caught", "be "))
    words = [*(each.text for each in before[-3:]), mark.text.split()[0]]
    is_perfect = any(word in ("has", "have", "had") for word in words)
    return is_participle and (not is_perfect or any(each.text == "been" for each in before[-3:]))


def is_statement(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a verb is a statement: "does not include", but not "do not include"."""
    return any(each.text in ("does", "did") for each in fragment.before(mark))


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


def marks_before_than(fragment: Fragment) -> Sequence[Mark]:
    """Return the marks before "than"."""
    than = fragment.all("than")
    return fragment.before(than[0]) if than else fragment.marks


def precedes(fragment: Fragment, mark: Mark, kind: str) -> bool:
    """Return whether a mark of a kind follows a mark, with only articles between them."""
    after = [each for each in fragment.after(mark) if each.kind != "plain" and not each.is_in("determiners")]
    return bool(after) and after[0].kind == kind


def is_of_mask(marks: Sequence[Mark]) -> bool:
    """Return whether words refer to the drawn mask, not to the anatomy: "the mask", "where you stop"."""
    if any(mark.kind == "masks" for mark in marks):
        return True
    is_drawn = any(mark.is_in("called") or mark.is_in("drawers") for mark in marks)
    return is_drawn and not any(mark.kind == "actual" for mark in marks)


def is_about_mask(fragment: Fragment, marks: Sequence[Mark]) -> bool:
    """Return whether the subject of a fragment is a mask: "the contour", "the segmented liver"."""
    return any(mark.kind == "masks" or (mark.is_in("called") and is_before_name(fragment, mark)) for mark in marks)


def is_before_name(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a name follows a mark directly."""
    after = [each for each in fragment.after(mark) if not each.is_in("determiners")]
    return bool(after and after[0].mention)


def is_about_all(fragment: Fragment) -> bool:
    """Return whether a fragment is about all labels: "all labels", "everything"."""
    for mark in fragment.all("all"):
        after = fragment.after(mark)
        is_counted = bool(after) and (after[0].kind == "masks" or after[0].is_in("numbers"))
        if mark.text in ("everything", "all labels", "all of them") or is_counted or not after:
            return True
    return False
