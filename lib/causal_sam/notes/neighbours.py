"""Rules for fragments about a mask and its neighbours: inclusion, exclusion and leaks."""

from __future__ import annotations

from causal_sam.notes.drafts import Act
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment, Mark, unlisted_noun
from causal_sam.notes.mentions import Mention


def inclusion_act(fragment: Fragment) -> Act | None:
    """Read what a mask wrongly includes or lacks."""
    found = fragment.all("include")
    if not found:
        return None
    if fragment.is_passive(found[0]):
        return _included(fragment, found[0])
    return _including(fragment, found[0])


def _included(fragment: Fragment, mark: Mark) -> Act | None:
    """Read a passive form: "the tail is not included", "the gallbladder should not be included in the liver"."""
    is_due = fragment.is_order(mark)
    if fragment.is_negated(mark) != is_due:
        return Act("expand")
    before, after = fragment.names_before(mark), fragment.names_after(mark)
    named = [name for name in before if not name.mention.labels] or (before if is_due else [])
    if not before and after and after[0].mention.is_label and fragment.marks[0].is_in("relatives"):
        return Act("exclude", (after[0].mention,))
    free = "" if before else unlisted_noun(fragment.before(mark))
    near = named[-1].mention if named else Mention(free) if free else None
    if near:
        return Act("exclude", tuple(name.mention for name in after[:1]), (near,))
    return Act("shrink") if is_due and fragment.has("place", "edges") else None


def _including(fragment: Fragment, mark: Mark) -> Act | None:
    """Read an active form: "includes part of the stomach", "include the dome", "does not include the tail"."""
    is_due = fragment.is_order(mark)
    before, after = fragment.names_before(mark), fragment.names_after(mark)
    subjects = tuple(name.mention for name in before if name.mention.is_label)
    others = [name for name in after if name.mention not in subjects]
    others = [name for name in others if fragment.preposition(name) in ("", "of", "not")]
    # "include the dome of the liver" names the subject, "includes part of the stomach" the neighbour.
    has_place = fragment.has("place", "edges")
    is_own = has_place and not subjects and not mark.text.endswith("s")
    objects = [name.mention for name in others if not (is_own and name.mention.is_label)]
    free = "" if objects else unlisted_noun(fragment.after(mark))
    near = tuple(objects[:1]) or ((Mention(free),) if free else ())
    if fragment.is_negated(mark):
        is_due = is_due or not (before or fragment.has("masks"))
        is_forbidden = is_due and not fragment.is_statement(mark)
        if near:
            return Act("exclude" if is_forbidden else "expand", subjects, near)
        return Act("shrink" if is_forbidden and has_place else "expand", subjects)
    if is_due:
        return Act("expand", subjects, near) if near or has_place or others else None
    if near:
        return Act("exclude", subjects, near)
    return Act("shrink", subjects) if fragment.has("surroundings", "too") or fragment.cues("shrink") else None


def exclusion_act(fragment: Fragment) -> Act | None:
    """Read an order to exclude a neighbour from a mask."""
    found = [mark for mark in fragment.all("exclude") if not fragment.is_negated(mark)]
    omitted = [mark for mark in fragment.all("exclude") if mark not in found and mark.text in ("excluded", "separated")]
    if omitted and not fragment.has("modal", "requests") and fragment.names_before(omitted[0]):
        # "the gallbladder has not been excluded from the liver"
        owners = [name.mention for name in fragment.names_after(omitted[0]) if name.mention.is_label]
        return Act("exclude", tuple(owners[:1]), (fragment.names_before(omitted[0])[-1].mention,))
    # "avoid the rectum"
    found += [mark for mark in fragment.all("not") if mark.text == "avoid" and fragment.is_before_name(mark)]
    if not found or fragment.cues("fill"):
        return None  # "vessels punched out as holes"
    mark = found[0]
    is_due = fragment.has("modal") or "outside" in mark.text
    if mark.text == "left out of" and not is_due:
        return Act("expand")
    if mark.is_in("taken_out") and is_due and fragment.names_before(mark):
        near = fragment.names_before(mark)[-1].mention
        owners = [name.mention for name in fragment.names_after(mark) if name.mention.is_label]
        return Act("exclude", tuple(owners[:1]), (near,))
    if fragment.approvals():
        return None  # "is correctly excluded"
    if mark.text == "excluded" and fragment.is_passive(mark) and not fragment.names_after(mark):
        return None if any(each.kind == "modal" for each in fragment.before(mark)) else Act("expand")
    names = fragment.names
    after = fragment.names_after(mark)
    if mark.text in ("take", "bring") and fragment.has("mm") and not after:
        return Act("expand")  # "take it out by 3 mm"
    if mark.text in ("give", "gives", "giving") and fragment.has("mm"):
        return Act("expand")  # "give it 2 mm at the top"
    if mark.text == "excludes":
        return Act("expand")
    origin = [name for name in names if fragment.preposition(name) in ("from", "of") and name.mention.is_label]
    before = [name for name in fragment.names_before(mark) if name.mention.is_label]
    objects = [name for name in after if name not in origin]
    if origin and objects and mark.is_in("symmetric") and objects[0].mention.is_label:
        return Act("exclude")  # the note does not say which of the two is too large
    if not objects and len(after) == 1 and (before or fragment.has("masks") or not after[0].mention.labels):
        objects, origin = after, []
    if not objects and fragment.has("it") and origin:
        return Act("exclude", tuple(name.mention for name in origin))
    if not objects:
        has_piece = fragment.has("pieces") and fragment.has("place")
        return Act("shrink", tuple(name.mention for name in origin)) if has_piece else None
    subjects = tuple(name.mention for name in (origin or before)[:1])
    return Act("exclude", subjects, tuple(name.mention for name in objects))


