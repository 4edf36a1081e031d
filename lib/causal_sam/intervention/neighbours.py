"""What a fragment says of a mask and its neighbours: leaks, inclusions, and parts that are something else."""

from __future__ import annotations

from collections.abc import Sequence

from causal_sam.intervention.fragments import Fragment, Mark
from causal_sam.intervention.grammar import (
    BETWEEN,
    SAYS,
    Act,
    free_noun,
    is_known,
    is_negated,
    is_order,
    is_passive,
    is_statement,
    live,
    names_in,
    preposition,
    says,
)
from causal_sam.intervention.mentions import Mention
from causal_sam.intervention.schema import Action


def identity(fragment: Fragment) -> Act | None:
    """What is said to be something else: "belongs to the stomach", "bowel labelled as bladder", "colon, not kidney"."""
    names = names_in(fragment.marks)
    is_spot = any(says(mark, "spots") for mark in fragment.all("pieces"))
    action: Action = "remove" if is_spot or live(fragment, "remove") else "exclude"
    said = [mark for mark in fragment.all("belongs") if _follows(fragment, mark)] or _said_to_be(fragment)
    denied = [*fragment.all("not_part"), *(mark for mark in said if is_negated(fragment, mark))]
    taken = _taken(fragment, said)
    inside = _inside(fragment, names)
    if inside is not None:
        return inside
    if taken:
        return _mistaken(fragment, action, taken[0], said)
    if denied:
        wrong, right = names_in(fragment.after(denied[0]))[:1], names_in(fragment.before(denied[0]))[-1:]
        return _given_back(action, right, wrong) or _not_part(fragment, wrong)
    said_not = [mark for mark in names if preposition(fragment, mark) == "not"]
    others = [mark for mark in names if mark not in said_not]
    if said and others:
        right = [mark for mark in others if mark in fragment.after(said[0])][:1]
        wrong = said_not or [mark for mark in others if mark not in right][:1]
        if right and not wrong and is_known(right[0].mention) and "belong" in said[0].text:
            return Act("expand", (right[0].mention,), says_whose=True)
        return _given_back(action, right, wrong)
    says_more = live(fragment, "expand", "shrink", "leak", "fill", "smooth")
    if not said_not or says_more or fragment.has("include", "exclude", "protect"):
        return None
    if others and _is_bare(fragment, others[-1]):
        return _given_back(action, others[-1:], said_not)
    return _not_part(fragment, said_not, others)


def _taken(fragment: Fragment, said: Sequence[Mark]) -> list[Mark]:
    """Words between what something is and what it was taken for."""
    taken = [mark for mark in fragment.all("taken_for") if not is_negated(fragment, mark)]
    is_in = [mark for mark in fragment.all("include") if is_passive(fragment, mark) and not is_negated(fragment, mark)]
    # "is part of the liver mask", where it should not be
    is_in += [mark for mark in said if "part" in mark.text and fragment.has("masks") and mark.text != "be part of"]
    # "labelled the pancreas as duodenum"
    renamed = [] if fragment.has("keep", "protect") else fragment.all("as")
    renamed = [mark for mark in renamed if names_in(fragment.before(mark))]
    return taken + [mark for mark in (*is_in, *renamed) if names_in(fragment.after(mark))]


def _mistaken(fragment: Fragment, action: Action, at: Mark, said: Sequence[Mark]) -> Act | None:
    wrong = names_in(fragment.after(at))[:1]
    right = [mark for mark in names_in(fragment.after(said[0])) if mark not in wrong] if said else []
    right = right or names_in(fragment.before(at))[-1:]
    if wrong and right and is_order(fragment, at):
        return Act("expand", (wrong[0].mention,), (right[0].mention,))  # "should be included in"
    if wrong and right and not is_known(wrong[0].mention) and is_known(right[0].mention):
        return Act("expand", (right[0].mention,), (wrong[0].mention,))
    return _given_back(action, right, wrong)


def _inside(fragment: Fragment, names: Sequence[Mark]) -> Act | None:
    """What is said to be in a mask where it should not be: "fat is in the heart mask"."""
    if len(names) != 2 or fragment.has(*SAYS - {"wanted", "wrong"}) or not fragment.has("masks"):
        return None
    (first, second), is_due = names, fragment.has("requests", "modal")
    is_in = preposition(fragment, second) == "in" and is_known(second.mention)
    is_first = not is_known(first.mention) or first.mention != second.mention
    is_denied = any(mark.kind == "not" for mark in fragment.before(second))
    return _given_back("exclude", [first], [second]) if is_in and is_first and is_denied == is_due else None


