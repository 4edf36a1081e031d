"""What one fragment of a note asks for: the act, on what, and beside what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from causal_sam.intervention.fragments import Fragment, Mark
from causal_sam.intervention.grammar import (
    SAYS,
    Act,
    is_known,
    is_negated,
    is_order,
    is_statement,
    live,
    names_in,
    preposition,
    says,
)
from causal_sam.intervention.laterality import OPPOSITES
from causal_sam.intervention.neighbours import exclusion, identity, inclusion, leak, reaching
from causal_sam.intervention.schema import Action

_ONLY_IF_SAID_SO = ("largest", "biggest", "main", "major", "dominant", "principal")


def acts_of(fragment: Fragment) -> list[Act]:
    """Return what a fragment asks for; nothing if it only adds to others, or says what is right."""
    # The order of the rules is their precedence.
    for rule in (_restyle, _keep_largest, identity, _remove, inclusion, exclusion, leak, reaching, _delete, _move):
        act = rule(fragment)
        if act is not None:
            return [with_names(fragment, act)]
    return [with_names(fragment, act) for act in _plain_acts(fragment)]


def with_names(fragment: Fragment, act: Act) -> Act:
    """An act with the subjects and neighbours that prepositions tell, where its rule has not found them."""
    if act.subjects or act.absent:
        return act
    free = [mark for mark in names_in(_before_than(fragment)) if mark.mention not in act.nears]
    before = {mark.text: preposition(fragment, mark) for mark in free}
    known = [mark for mark in free if is_known(mark.mention) and before[mark.text] != "not"]
    subjects = [mark for mark in known if before[mark.text] in ("", "of")] or known[:1]
    others = [mark for mark in free if mark not in subjects]
    beside = [mark for mark in others if before[mark.text] in ("near", "in", "place", "into", "from", "beyond")]
    if act.action == "remove":
        beside = others
    bare = [mark for mark in others if mark not in beside and before[mark.text] != "not"]
    nears, absent = [mark.mention for mark in beside], None
    if bare and not subjects and not _is_object(fragment, bare[0]):
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


def _before_than(fragment: Fragment) -> Sequence[Mark]:
    """The marks that are not only compared with."""
    than = fragment.all("than")
    return fragment.before(than[0]) if than else fragment.marks


def _is_object(fragment: Fragment, name: Mark) -> bool:
    """Whether a name is what a mask misses, and not what is to be changed: "misses the caudate lobe"."""
    before = fragment.before(name)
    says = [mark for mark in before if mark.kind in ("cue", "include", "wanted")]
    return bool(says) and (says[0].text.startswith("miss") or any(mark.kind == "masks" for mark in before))


def _restyle(fragment: Fragment) -> Act | None:
    is_removal = any(not _is_report(fragment, mark) for mark in fragment.all("delete"))
    if not live(fragment, "restyle") or live(fragment, "remove") or is_removal:
        return None
    known = tuple(mark.mention for mark in names_in(fragment.marks) if is_known(mark.mention))
    is_weak = not fragment.has("effects", "wanted") and not live(fragment, "expand", "shrink", "leak", "smooth", "fill")
    return Act("restyle", known if fragment.has("both") else known[:1], is_weak=is_weak)


def _keep_largest(fragment: Fragment) -> Act | None:
    cues = live(fragment, "keep_largest")
    is_kept = fragment.has("only", "retain", "except")
    # "remove the largest island" keeps nothing.
    said_so = is_kept or (fragment.has("modal", "pieces") and not fragment.has("delete", "exclude"))
    said_so_of = {cue.text: is_kept if cue.text == "main" else said_so for cue in cues}
    cues = [cue for cue in cues if said_so_of[cue.text] or not cue.text.startswith(_ONLY_IF_SAID_SO)]
    if not cues or live(fragment, "expand", "shrink", "leak"):
        return None
    is_rest = any(cue.text in ("the rest", "the others", "everything else", "all others") for cue in cues)
    if is_rest and len(cues) == 1 and not fragment.has("delete", "only"):
        return None
    known = tuple(mark.mention for mark in names_in(fragment.marks) if is_known(mark.mention))
    return Act("keep_largest", known)


def _remove(fragment: Fragment) -> Act | None:
    is_fine = any(not is_negated(fragment, mark) for mark in fragment.all("keep"))
    return Act("remove") if live(fragment, "remove") and not is_fine else None


def _delete(fragment: Fragment) -> Act | None:
    found = [mark for mark in fragment.all("delete") if not is_negated(fragment, mark)]
    if not found or live(fragment, "fill", "smooth", "expand"):
        return None
    mark = found[0]
    if _is_report(fragment, mark) and fragment.has("place"):
        return Act("expand")
    names, pieces = names_in(fragment.marks), fragment.all("pieces")
    known = [name for name in names if is_known(name.mention)]
    origin = [name for name in known if preposition(fragment, name) in ("from", "of", "in")]
    others = [name for name in names if name not in origin and not (pieces and name in known and len(known) == 1)]
    if mark.text.startswith("cut") and not pieces and not others and fragment.before(mark):
        return Act("expand")
    if fragment.has("edges") and mark.text.startswith("clean"):
        return Act("smooth")
    if live(fragment, "shrink"):
        return Act("shrink")
    objects = [name for name in others if not is_known(name.mention) or origin]
    beside = [name for name in objects if preposition(fragment, name) in ("near", "place", "in")]
    is_large = bool(pieces) and says(pieces[0], "large_pieces")
    subjects = tuple(name.mention for name in origin[:1])
    if objects and (not pieces or is_large) and (is_large or objects[0] not in beside):
        in_it = [name for name in objects if preposition(fragment, name) not in ("near", "place")]
        if in_it:
            return Act("exclude", subjects, (in_it[0].mention,))
    if not pieces and not objects and fragment.has("place", "edges") and fragment.has("mm", "edges"):
        return Act("shrink", subjects)
    if pieces:
        is_at_place = fragment.has("place") and not any(says(each, "about_place") for each in fragment.marks)
        return Act("shrink" if is_large and is_at_place and not beside else "remove", subjects)
    return None


def _is_report(fragment: Fragment, mark: Mark) -> bool:
    """Whether something was removed that should not have been: "the lower pole was dropped"."""
    return mark.text.endswith("ed") and not fragment.has("modal", "requests")


def _move(fragment: Fragment) -> Act | None:
    """A border that is moved: outwards it is an expansion on its side."""
    if fragment.has("too"):
        return None
    found = [mark for mark in fragment.all("move") if not is_negated(fragment, mark)]
    places = [value for mark in fragment.all("place") for value in mark.values if value in OPPOSITES]
    first, *rest = fragment.marks
    if first.text == "lower" and rest and says(rest[0], "determiners"):
        places = [*places[1:], "inferior"]
    elif found and found[0].text in ("raise", "lift") and len(places) == 1:
        places.append("superior")
    elif not found and not (fragment.has("modal") and fragment.has("edges", "starts")):
        return None
    if len(places) != 2:
        return None
    border, towards = places
    if OPPOSITES[border] == towards:
        return Act("shrink", places=(border,))
    return Act("expand", places=(border,)) if border == towards else None


def _plain_acts(fragment: Fragment) -> list[Act]:
    """Acts that words say by themselves."""
    compared = fragment.all("than")
    names = {mark.mention.labels for mark in names_in(_before_than(fragment))}
    if compared and any(mark.mention.labels not in names for mark in names_in(fragment.after(compared[0])) if names):
        return []  # "the spleen is smaller than the liver"
    found: dict[Action, bool] = {}
    beyond = _beyond(fragment)
    if beyond is not None:
        return [beyond]
    for mark in live(fragment, "expand", "shrink", "fill", "smooth"):
        action, is_weak = _meant(fragment, mark)
        found[action] = found.get(action, True) and is_weak
    for act in (_unwanted(fragment), _too(fragment), _enough(fragment), _more(fragment)):
        if act is not None:
            found[act.action] = False
            if act.places is not None:
                return [act]
    strong = [action for action, is_weak in found.items() if not is_weak]
    if "expand" in strong and "shrink" in strong and any(says(mark, "cut_short") for mark in fragment.all("cue")):
        strong.remove("expand")
    return [Act(action) for action in strong or found]


def _meant(fragment: Fragment, mark: Mark) -> tuple[Action, bool]:
    """The action of a cue, and whether it counts only if nothing else is said."""
    action: Action = mark.values[0]  # type: ignore[assignment]
    after = fragment.after(mark)
    if says(mark, "compared") and fragment.has("than") and not fragment.has("modal"):
        than = next(each for each in fragment.marks if each.kind == "than")
        is_with_mask = any(each.kind in ("masks", "wanted", "taken_for", "asks") for each in fragment.after(than))
        if not is_with_mask:
            action = "shrink" if action == "expand" else "expand"
    if says(mark, "cut_short") and after and says(after[0], "determiners") and is_order(fragment, mark):
        action = "shrink"
    return action, action == "fill" and says(mark, "weak_holes")


def _unwanted(fragment: Fragment) -> Act | None:
    """What should be so, and is not: "does not reach the diaphragm"."""
    # "not labelled", but not "no label"
    wanted = [mark for mark in fragment.all("wanted", "masks", "edges") if mark.kind == "wanted" or _is_verb(mark)]
    # "does not extend to the dome", but not "do not extend it".
    wanted += [mark for mark in fragment.all("cue") if mark.text.startswith("extend") and is_statement(fragment, mark)]
    # "only covers half of it"
    is_partial = fragment.has("only") and not fragment.has("modal") and any(mark.kind == "wanted" for mark in wanted)
    if is_partial and not live(fragment, "expand", "shrink", "fill", "smooth"):
        return Act("expand")
    is_due = fragment.has("modal") and any(mark.kind == "wanted" for mark in wanted)
    return Act("expand") if is_due or any(is_negated(fragment, mark) for mark in wanted) else None


def _is_verb(mark: Mark) -> bool:
    return mark.text.endswith("ed")


def _beyond(fragment: Fragment) -> Act | None:
    """What goes past its border, or past that of the mask."""
    for mark in () if fragment.has("delete") else fragment.all("beyond"):
        if not is_negated(fragment, mark) and not live(fragment, "fill", "smooth") and not fragment.has("keep"):
            return Act("expand" if any(each.kind == "masks" for each in fragment.after(mark)) else "shrink")
    return None


def _too(fragment: Fragment) -> Act | None:
    """Too much of a size, or too far: "too wide", "too far down", "ends too high"."""
    for too in fragment.marks:
        if too.kind != "too" and not (too.kind == "strength" and too.text.endswith(" too")):
            continue
        if is_negated(fragment, too):
            return None
        for mark in fragment.after(too):
            if mark.kind in ("large", "small"):
                return Act("shrink" if mark.kind == "large" else "expand")
            if mark.kind == "place" and mark.values[0] in (*OPPOSITES, "lateral", "medial"):
                ends = [each for each in fragment.before(too) if each.kind == "starts"]
                border = [each for each in fragment.before(too) if each.kind == "place"]
                if ends and not border and mark.values[0] in OPPOSITES:
                    return Act("expand", places=(OPPOSITES[mark.values[0]],))
                is_short = border and OPPOSITES.get(border[-1].values[0]) == mark.values[0]
                return Act("expand", places=border[-1].values) if is_short else Act("shrink", places=mark.values)
            if mark.kind not in ("plain", "strength", "word"):
                break
        if too.text == "too far":
            return Act("shrink")
    return None


def _enough(fragment: Fragment) -> Act | None:
    """Not enough of a size: "not big enough"."""
    if not fragment.has("enough"):
        return None
    for mark in fragment.all("large", "small"):
        if is_negated(fragment, mark):
            return Act("expand" if mark.kind == "large" else "shrink")
    return None


def _more(fragment: Fragment) -> Act | None:
    """More that is needed, of nothing else that is said: "needs a little more at the back"."""
    is_needed = fragment.has("modal", "requests") or any(says(mark, "needed") for mark in fragment.marks)
    is_all = not fragment.has("word", "effects", "than")  # "a bit more on the right"
    return Act("expand") if fragment.has("more") and (is_needed or is_all) and not fragment.has(*SAYS) else None
