"""What one fragment of a note asks for: the act, on what, and beside what."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from causal_sam.notes.borders import due, moved
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import (
    Act,
    approvals,
    before_than,
    is_known,
    is_negated,
    is_order,
    is_statement,
    live,
    names_in,
    preposition,
    says,
)
from causal_sam.notes.holes import filled
from causal_sam.notes.identity import identity
from causal_sam.notes.neighbours import exclusion, inclusion, leak, reaching
from causal_sam.notes.sizes import plain_acts

_ONLY_IF_SAID_SO = ("largest", "biggest", "main", "major", "dominant", "principal", "single")


def acts_of(fragment: Fragment) -> list[Act]:
    """Return what a fragment asks for; nothing if it only adds to others, or says what is right."""
    if not fragment.marks:
        return []
    # The order of the rules is their precedence.
    rules = (_restyle, _keep_largest, identity, _remove, _cropped, inclusion, exclusion, due, _leak, reaching, _delete)
    for rule in (*rules, moved):
        act = rule(fragment)
        if act is not None:
            return [with_names(fragment, filled(fragment, act))]
    return [with_names(fragment, filled(fragment, act)) for act in plain_acts(fragment)]


def with_names(fragment: Fragment, act: Act) -> Act:
    """An act with the subjects and neighbours that prepositions tell, where its rule has not found them."""
    if act.subjects or act.absent:
        return act
    free = [mark for mark in names_in(before_than(fragment)) if mark.mention not in act.nears]
    free = [mark for mark in free if is_known(mark.mention) or not says(mark, "body")]
    before = {mark.text: preposition(fragment, mark) for mark in free}
    known = [mark for mark in free if is_known(mark.mention) and before[mark.text] != "not"]
    known = [mark for mark in known if not _is_told_by(mark, known)]
    subjects = [mark for mark in known if before[mark.text] in ("", "of")] or known[:1]
    others = [mark for mark in free if mark not in subjects]
    beside = [mark for mark in others if before[mark.text] in ("near", "in", "place", "into", "from", "beyond")]
    if act.action == "remove":
        beside = others
    bare = [mark for mark in others if mark not in beside and before[mark.text] not in ("not", "by")]
    nears, absent = [mark.mention for mark in beside], None
    if bare and not subjects and act.action != "keep_largest" and not _is_object(fragment, bare[0]):
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


def _is_told_by(name: Mark, others: Iterable[Mark]) -> bool:
    """Whether another name tells which one is meant: "femoral head missing from the right femur"."""
    candidates = set(name.mention.candidates)
    return any(other.mention.labels and candidates.issuperset(other.mention.labels) for other in others)


def _is_object(fragment: Fragment, name: Mark) -> bool:
    """Whether a name is what a mask misses, and not what is to be changed: "misses the caudate lobe"."""
    before = fragment.before(name)
    says = [mark for mark in before if mark.kind in ("cue", "include", "wanted")]
    return bool(says) and (says[0].text.startswith("miss") or any(mark.kind == "masks" for mark in before))


def _restyle(fragment: Fragment) -> Act | None:
    is_removal = any(not _is_report(fragment, mark) for mark in fragment.all("delete"))
    causes = live(fragment, "restyle")
    is_told_why = bool(causes) or _is_misled(fragment)
    if not is_told_why or live(fragment, "remove") or is_removal or _is_without_effect(fragment):
        return None
    if any(is_order(fragment, mark) for mark in live(fragment, "smooth", "fill")):
        return None  # "smooth the edge that is jagged because of thick slices"
    if causes and all(says(mark, "brightness") for mark in causes) and _is_of_neighbour(fragment, causes[0]):
        return None  # "the vein is bright"
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


def _is_without_effect(fragment: Fragment) -> bool:
    """Whether an artefact has done no harm: "did not affect the liver", "fine in spite of the noise"."""
    effects = fragment.all("effects")
    is_harmless = any(is_negated(fragment, mark) and is_statement(fragment, mark) for mark in effects)
    return is_harmless or (bool(approvals(fragment)) and any(says(mark, "despite") for mark in effects))


def _is_of_neighbour(fragment: Fragment, mark: Mark) -> bool:
    return any(not is_known(name.mention) for name in names_in(fragment.before(mark)))


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


def _cropped(fragment: Fragment) -> Act | None:
    """What is cut at its neighbour, as in planning of radiotherapy: "crop the CTV from the bladder"."""
    crop = next((mark for mark in fragment.all("cue") if mark.text == "crop"), None)
    names = names_in(fragment.after(crop)) if crop and is_order(fragment, crop) else []
    if len(names) != 2 or preposition(fragment, names[1]) != "from":
        return None
    whole, near = names if is_known(names[0].mention) else reversed(names)
    return Act("exclude", (whole.mention,), (near.mention,))


def _leak(fragment: Fragment) -> Act | None:
    """What a mask runs into. "Leakage of the liver mask" is said of the mask, and is no way out of it."""
    nouns = [mark for mark in live(fragment, "leak") if says(mark, "leak_nouns") and _is_of(fragment, mark)]
    if nouns:
        name = next(iter(names_in(fragment.after(nouns[0]))), None)
        of_name = fragment.after(name)[:1] if name else ()
        fragment = replace(
            fragment, marks=tuple(mark for mark in fragment.marks if mark.kind != "masks" or mark not in of_name)
        )
    found = leak(fragment)
    is_into_it = any(
        one.text.endswith("into") and other.kind == "it" for one, other in itertools.pairwise(fragment.marks)
    )
    if found is not None and found.action == "shrink" and is_into_it:
        return replace(found, action="exclude")  # "stops at the falx, but crosses into it"
    return found


def _is_of(fragment: Fragment, mark: Mark) -> bool:
    return [each.kind for each in fragment.after(mark)[:1]] == ["of"]


def _delete(fragment: Fragment) -> Act | None:
    found = [mark for mark in fragment.all("delete") if not is_negated(fragment, mark)]
    if [mark.text for mark in fragment.marks[-2:]] in (["should", "go"], ["must", "go"]):
        found.append(fragment.marks[-1])
    if not found or live(fragment, "fill", "smooth", "expand"):
        return None
    mark = found[0]
    if _is_report(fragment, mark) and fragment.has("place"):
        return Act("expand")
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
    if pieces or (beside and fragment.has("it") and fragment.has("masks")):
        is_at_place = fragment.has("place") and not any(says(each, "about_place") for each in fragment.marks)
        return Act("shrink" if is_large and is_at_place and not beside else "remove", subjects)
    return None


def _is_report(fragment: Fragment, mark: Mark) -> bool:
    """Whether something was removed that should not have been: "the lower pole was dropped"."""
    return mark.text.endswith("ed") and not fragment.has("modal", "requests")
