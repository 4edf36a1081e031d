"""Check that no act changes a place that the note denies, protects or approves: "too large, but not at the dome"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from causal_sam.errors import InputError
from causal_sam.notes.acts import acts_of
from causal_sam.notes.clarification import ClarificationNeeded
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.laterality import has_side_in_name, resolve_direction, side_of
from causal_sam.notes.places import places_of
from causal_sam.notes.schema import Direction, Intervention
from causal_sam.notes.vocabulary import load_vocabulary

# Acts that change a mask all around if nothing says where.
_WIDE = frozenset({"expand", "shrink", "smooth", "restyle"})
# Kinds that may stand between a negation and its place: "not at the very top".
_BEFORE_PLACES = frozenset(
    {"plain", "in", "of", "place", "edges", "pieces", "masks", "strength", "near", "all", "small", "it"}
)


def check_spared_places(fragments: Sequence[Fragment], acts: Sequence[Intervention]) -> None:
    """Check that each place that a note spares is on another side than the acts on that label.

    A fragment without the name of a label is about the label before it.

    Args:
        fragments: fragments that were read.
        acts: interventions of the note.

    Raises:
        ClarificationNeeded: an act changes the place, since no act can leave a part out.
    """
    about: set[str] = set()
    for fragment in fragments:
        about = {label for name in fragment.names for label in name.mention.all_labels} or about
        for place in _spared_places(fragment):
            act = next((act for act in acts if act.label in about and _reaches(act, fragment, place)), None)
            if act is not None:
                words = " ".join(mark.text for mark in fragment.marks)
                size = "small" if act.action == "expand" else "large"
                raise ClarificationNeeded(
                    f'Where is the {act.label} to change, if "{words}"? Name each side that is to change, as in: '
                    f"{act.label} is too {size} inferiorly and on the left."
                )


def _spared_places(fragment: Fragment) -> Iterator[Mark]:
    """Yield the places of a fragment that only says where nothing is to be done."""
    is_approval = bool(fragment.approvals())
    if is_approval and fragment.has("except"):
        return  # "fine except at the dome"
    has_act = bool(acts_of(fragment)) or fragment.has("only", "enough", "wanted")
    for mark in fragment.all("place"):
        is_sparing = is_approval or fragment.marks[0].is_in("leaving") or _is_denied(fragment, mark)
        if fragment.protects() or (is_sparing and not has_act):
            yield mark


def _is_denied(fragment: Fragment, place: Mark) -> bool:
    """Return whether a negation or exception is about a place: "not at the dome", but not "no cyst in the dome"."""
    for mark in reversed(fragment.before(place)):
        if mark.kind in ("not", "except"):
            return True
        if mark.kind not in _BEFORE_PLACES:
            break
    return fragment.marks[-1].kind == "not"


def _reaches(act: Intervention, fragment: Fragment, mark: Mark) -> bool:
    """Return whether an act changes a place that a fragment spares."""
    place = next((each for each in places_of(fragment) if each.values == mark.values), None)
    is_side = mark.values in (("left",), ("right",)) and has_side_in_name(act.label)
    if place is None or not place.applies_to(act.label, {}):
        return False
    if is_side and (
        mark.values != (side_of(act.label),) or not any(each.kind == "in" for each in fragment.before(mark))
    ):
        return False  # "left kidney too large, the right is fine"
    if act.direction is not None:
        return act.action != "keep" and act.direction in _directions(mark, act.label)
    return act.action in _WIDE and act.slices is None and act.near is None


def _directions(place: Mark, label: str) -> Iterator[Direction | None]:
    for value in place.values:
        try:
            yield resolve_direction(value, label, None, load_vocabulary())
        except InputError:
            continue
