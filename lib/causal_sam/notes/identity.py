"""Rules for fragments that say what a part of a mask really is, or is not."""

from __future__ import annotations

from collections.abc import Sequence

from causal_sam.notes.drafts import Act
from causal_sam.notes.fragments import SKIPPED_KINDS, STATEMENT_KINDS, Fragment, Mark, unlisted_noun
from causal_sam.notes.mentions import Mention
from causal_sam.notes.places import is_part
from causal_sam.notes.schema import Action


def identity_act(fragment: Fragment) -> Act | None:
    """Read a wrong identity: "belongs to the stomach", "bowel labelled as bladder", "colon, not kidney"."""
    names = fragment.names
    is_spot = any(mark.is_in("spots") for mark in fragment.all("pieces"))
    action: Action = "remove" if is_spot or fragment.cues("remove") else "exclude"
    identity_marks = [
        mark for mark in fragment.all("belongs") if _is_followed_by_name(fragment, mark)
    ] or _copulas_of_identity(fragment)
    denied = [*fragment.all("not_part"), *(mark for mark in identity_marks if fragment.is_negated(mark))]
    taken = _mistaken_for_marks(fragment, identity_marks)
    inside = _content_of_mask(fragment, names)
    if inside is not None:
        return inside
    if taken:
        return _mistaken(fragment, action, taken[0], identity_marks)
    for mark in fragment.all("taken_for"):
        right, whole = fragment.names_before(mark)[-1:], fragment.names_after(mark)[:1]
        part = any(is_part(each) for each in fragment.before(mark))
        if (right or part) and whole and fragment.is_negated(mark) and mark.text == "included in":
            nears = tuple(each.mention for each in right)
            return Act("expand", (whole[0].mention,), nears)  # "has not been included in the liver"
    if denied:
        wrong, right = _wrong_and_right(fragment, denied[0])
        return _exclude_neighbour(action, right, wrong) or _not_part(fragment, wrong)
    negated_names = [mark for mark in names if fragment.preposition(mark) == "not"]
    others = [mark for mark in names if mark not in negated_names]
    is_owner = bool(identity_marks) and fragment.has("modal") and identity_marks[0].text == "be part of"
    if is_owner and others and others[-1].mention.is_label:
        # "the hernia sac should be part of the bowel mask"
        free = unlisted_noun(fragment.before(identity_marks[0]), True)
        inner = tuple(mark.mention for mark in others[:-1]) or ((Mention(free),) if free else ())
        return Act("expand", (others[-1].mention,), inner)
    if identity_marks and others:
        right = [mark for mark in others if mark in fragment.after(identity_marks[0])][:1]
        remaining = [mark for mark in others if mark not in right]
        wrong = negated_names or remaining[:1]
        lacks_owner = not wrong or not wrong[0].mention.is_label
        if right and lacks_owner and right[0].mention.is_label and "belong" in identity_marks[0].text:
            nears = tuple(mark.mention for mark in wrong)
            return Act("expand", (right[0].mention,), nears, names_owner_only=True)
        return _exclude_neighbour(action, right, wrong)
    has_other_act = fragment.cues("expand", "shrink", "leak", "fill", "smooth")
    free = unlisted_noun(fragment.marks, True) if negated_names and not others else ""
    if free and not has_other_act and fragment.has_word("copulas"):
        return Act(
            "exclude", (negated_names[0].mention,), (Mention(free),), neighbour_is_content=True
        )  # "pneumothorax is not lung"
    if (
        not any(mark.mention.is_label for mark in negated_names)
        or has_other_act
        or fragment.has("include", "exclude", "protect", "wrong", "keep")
    ):
        return None
    return _not_part(fragment, negated_names, others)


