"""Rules that read one fragment of a note as acts, with their subjects and neighbours."""

from __future__ import annotations

import itertools
from dataclasses import replace

from causal_sam.notes.drafts import Act
from causal_sam.notes.fragments import Fragment, name_marks
from causal_sam.notes.identity import identity_act
from causal_sam.notes.neighbours import exclusion_act, inclusion_act, leak_act, movement_act
from causal_sam.notes.sizes import size_acts

# These words ask for `keep_largest` only beside a verb such as "keep".
_NEED_KEEP_VERB = ("largest", "biggest", "main", "major", "dominant", "principal", "single")


def acts_of(fragment: Fragment) -> list[Act]:
    """Return the acts that a fragment requests; none if it only adds details to others or approves of the mask."""
    if not fragment.marks:
        return []
    # The order of the rules is their precedence.
    rules = (
        _not_on_slices,
        _restyle,
        _keep_largest,
        identity_act,
        _remove,
        inclusion_act,
        exclusion_act,
        _leak,
        movement_act,
        _delete,
    )
    for rule in rules:
        act = rule(fragment)
        if act is not None:
            return [with_names(fragment, act)]
    return [with_names(fragment, act) for act in size_acts(fragment)]


def with_names(fragment: Fragment, act: Act) -> Act:
    """Complete an act by the subjects and neighbours that prepositions mark, unless its rule has already found them."""
    if act.subjects or act.unknown_subject:
        return act
    free = [mark for mark in name_marks(fragment.marks_before_than()) if mark.mention not in act.nears]
    free = [mark for mark in free if mark.mention.is_label or not (mark.is_in("body") or mark.is_in("layers"))]
    before = {mark.text: fragment.preposition(mark) for mark in free}
    known = [mark for mark in free if mark.mention.is_label and before[mark.text] != "not"]
    subjects = [mark for mark in known if before[mark.text] in ("", "of")] or known[:1]
    others = [mark for mark in free if mark not in subjects]
    beside = [mark for mark in others if before[mark.text] in ("near", "in", "place", "into", "from", "beyond")]
    if act.action == "remove":
        beside = others
    bare = [mark for mark in others if mark not in beside and before[mark.text] not in ("not", "by")]
    nears, unknown_subject = [mark.mention for mark in beside], None
    if bare and (not subjects) and (act.action != "keep_largest"):
        unknown_subject = bare[0].mention
    elif act.action == "expand":
        nears += [mark.mention for mark in bare]
    if act.action == "smooth":
        nears = [mark.mention for mark in beside if before[mark.text] == "near"]
    takes_near = act.action not in ("restyle", "keep", "fill", "keep_largest")
    return replace(
        act,
        subjects=tuple(mark.mention for mark in subjects),
        nears=act.nears or (tuple(nears) if takes_near else ()),
        unknown_subject=unknown_subject,
    )


def _not_on_slices(fragment: Fragment) -> Act | None:
    """Read "slices 30 to 33 are not spleen": the label is to go from these slices."""
    marks = [mark for mark in fragment.marks if mark.kind not in ("plain", "slices", "open slices", "end slices")]
    is_denial = [mark.kind for mark in marks] == ["not", "name"] and marks[1].mention.is_label
    has_slices = fragment.has("slices", "open slices", "end slices")
    if not (is_denial and has_slices and any(mark.is_in("copulas") for mark in fragment.before(marks[0]))):
        return None
    return Act("remove", (marks[1].mention,))


def _restyle(fragment: Fragment) -> Act | None:
    causes = fragment.cues("restyle")
    if not causes or fragment.cues("remove") or fragment.has("delete"):
        return None
    if any(fragment.is_order(mark) for mark in fragment.cues("smooth", "fill")):
        return None  # "smooth the edge that is jagged because of thick slices"
    known = tuple(mark.mention for mark in fragment.names if mark.mention.is_label)
    if all(mark.is_in("devices") for mark in causes) and not fragment.has("effects"):
        return None  # "the patient has a pacemaker"
    is_weak = not fragment.has("effects", "wanted") and not fragment.cues("expand", "shrink", "leak", "smooth", "fill")
    return Act("restyle", known if fragment.has("both") else known[:1], is_weak=is_weak)