def _said_to_be(fragment: Fragment) -> list[Mark]:
    """The "is" of "that part is colon", where nothing else is said."""
    if not fragment.has("it", "pieces", "one", "place") and not live(fragment, "remove"):
        return []
    if fragment.has("include", "wanted", "keep", "wrong") or live(
        fragment, "expand", "shrink", "leak", "fill", "smooth"
    ):
        return []
    return [
        mark
        for mark in fragment.marks
        if says(mark, "copulas") and _follows(fragment, mark) and not _is_denied(fragment, mark)
    ][-1:]


def _is_denied(fragment: Fragment, mark: Mark) -> bool:
    """Whether "not" comes before the next name."""
    after = next(each for each in fragment.after(mark) if each.mention or each.kind == "not")
    return after.kind == "not"


def _follows(fragment: Fragment, belongs: Mark) -> bool:
    """Whether "that is" or "belongs to" is followed by a name, before anything else is said."""
    for mark in fragment.after(belongs):
        if mark.mention:
            return True
        if mark.kind not in BETWEEN - {"strength", "place"} | {"not", "of", "belongs"}:
            return False
    return False


def _is_bare(fragment: Fragment, name: Mark) -> bool:
    """Whether a name is what "not" is set against: "colon, not kidney", "along the rib instead of the liver"."""
    is_instead = any(mark.text in ("instead of", "rather than") for mark in fragment.all("not"))
    return is_instead or preposition(fragment, name) == ""


def _given_back(action: Action, right: Sequence[Mark], wrong: Sequence[Mark]) -> Act | None:
    """Give a part back to what it really is, from what it was taken for."""
    if not right or (wrong and right[0].mention == wrong[0].mention):
        return None
    return Act(action, tuple(mark.mention for mark in wrong[:1]), (right[0].mention,))


def _not_part(fragment: Fragment, wrong: Sequence[Mark], others: Sequence[Mark] = ()) -> Act | None:
    """A piece that does not belong to the mask, whatever it is."""
    pieces = fragment.all("pieces")
    if not wrong or not (pieces or fragment.has("it", "one") or live(fragment, "remove")):
        return None
    nears = tuple(mark.mention for mark in others)
    is_large = bool(pieces) and says(pieces[0], "large_pieces") and not live(fragment, "remove")
    action: Action = "remove" if not is_large else "exclude" if nears else "shrink"
    if not pieces and not live(fragment, "remove"):
        action = "exclude"  # "this is not liver": what it is may follow
    return Act(action, (wrong[0].mention,), nears)


def inclusion(fragment: Fragment) -> Act | None:
    """What a mask includes and should not, or the other way round."""
    found = fragment.all("include") or _covering(fragment)
    if not found:
        return None
    if is_passive(fragment, found[0]):
        return _included(fragment, found[0])
    return _including(fragment, found[0])


def _included(fragment: Fragment, mark: Mark) -> Act | None:
    """As in "the tail is not included", "the gallbladder should not be included in the liver"."""
    is_due = is_order(fragment, mark)
    if is_negated(fragment, mark) != is_due:
        return Act("expand")
    before, after = names_in(fragment.before(mark)), names_in(fragment.after(mark))
    named = [name for name in before if not name.mention.labels] or (before if is_due else [])
    if named:
        return Act("exclude", tuple(name.mention for name in after[:1]), (named[-1].mention,))
    return Act("shrink") if is_due and fragment.has("place", "edges") else None


def _including(fragment: Fragment, mark: Mark) -> Act | None:
    """As in "includes part of the stomach", "include the dome", "does not include the tail"."""
    is_due = is_order(fragment, mark)
    before, after = names_in(fragment.before(mark)), names_in(fragment.after(mark))
    subjects = tuple(name.mention for name in before if is_known(name.mention))
    others = [name for name in after if name.mention not in subjects]
    others = [name for name in others if preposition(fragment, name) in ("", "of", "not")]
    # "include the dome of the liver" is about the liver, "includes part of the stomach" about what is no label.
    has_place = fragment.has("place", "edges")
    is_own = has_place and not subjects and not mark.text.endswith("s")
    objects = [name.mention for name in others if not (is_own and is_known(name.mention))]
    free = "" if objects else free_noun(fragment.after(mark))
    near = tuple(objects[:1]) or ((Mention(free),) if free else ())
    if is_negated(fragment, mark):
        is_due = is_due or not (before or fragment.has("masks"))
        is_forbidden = is_due and not is_statement(fragment, mark)
        if near:
            return Act("exclude" if is_forbidden else "expand", subjects, near)
        return Act("shrink" if is_forbidden and has_place else "expand", subjects)
    if is_due:
        return Act("expand", subjects, near) if near or has_place or others else None
    if near:
        return Act("exclude", subjects, near)
    return Act("shrink", subjects) if fragment.has("surroundings", "too") or live(fragment, "shrink") else None