def _wrong_and_right(fragment: Fragment, denial: Mark) -> tuple[list[Mark], list[Mark]]:
    """Return the wrong and the right identity of a part: "the vein is not part of the liver"."""
    wrong, right = fragment.names_after(denial)[:1], fragment.names_before(denial)[-1:]
    is_of_it = any(mark.kind == "it" for mark in fragment.after(denial)) and fragment.has("pieces", "cue")
    if right and not wrong and is_of_it and right[0].mention.is_label:
        return right, []  # "the liver has a speck that does not belong to it"
    free = unlisted_noun(fragment.before(denial), True)
    return wrong, right or ([Mark("name", free, mention=Mention(free))] if free else [])


def _mistaken_for_marks(fragment: Fragment, identity_marks: Sequence[Mark]) -> list[Mark]:
    """Return the marks between the true identity of a part and the structure that it was mistaken for."""
    taken = [
        mark
        for mark in fragment.all("taken_for")
        # "the vein does not count as liver"
        if not fragment.is_negated(mark) or fragment.has("modal") or mark.is_in("counting")
    ]
    is_in = [mark for mark in fragment.all("include") if fragment.is_passive(mark) and not fragment.is_negated(mark)]
    # "is part of the liver mask", where it should not be
    is_in += [
        mark for mark in identity_marks if "part" in mark.text and fragment.has("masks") and mark.text != "be part of"
    ]
    # "labelled the pancreas as duodenum"
    renamed = [] if fragment.has("keep", "protect") else fragment.all("as")
    states_identity = fragment.marks[0].text == "what"  # "what you have as bladder is bowel"
    renamed = [mark for mark in renamed if states_identity or fragment.names_before(mark)]
    # "what is labelled aorta", "has been marked liver"
    called = [mark for mark in fragment.marks if mark.is_in("called") and fragment.is_before_name(mark)]
    return taken + [mark for mark in (*is_in, *renamed, *called) if fragment.names_after(mark)]


def _mistaken(fragment: Fragment, action: Action, at: Mark, identity_marks: Sequence[Mark]) -> Act | None:
    wrong = fragment.names_after(at)[:1]
    right = [mark for mark in fragment.names_after(identity_marks[0]) if mark not in wrong] if identity_marks else []
    others = [mark for mark in fragment.names_before(at) if not wrong or mark.mention != wrong[0].mention]
    free = "" if right or others else unlisted_noun(fragment.before(at), True)
    right = right or others[-1:] or ([Mark("name", free, mention=Mention(free))] if free else [])
    if fragment.marks[0].text == "what" and not right:
        right = [mark for mark in fragment.names_after(at) if mark not in wrong][:1]
    if wrong and not right and fragment.marks[0].is_in("relatives"):
        return Act("exclude", (wrong[0].mention,))  # "the cyst, which is included in the kidney"
    if fragment.is_negated(at):
        return _exclude_neighbour(action, right, wrong)  # "should not count as"
    if wrong and right and fragment.is_order(at):
        return Act("expand", (wrong[0].mention,), (right[0].mention,))  # "should be included in"
    if wrong and right and not wrong[0].mention.is_label and right[0].mention.is_label:
        return Act("expand", (right[0].mention,), (wrong[0].mention,))
    return _exclude_neighbour(action, right, wrong)


def _content_of_mask(fragment: Fragment, names: Sequence[Mark]) -> Act | None:
    """Read content that should not be in a mask: "fat is in the heart mask"."""
    has_mask = fragment.has("masks") or any(mark.text.startswith("in the ") for mark in fragment.all("wanted"))
    if fragment.has(*STATEMENT_KINDS - {"wanted", "wrong"}) or not has_mask:
        return None
    if len(names) == 1 and not names[0].mention.is_label:
        return _outside_of_mask(fragment, names[0])
    if len(names) != 2:
        return None
    (first, second), is_due = names, fragment.has("requests", "modal")
    is_in = fragment.preposition(second) == "in" and second.mention.is_label
    is_first = not first.mention.is_label or first.mention != second.mention
    is_denied = any(mark.kind == "not" for mark in fragment.before(second))
    if not (is_in and is_first):
        return None
    if is_denied and not is_due and not first.mention.is_label:
        return Act("expand", (second.mention,), (first.mention,))  # "the caudate lobe is not in the liver mask"
    return _exclude_neighbour("exclude", [first], [second]) if is_denied == is_due else None