def leak_act(fragment: Fragment) -> Act | None:
    """Read a leak into a neighbour or beyond the border."""
    forbidden = [mark for mark in fragment.all("cue") if mark.values[0] == "leak" and fragment.has("modal")]
    found = (
        fragment.cues("leak")
        or forbidden
        or [
            mark
            for mark in (*fragment.cues("shrink"), *fragment.all("too"))
            if any(each.kind == "into" and fragment.names_after(each) for each in fragment.after(mark))
        ]
    )
    if not found:
        return None
    mark = found[0]
    before = [name for name in fragment.names_before(mark) if fragment.preposition(name) != "near"]
    after = fragment.names_after(mark)
    own = [name for name in after if fragment.preposition(name) in ("of", "from") and name.mention.is_label]
    reached = [name for name in after if name not in own and fragment.preposition(name) not in ("near", "place")]
    # "across the diaphragm into the lung"
    # "spleen -> stomach leak"
    entered = [name for name in (*before, *reached) if fragment.preposition(name) == "into"]
    before = [name for name in before if name not in entered]
    reached = entered or [name for name in reached if fragment.preposition(name) != "from"] or reached
    beside = [name.mention for name in after if name not in own and fragment.preposition(name) in ("near", "place")]
    known = [name for name in before if name.mention.is_label]
    if before and not known and reached and reached[0].mention.labels:
        # "The stomach leaks into the spleen mask": the mask is the spleen's.
        return Act("exclude", (reached[0].mention,), (before[-1].mention,))
    if mark.is_in("painting") and not known and len(reached) > 1 and reached[0].mention.is_label:
        known, reached = reached[:1], reached[1:]  # "painted liver over the gallbladder"
    culprits = [name for name in after if fragment.preposition(name) in ("by", "near")]
    culprits = culprits if mark.text.startswith("contaminat") else []
    if culprits and own:
        return Act("exclude", (own[0].mention,), (culprits[0].mention,))  # "contamination of the liver by the kidney"
    subjects = tuple(name.mention for name in known or own)
    if before and not known and not fragment.names_after(mark) and mark.is_in("leak_nouns"):
        return Act("exclude", nears=(before[-1].mention,))  # "stomach leak"
    free = "" if after else _reached(fragment, mark)
    if before and not (known or after) and any(fragment.precedes(each, "masks") for each in fragment.all("into")):
        return Act("exclude", nears=(before[-1].mention,))  # "bowel has leaked into the mask"
    near = tuple(name.mention for name in reached if name.mention not in subjects)
    near = near or ((Mention(free),) if free else ())
    unknown_subject = before[0].mention if before and not known else None
    if near or (mark.text.startswith("overlap") and not beside):
        return Act("exclude", subjects, near, unknown_subject)
    return Act("shrink", subjects, tuple(beside), unknown_subject)


def _reached(fragment: Fragment, leak: Mark) -> str:
    """Return a name that is in no lexicon after a leak "into", "over" or "with" it."""
    after = fragment.after(leak)
    entry = next((each for each in after if each.kind in ("into", "from") or each.text in ("with", "over")), None)
    return unlisted_noun(fragment.after(entry), True) if entry else unlisted_noun(after)


def movement_act(fragment: Fragment) -> Act | None:
    """Read a leak without a known verb: "spleen into the stomach", "the contour jumps into the colon"."""
    is_moved = any(not mark.text.endswith("ed") for mark in fragment.all("move"))  # but "was dragged into"
    if (
        is_moved
        or fragment.has(*STATEMENT_KINDS - {"cue", "wanted", "wrong"}, "not", "protect")
        or fragment.cues("expand", "fill", "smooth", "remove", "restyle", "keep_largest")
    ):
        return None
    names = fragment.names
    reached = [name for name in names if fragment.preposition(name) == "into"][:1]
    before = fragment.names_before(reached[0]) if reached else names
    known = [name.mention for name in before if name.mention.is_label]
    if reached and before and not known and reached[0].mention.labels:
        return Act("exclude", (reached[0].mention,), (before[-1].mention,))
    if reached and reached[0].mention not in known:
        return Act("exclude", tuple(known[:1]), (reached[0].mention,))
    # "fat got swept into the mask"
    is_into_mask = any(fragment.precedes(mark, "masks") for mark in fragment.all("into"))
    if is_into_mask and len(before) == 1 and not known:
        return Act("exclude", nears=(before[0].mention,))
    return None