def _covering(fragment: Fragment) -> list[Mark]:
    """The verb of "covers the stomach", where the stomach is no label."""
    return [
        mark
        for mark in fragment.all("wanted")
        if mark.text in ("covers", "captures", "picks up")
        and not (fragment.has("only") or is_negated(fragment, mark))
        and any(not is_known(name.mention) for name in names_in(fragment.after(mark)))
    ]


def exclusion(fragment: Fragment) -> Act | None:
    """A neighbour that is to be taken out of a mask."""
    found = [mark for mark in fragment.all("exclude") if not is_negated(fragment, mark)]
    if not found:
        return None
    mark = found[0]
    if mark.text == "excluded" and fragment.has("modal") and names_in(fragment.before(mark)):
        near = names_in(fragment.before(mark))[-1].mention
        whose = [name.mention for name in names_in(fragment.after(mark)) if is_known(name.mention)]
        return Act("exclude", tuple(whose[:1]), (near,))
    if fragment.has("keep"):
        return None  # "is correctly excluded"
    if mark.text == "excluded" and is_passive(fragment, mark) and not names_in(fragment.after(mark)):
        return None if any(each.kind == "modal" for each in fragment.before(mark)) else Act("expand")
    names = names_in(fragment.marks)
    after = names_in(fragment.after(mark))
    if mark.text == "excludes":
        return Act("expand")
    origin = [name for name in names if preposition(fragment, name) in ("from", "of") and is_known(name.mention)]
    before = [name for name in names_in(fragment.before(mark)) if is_known(name.mention)]
    objects = [name for name in after if name not in origin]
    if origin and objects and says(mark, "symmetric") and is_known(objects[0].mention):
        return Act("exclude")  # which of the two is too large, nobody said
    if not objects and len(after) == 1 and (before or fragment.has("masks") or not after[0].mention.labels):
        objects, origin = after, []
    if not objects and fragment.has("it") and origin:
        return Act("exclude", tuple(name.mention for name in origin))
    if not objects:
        has_piece = fragment.has("pieces") and fragment.has("place")
        return Act("shrink", tuple(name.mention for name in origin)) if has_piece else None
    subjects = tuple(name.mention for name in (origin or before)[:1])
    return Act("exclude", subjects, tuple(name.mention for name in objects))


def leak(fragment: Fragment) -> Act | None:
    """What a mask runs into, or that it runs out of its border."""
    forbidden = [mark for mark in fragment.all("cue") if mark.values[0] == "leak" and fragment.has("modal")]
    found = (
        live(fragment, "leak")
        or forbidden
        or [
            # "extends too far into the stomach", "oversegmented into the stomach"
            mark
            for mark in (*live(fragment, "shrink"), *fragment.all("too"))
            if any(each.kind == "into" and names_in(fragment.after(each)) for each in fragment.after(mark))
        ]
    )
    if not found:
        return None
    mark = found[0]
    before = [name for name in names_in(fragment.before(mark)) if preposition(fragment, name) != "near"]
    after = names_in(fragment.after(mark))
    own = [name for name in after if preposition(fragment, name) in ("of", "from") and is_known(name.mention)]
    reached = [name for name in after if name not in own and preposition(fragment, name) not in ("near", "place")]
    # "across the diaphragm into the lung"
    reached = [name for name in reached if preposition(fragment, name) != "from"] or reached
    beside = [name.mention for name in after if name not in own and preposition(fragment, name) in ("near", "place")]
    known = [name for name in before if is_known(name.mention)]
    if before and not known and reached and reached[0].mention.labels:
        # "The stomach leaks into the spleen mask": the mask is the spleen's.
        return Act("exclude", (reached[0].mention,), (before[-1].mention,))
    subjects = tuple(name.mention for name in known or own)
    if before and not known and not fragment.after(mark) and says(mark, "leak_nouns"):
        return Act("exclude", nears=(before[-1].mention,))  # "stomach leak"
    is_into = mark.text.endswith(("into", "with")) or any(each.kind == "into" for each in fragment.after(mark))
    free = free_noun(fragment.after(mark)) if is_into and not after else ""
    near = tuple(name.mention for name in reached if name.mention not in subjects)
    near = near or ((Mention(free),) if free else ())
    absent = before[0].mention if before and not known else None
    if near:
        return Act("exclude", subjects, near, absent)
    return Act("shrink", subjects, tuple(beside), absent)


def reaching(fragment: Fragment) -> Act | None:
    """A leak without a verb: "spleen into the stomach"."""
    names = names_in(fragment.marks)
    if len(names) != 2 or fragment.has(*SAYS, "not", "move") or not is_known(names[0].mention):
        return None
    is_into = preposition(fragment, names[1]) == "into" and names[0].mention != names[1].mention
    return Act("exclude", (names[0].mention,), (names[1].mention,)) if is_into else None
