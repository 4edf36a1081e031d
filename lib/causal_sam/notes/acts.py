"""What one fragment of a note asks for: the act, on what, and beside what."""

from __future__ import annotations

import itertools
from dataclasses import replace

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import (
    Act,
    approvals,
    before_than,
    is_known,
    is_negated,
    is_order,
    live,
    names_in,
    preposition,
    says,
)
from causal_sam.notes.identity import identity
from causal_sam.notes.neighbours import exclusion, inclusion, leak, reaching
from causal_sam.notes.sizes import plain_acts

_ONLY_IF_SAID_SO = ("largest", "biggest", "main", "major", "dominant", "principal", "single")


def acts_of(fragment: Fragment) -> list[Act]:
    """Return what a fragment asks for; nothing if it only adds to others, or says what is right."""
    if not fragment.marks:
        return []
    # The order of the rules is their precedence.
    rules = (_restyle, _keep_largest, identity, _remove, inclusion, exclusion, _leak, reaching, _delete)
    for rule in rules:
        act = rule(fragment)
        if act is not None:
            return [with_names(fragment, act)]
    return [with_names(fragment, act) for act in plain_acts(fragment)]


def with_names(fragment: Fragment, act: Act) -> Act:
    """An act with the subjects and neighbours that prepositions tell, where its rule has not found them."""
    if act.subjects or act.absent:
        return act
    free = [mark for mark in names_in(before_than(fragment)) if mark.mention not in act.nears]
    free = [mark for mark in free if is_known(mark.mention) or not says(mark, "body")]
    before = {mark.text: preposition(fragment, mark) for mark in free}
    known = [mark for mark in free if is_known(mark.mention) and before[mark.text] != "not"]
    subjects = [mark for mark in known if before[mark.text] in ("", "of")] or known[:1]
    others = [mark for mark in free if mark not in subjects]
    beside = [mark for mark in others if before[mark.text] in ("near", "in", "place", "into", "from", "beyond")]
    if act.action == "remove":
        beside = others
    bare = [mark for mark in others if mark not in beside and before[mark.text] not in ("not", "by")]
    nears, absent = [mark.mention for mark in beside], None
    if bare and (not subjects) and (act.action != "keep_largest"):
        absent = bare[0].mention
    elif act.action == "expand":
        nears += [mark.mention for mark in bare]
    takes_near = act.action not in ("restyle", "keep", "fill", "smooth", "keep_largest")
    return replace(
        act,
        subjects=tuple(mark.mention for mark in subjects),
        nears=act.nears or (tuple(nears) if takes_near else ()),
        absent=absent,
    )


def _restyle(fragment: Fragment) -> Act | None:
    is_removal = fragment.has("delete")
    causes = live(fragment, "restyle")
    is_told_why = bool(causes)
    if not is_told_why or live(fragment, "remove") or is_removal:
        return None
    if any(is_order(fragment, mark) for mark in live(fragment, "smooth", "fill")):
        return None  # "smooth the edge that is jagged because of thick slices"
    known = tuple(mark.mention for mark in names_in(fragment.marks) if is_known(mark.mention))
    is_device = bool(causes) and all(says(mark, "devices") for mark in causes)
    if is_device and not fragment.has("effects"):
        return None  # "the patient has a pacemaker"
    is_weak = not fragment.has("effects", "wanted") and not live(fragment, "expand", "shrink", "leak", "smooth", "fill")
    return Act("restyle", known if fragment.has("both") else known[:1], is_weak=is_weak)


def _is_misled(fragment: Fragment) -> bool:
    """Whether something in the image misled the model, whatever it was: "fooled by the bright rim"."""
    marks = [mark for mark in fragment.all("effects") if says(mark, "misleading")]
    return bool(marks) and not fragment.has("taken_for", "belongs", "include", "exclude")


def _keep_largest(fragment: Fragment) -> Act | None:
    cues = live(fragment, "keep_largest")
    is_kept = fragment.has("only", "retain", "except")
    # "remove the largest island" keeps nothing.
    said_so = is_kept or (fragment.has("modal", "pieces") and not fragment.has("delete", "exclude"))
    said_so_of = {cue.text: is_kept if cue.text == "main" else said_so for cue in cues}
    cues = [cue for cue in cues if said_so_of[cue.text] or not cue.text.startswith(_ONLY_IF_SAID_SO)]
    if not cues or live(fragment, "expand", "leak") or (live(fragment, "shrink") and not is_kept):
        return None
    is_rest = any(cue.text in ("the rest", "the others", "everything else", "all others") for cue in cues)
    if is_rest and len(cues) == 1 and not fragment.has("delete", "only"):
        return None
    known = tuple(mark.mention for mark in names_in(fragment.marks) if is_known(mark.mention))
    return Act("keep_largest", known)


