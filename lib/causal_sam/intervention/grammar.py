"""The grammar of a fragment: negations, prepositions, orders and reports, and what its words say alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causal_sam.intervention.fragments import Fragment, Mark
from causal_sam.intervention.mentions import Mention
from causal_sam.intervention.schema import Action
from causal_sam.intervention.vocabulary import load_vocabulary

PREPOSITIONS = ("into", "near", "beyond", "in", "from", "of", "as", "not")
# What may stand between a preposition and its name: "in the upper part of".
BETWEEN = frozenset(
    {"plain", "word", "edges", "masks", "place", "pieces", "small", "large", "actual", "strength", "both", "all"}
)
# Between a negation and what it negates nothing else may be said.
SAYS = frozenset({"cue", "wanted", "include", "exclude", "delete", "keep", "wrong", "belongs", "taken_for"})
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
    """

    action: Action
    subjects: tuple[Mention, ...] = ()
    nears: tuple[Mention, ...] = ()
    absent: Mention | None = None
    places: tuple[str, ...] | None = None
    is_weak: bool = False
    says_whose: bool = False


def says(mark: Mark, words: str) -> bool:
    """Whether a mark is one of the vocabulary's `sets` of words."""
    return mark.text in load_vocabulary().sets[words]


def is_negated(fragment: Fragment, mark: Mark) -> bool:
    """Whether a negation stands before a mark, with nothing else said between them."""
    is_after_name = False
    for before in reversed(fragment.before(mark)):
        if before.kind == "denial":
            return True
        if before.kind == "not":
            return not (is_after_name and before.text == "not")  # "not the liver is too small"
        is_after_name = before.mention is not None or (is_after_name and before.kind in BETWEEN)
        if before.kind == "effects" and mark.values == ("restyle",):
            return False  # "do not be misled by the streaks"
        # "do not fill the holes"
        if before.kind in SAYS and before.values != mark.values:
            return False
    return False


def preposition(fragment: Fragment, name: Mark) -> str:
    """The kind of the preposition before a name: one of `PREPOSITIONS`, "place" for "above", or nothing."""
    before = fragment.before(name)
    for place, mark in reversed(list(enumerate(before))):
        if mark.kind in PREPOSITIONS:
            if mark.text == "to" and place > 0 and before[place - 1].kind == "not":
                return "not"
            is_relative = mark.text == "to" and place > 0 and says(before[place - 1], "relative")
            return "place" if is_relative else mark.kind
        if says(mark, "about_place"):
            return "place"
        if mark.kind not in BETWEEN:
            return ""
    return ""


def places_of(fragment: Fragment) -> list[tuple[str, ...]]:
    """Words for where, in their order; not those that only say on which side of a neighbour, or what is compared."""
    than = fragment.all("than")
    found: list[tuple[str, ...]] = []
    for mark in fragment.all("place"):
        after = fragment.after(mark)
        following = next((each for each in after if each.kind not in ("plain", "in")), None)
        is_relative = says(mark, "about_place") or (says(mark, "relative") and after and after[0].text == "to")
        is_of_neighbour = is_relative and following and following.mention and not is_known(following.mention)
        if not is_of_neighbour and not (than and mark in fragment.after(than[0])):
            found.append(mark.values)
    return found


def is_known(mention: Mention) -> bool:
    """Whether a name is that of a label, or of one of several."""
    return bool(mention.labels or mention.candidates)


def live(fragment: Fragment, *actions: str) -> list[Mark]:
    """Cues of these actions that are not negated, before or after ("holes are not real")."""
    return [
        mark
        for mark in fragment.all("cue")
        if mark.values[0] in actions and not is_negated(fragment, mark) and not _is_unreal(fragment.after(mark))
    ]


def _is_unreal(marks: Sequence[Mark]) -> bool:
    return any(one.kind == "not" and other.kind == "actual" for one, other in itertools.pairwise(marks))


def names_in(marks: Iterable[Mark]) -> list[Mark]:
    """The names among marks."""
    return [mark for mark in marks if mark.mention]


def is_order(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb says what should be: "include", "should include", but not "includes"."""
    before = fragment.before(mark)
    if any(each.kind == "modal" for each in before):
        return True
    is_first = all(each.kind in ("plain", "requests", "strength", "also", "not", "only") for each in before)
    is_first = is_first and not any(says(each, "persons") for each in before)
    return is_first and not mark.text.split()[0].endswith(("s", "ed", "ing"))


def is_passive(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb is about what comes before it: "is included", but not "has included"."""
    before = fragment.before(mark)
    is_participle = mark.text.split()[-1].endswith(("ed", "en")) or mark.text.startswith(("caught", "be "))
    return is_participle and not any(each.text in ("has", "have", "had") for each in before[-3:])


def is_statement(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb says what is so: "does not include", but not "do not include"."""
    return any(each.text in ("does", "did") for each in fragment.before(mark))


def free_noun(marks: Sequence[Mark]) -> str:
    """A name that no lexicon knows, such as "the falciform ligament": up to three words after an article."""
    words: list[str] = []
    is_open = False
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