def _outside_of_mask(fragment: Fragment, name: Mark) -> Act | None:
    """Read an unlabelled structure inside a mask ("bowel in the mask"), or a mask inside such a structure."""
    is_denied = any(fragment.is_negated(mark) for mark in fragment.all("masks", "name")) or fragment.has("not")
    if is_denied != fragment.has("requests", "modal") or fragment.cues("expand", "shrink", "restyle"):
        return None
    inside = [mark for mark in fragment.all("in") if not mark.is_in("companions")]
    if any(mark.text.startswith("in the ") for mark in fragment.all("wanted")):
        return Act("exclude", nears=(name.mention,)) if fragment.preposition(name) == "" else None
    masks = fragment.all("masks")
    is_in_mask = any(fragment.precedes(mark, "masks") for mark in inside) and name in fragment.before(masks[-1])
    is_mask_in = fragment.preposition(name) == "in" and masks[0] in fragment.before(name) and bool(inside)
    return Act("exclude", nears=(name.mention,)) if is_in_mask or is_mask_in else None


def _copulas_of_identity(fragment: Fragment) -> list[Mark]:
    """Return the "is" of "that part is colon", unless the fragment states something else."""
    if not fragment.has("it", "pieces", "one", "place") and not fragment.cues("remove"):
        return []
    if fragment.has("include", "wanted", "keep", "wrong", "too", "enough") or fragment.cues(
        "expand", "shrink", "leak", "fill", "smooth"
    ):
        return []
    return [
        mark
        for mark in fragment.marks
        if mark.is_in("copulas") and _is_followed_by_name(fragment, mark) and not _is_denied(fragment, mark)
        # "there is a cyst in the liver" is a finding
        if fragment.has("masks") or [each.text for each in fragment.before(mark)] != ["there"]
    ][-1:]


def _is_denied(fragment: Fragment, mark: Mark) -> bool:
    """Return whether "not" comes before the next name."""
    after = next(each for each in fragment.after(mark) if each.mention or each.kind == "not")
    return after.kind == "not"


def _is_followed_by_name(fragment: Fragment, belongs: Mark) -> bool:
    """Return whether a name follows "that is" or "belongs to" before any other statement."""
    for mark in fragment.after(belongs):
        if mark.mention:
            return True
        if mark.kind not in SKIPPED_KINDS - {"strength", "place"} | {"not", "of", "belongs"}:
            return False
    return False


def _exclude_neighbour(action: Action, right: Sequence[Mark], wrong: Sequence[Mark]) -> Act | None:
    """Exclude a structure from the label that it was mistaken for."""
    if not right or (wrong and right[0].mention == wrong[0].mention):
        return None
    return Act(action, tuple(mark.mention for mark in wrong[:1]), (right[0].mention,), neighbour_is_content=True)


def _not_part(fragment: Fragment, wrong: Sequence[Mark], others: Sequence[Mark] = ()) -> Act | None:
    """Read a piece that does not belong to the mask, of unknown identity."""
    pieces = fragment.all("pieces")
    if not wrong or not (pieces or fragment.has("it", "one") or fragment.cues("remove")):
        return None
    nears = tuple(mark.mention for mark in others)
    is_large = bool(pieces) and pieces[0].is_in("large_pieces") and not fragment.cues("remove")
    is_on_slices = fragment.has("slices") and not pieces  # "that is not cyst at all on slices 33 and 35"
    action: Action = "remove" if is_on_slices or not is_large else "exclude" if nears else "shrink"
    if not (pieces or is_on_slices or fragment.cues("remove")):
        action = "exclude"  # "this is not liver": what it is may follow
    return Act(action, (wrong[0].mention,), nears, neighbour_is_content=True)