def _remove(fragment: Fragment) -> Act | None:
    is_kept = fragment.has("retain") and not fragment.has("delete")
    is_kept = is_kept or any(is_negated(fragment, mark) for mark in fragment.all("delete"))
    return Act("remove") if live(fragment, "remove") and not is_kept and not approvals(fragment) else None


def _leak(fragment: Fragment) -> Act | None:
    """What a mask runs into. "Leakage of the liver mask" is said of the mask, and is no way out of it."""
    found = leak(fragment)
    is_into_it = any(
        one.text.endswith("into") and other.kind == "it" for one, other in itertools.pairwise(fragment.marks)
    )
    if found is not None and found.action == "shrink" and is_into_it:
        return replace(found, action="exclude")  # "stops at the falx, but crosses into it"
    return found


def _delete(fragment: Fragment) -> Act | None:
    found = [mark for mark in fragment.all("delete") if not is_negated(fragment, mark)]
    if [mark.text for mark in fragment.marks[-2:]] in (["should", "go"], ["must", "go"]):
        found.append(fragment.marks[-1])
    if not found or live(fragment, "fill", "smooth", "expand"):
        return None
    mark = found[0]
    names, pieces = names_in(fragment.marks), fragment.all("pieces")
    is_all = fragment.has("all") and not fragment.has("place", "near", "beyond", "slices")
    if is_all and (fragment.has("masks") or any(says(piece, "units") for piece in pieces)):
        return None  # "remove all labels"
    known = [name for name in names if is_known(name.mention)]
    origin = [name for name in known if preposition(fragment, name) in ("from", "of", "in")]
    others = [name for name in names if name not in origin and not (pieces and name in known and len(known) == 1)]
    is_passive_ = any(says(each, "copulas") for each in fragment.before(mark)[-2:])
    is_object = any(not is_known(name.mention) or name in fragment.after(mark) for name in others) and not is_passive_
    is_told = any(each.mention or each.kind == "place" for each in fragment.before(mark))
    if fragment.has("beyond") and any(says(each, "whatever") for each in fragment.marks) and not fragment.has("masks"):
        return Act("shrink")  # "everything outside the capsule should be cut"
    if mark.text.startswith("cut") and is_told and not (pieces or is_object or fragment.has("modal")):
        return Act("expand")
    if fragment.has("edges") and mark.text.startswith("clean"):
        return Act("smooth")
    if live(fragment, "shrink"):
        return Act("shrink")
    objects = [name for name in others if not is_known(name.mention) or origin]
    beside = [name for name in objects if preposition(fragment, name) in ("near", "place", "in")]
    is_large = bool(pieces) and says(pieces[0], "large_pieces")
    subjects = tuple(name.mention for name in origin[:1])
    has_amount = fragment.has("mm", "edges") or any(says(each, "units") for each in fragment.marks)
    if objects and (not pieces or is_large) and (is_large or objects[0] not in beside):
        in_it = [name for name in objects if preposition(fragment, name) not in ("near", "place")]
        if in_it:
            return Act("exclude", subjects, (in_it[0].mention,))
    is_of_border = fragment.has("place", "edges") and has_amount
    if not pieces and not objects and (is_of_border or fragment.has("mm")):
        return Act("shrink", subjects)
    # "the mask appears in the table, delete that"
    if fragment.has("slices") and (known or not objects):
        return Act("remove", tuple(name.mention for name in known[:1]))  # "delete the bladder on 70-74"
    if pieces or (beside and fragment.has("it") and fragment.has("masks")):
        is_at_place = fragment.has("place") and not any(says(each, "about_place") for each in fragment.marks)
        return Act("shrink" if is_large and is_at_place and not beside else "remove", subjects)
    return None


def _is_report(fragment: Fragment, mark: Mark) -> bool:
    """Whether something was removed that should not have been: "the lower pole was dropped"."""
    return mark.text.endswith("ed") and not fragment.has("modal", "requests")