def _keep_largest(fragment: Fragment) -> Act | None:
    marks = fragment.cues("keep_largest")
    is_retained = fragment.has("only", "retain", "except")
    # "remove the largest island" keeps nothing.
    is_requested = is_retained or (fragment.has("modal", "pieces") and not fragment.has("delete", "exclude"))
    is_requested_by = {mark.text: is_retained if mark.text == "main" else is_requested for mark in marks}
    marks = [mark for mark in marks if is_requested_by[mark.text] or not mark.text.startswith(_NEED_KEEP_VERB)]
    if not marks or fragment.cues("expand", "leak") or (fragment.cues("shrink") and not is_retained):
        return None
    is_rest = any(mark.text in ("the rest", "the others", "everything else", "all others") for mark in marks)
    if is_rest and len(marks) == 1 and not fragment.has("delete", "only"):
        return None
    known = tuple(mark.mention for mark in fragment.names if mark.mention.is_label)
    return Act("keep_largest", known)


def _remove(fragment: Fragment) -> Act | None:
    is_retained = fragment.has("retain") and not fragment.has("delete")
    is_retained = is_retained or any(fragment.is_negated(mark) for mark in fragment.all("delete"))
    return Act("remove") if fragment.cues("remove") and not is_retained and not fragment.approvals() else None


def _leak(fragment: Fragment) -> Act | None:
    """Read a leak; "but crosses into it" excludes the neighbour that was named before."""
    found = leak_act(fragment)
    is_into_it = any(
        one.text.endswith("into") and other.kind == "it" for one, other in itertools.pairwise(fragment.marks)
    )
    if found is not None and found.action == "shrink" and is_into_it:
        return replace(found, action="exclude")  # "stops at the falx, but crosses into it"
    return found


def _delete(fragment: Fragment) -> Act | None:
    found = [mark for mark in fragment.all("delete") if not fragment.is_negated(mark)]
    if [mark.text for mark in fragment.marks[-2:]] in (["should", "go"], ["must", "go"]):
        found.append(fragment.marks[-1])
    if not found or fragment.cues("fill", "smooth", "expand"):
        return None
    mark = found[0]
    names, pieces = fragment.names, fragment.all("pieces")
    is_all = fragment.has("all") and not fragment.has("place", "near", "beyond", "slices")
    if is_all and (fragment.has("masks") or any(piece.is_in("units") for piece in pieces)):
        return None  # "remove all labels"
    known = [name for name in names if name.mention.is_label]
    origin = [name for name in known if fragment.preposition(name) in ("from", "of", "in")]
    others = [name for name in names if name not in origin and not (pieces and name in known and len(known) == 1)]
    is_passive_ = any(each.is_in("copulas") for each in fragment.before(mark)[-2:])
    is_object = any(not name.mention.is_label or name in fragment.after(mark) for name in others) and not is_passive_
    follows_subject = any(each.mention or each.kind == "place" for each in fragment.before(mark))
    if fragment.has("beyond") and fragment.has_word("whatever") and not fragment.has("masks"):
        return Act("shrink")  # "everything outside the capsule should be cut"
    if mark.text.startswith("cut") and follows_subject and not (pieces or is_object or fragment.has("modal")):
        return Act("expand")
    if fragment.has("edges") and mark.text.startswith("clean"):
        return Act("smooth")
    if fragment.cues("shrink"):
        return Act("shrink")
    objects = [name for name in others if not name.mention.is_label or origin]
    beside = [name for name in objects if fragment.preposition(name) in ("near", "place", "in")]
    is_large = bool(pieces) and pieces[0].is_in("large_pieces")
    subjects = tuple(name.mention for name in origin[:1])
    has_amount = fragment.has("mm", "edges") or fragment.has_word("units")
    if objects and (not pieces or is_large) and (is_large or objects[0] not in beside):
        in_it = [name for name in objects if fragment.preposition(name) not in ("near", "place")]
        if in_it:
            return Act("exclude", subjects, (in_it[0].mention,))
    is_of_border = fragment.has("place", "edges") and has_amount
    if not pieces and not objects and (is_of_border or fragment.has("mm")):
        return Act("shrink", subjects)
    # "the mask appears in the table, delete that"
    if fragment.has("slices", "end slices", "open slices") and (known or not objects):
        return Act("remove", tuple(name.mention for name in known[:1]))  # "delete the bladder on 70-74"
    if pieces or (beside and fragment.has("it") and fragment.has("masks")):
        is_at_place = fragment.has("place") and not fragment.has_word("about_place")
        return Act("shrink" if is_large and is_at_place and not beside else "remove", subjects)
    more = ("place", "it", "modal", "near", "mm", "edges", "except")
    has_all = any(each.text not in ("whole", "entire") for each in fragment.all("all"))
    is_whole = len(known) == len(names) == 1 and not (has_all or fragment.has(*more))
    is_whole = is_whole or (fragment.has("end slices", "open slices") and not objects)
    return (
        Act("remove", tuple(name.mention for name in known), is_whole=not fragment.has("open slices"))
        if is_whole
        else None
    )
