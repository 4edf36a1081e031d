"""What a fragment says of a mask and its neighbours: what it includes, and what it runs into."""

from __future__ import annotations

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import (
    SAYS,
    Act,
    approvals,
    free_noun,
    is_before_name,
    is_known,
    is_negated,
    is_order,
    is_passive,
    is_statement,
    live,
    names_in,
    precedes,
    preposition,
    says,
)
from causal_sam.notes.mentions import Mention


def inclusion(fragment: Fragment) -> Act | None:
    """What a mask includes and should not, or the other way round."""
    found = fragment.all("include")
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
    if not before and after and is_known(after[0].mention) and says(fragment.marks[0], "relatives"):
        return Act("exclude", (after[0].mention,))
    free = "" if before else free_noun(fragment.before(mark))
    near = named[-1].mention if named else Mention(free) if free else None
    if near:
        return Act("exclude", tuple(name.mention for name in after[:1]), (near,))
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


def exclusion(fragment: Fragment) -> Act | None:
    """A neighbour that is to be taken out of a mask."""
    found = [mark for mark in fragment.all("exclude") if not is_negated(fragment, mark)]
    omitted = [mark for mark in fragment.all("exclude") if mark not in found and mark.text in ("excluded", "separated")]
    if omitted and not fragment.has("modal", "requests") and names_in(fragment.before(omitted[0])):
        # "the gallbladder has not been excluded from the liver"
        whose = [name.mention for name in names_in(fragment.after(omitted[0])) if is_known(name.mention)]
        return Act("exclude", tuple(whose[:1]), (names_in(fragment.before(omitted[0]))[-1].mention,))
    # "avoid the rectum"
    found += [mark for mark in fragment.all("not") if mark.text == "avoid" and is_before_name(fragment, mark)]
    if not found:
        return None
    mark = found[0]
    is_due = fragment.has("modal") or "outside" in mark.text
    if mark.text == "left out of" and not is_due:
        return Act("expand")
    if says(mark, "taken_out") and is_due and names_in(fragment.before(mark)):
        near = names_in(fragment.before(mark))[-1].mention
        whose = [name.mention for name in names_in(fragment.after(mark)) if is_known(name.mention)]
        return Act("exclude", tuple(whose[:1]), (near,))
    if approvals(fragment):
        return None  # "is correctly excluded"
    if mark.text == "excluded" and is_passive(fragment, mark) and not names_in(fragment.after(mark)):
        return None if any(each.kind == "modal" for each in fragment.before(mark)) else Act("expand")
    names = names_in(fragment.marks)
    after = names_in(fragment.after(mark))
    if mark.text in ("take", "bring") and fragment.has("mm") and not after:
        return Act("expand")  # "take it out by 3 mm"
    if mark.text in ("give", "gives", "giving") and fragment.has("mm"):
        return Act("expand")  # "give it 2 mm at the top"
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
            mark
            for mark in (*live(fragment, "shrink"), *fragment.all("too"), *[])
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
    # "spleen -> stomach leak" too
    entered = [name for name in (*before, *reached) if preposition(fragment, name) == "into"]
    before = [name for name in before if name not in entered]
    reached = entered or [name for name in reached if preposition(fragment, name) != "from"] or reached
    beside = [name.mention for name in after if name not in own and preposition(fragment, name) in ("near", "place")]
    known = [name for name in before if is_known(name.mention)]
    if before and not known and reached and reached[0].mention.labels:
        # "The stomach leaks into the spleen mask": the mask is the spleen's.
        return Act("exclude", (reached[0].mention,), (before[-1].mention,))
    if says(mark, "painting") and not known and len(reached) > 1 and is_known(reached[0].mention):
        known, reached = reached[:1], reached[1:]  # "painted liver over the gallbladder"
    culprits = [name for name in after if preposition(fragment, name) in ("by", "near")]
    culprits = culprits if mark.text.startswith("contaminat") else []
    if culprits and own:
        return Act("exclude", (own[0].mention,), (culprits[0].mention,))  # "contamination of the liver by the kidney"
    subjects = tuple(name.mention for name in known or own)
    if before and not known and not names_in(fragment.after(mark)) and says(mark, "leak_nouns"):
        return Act("exclude", nears=(before[-1].mention,))  # "stomach leak"
    free = "" if after else _reached(fragment, mark)
    if before and not (known or after) and any(precedes(fragment, each, "masks") for each in fragment.all("into")):
        return Act("exclude", nears=(before[-1].mention,))  # "bowel has leaked into the mask"
    near = tuple(name.mention for name in reached if name.mention not in subjects)
    near = near or ((Mention(free),) if free else ())
    absent = before[0].mention if before and not known else None
    if near or (mark.text.startswith("overlap") and not beside):
        return Act("exclude", subjects, near, absent)
    return Act("shrink", subjects, tuple(beside), absent)


def _is_report(fragment: Fragment, mark: Mark) -> bool:
    """Whether something was taken out of a label that is part of it."""
    before, after = fragment.before(mark), names_in(fragment.after(mark))
    is_past = bool(before) and says(before[-1], "copulas") and not fragment.has("modal", "requests", "not")
    return is_past and bool(names_in(before)) and bool(after) and is_known(after[0].mention)


def _reached(fragment: Fragment, leak: Mark) -> str:
    """A name that no lexicon knows, after a leak "into" or "over" it, or "with" it."""
    after = fragment.after(leak)
    entry = next((each for each in after if each.kind in ("into", "from") or each.text in ("with", "over")), None)
    return free_noun(fragment.after(entry), True) if entry else free_noun(after)


def reaching(fragment: Fragment) -> Act | None:
    """A leak without a known verb: "spleen into the stomach", "the contour jumps into the colon"."""
    is_moved = any(not mark.text.endswith("ed") for mark in fragment.all("move"))  # but "was dragged into"
    if (
        is_moved
        or fragment.has(*SAYS - {"cue", "wanted", "wrong"}, "not", "protect")
        or live(fragment, "expand", "fill", "smooth", "remove", "restyle", "keep_largest")
    ):
        return None
    names = names_in(fragment.marks)
    reached = [name for name in names if preposition(fragment, name) == "into"][:1]
    before = names_in(fragment.before(reached[0])) if reached else names
    known = [name.mention for name in before if is_known(name.mention)]
    if reached and before and not known and reached[0].mention.labels:
        return Act("exclude", (reached[0].mention,), (before[-1].mention,))
    if reached and reached[0].mention not in known:
        return Act("exclude", tuple(known[:1]), (reached[0].mention,))
    # "fat got swept into the mask"
    is_into_mask = any(precedes(fragment, mark, "masks") for mark in fragment.all("into"))
    if is_into_mask and len(before) == 1 and not known:
        return Act("exclude", nears=(before[0].mention,))
    return None
