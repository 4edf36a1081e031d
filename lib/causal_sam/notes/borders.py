"""What a fragment says of where a border is, and where it should be."""

from __future__ import annotations

import itertools

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import (
    SAYS,
    Act,
    is_about_mask,
    is_negated,
    is_of_mask,
    is_order,
    is_verb,
    live,
    names_in,
    says,
)
from causal_sam.notes.laterality import OPPOSITES, side_of_part


def moved(fragment: Fragment) -> Act | None:
    """A border that is moved: outwards it is an expansion on its side."""
    if fragment.has("too"):
        return None
    found = [mark for mark in fragment.all("move") if not is_negated(fragment, mark)]
    # "come down from the top": the border is named last.
    is_from = {id(mark): any(each.kind == "from" for each in fragment.before(mark)) for mark in fragment.all("place")}
    marks = sorted(fragment.all("place"), key=lambda mark: not is_from[id(mark)])
    sides = [side_of_part(value) for mark in marks for value in mark.values]
    places = [side for side in sides if side in OPPOSITES]
    first, *rest = fragment.marks
    if first.text == "lower" and rest and says(rest[0], "determiners"):
        places = [*places[1:], "inferior"]
    elif found and found[0].text in ("raise", "lift") and len(places) == 1:
        places.append("superior")
    elif not found:
        is_wanted = fragment.has("modal") and fragment.has("edges", "starts")
        if not is_wanted or live(fragment, "expand", "shrink", "leak", "fill", "smooth"):
            return None
    away = [mark for mark in fragment.all("from") if found and mark in fragment.after(found[0])]
    if away and not places and names_in(fragment.after(away[0])):
        return Act("shrink", nears=(names_in(fragment.after(away[0]))[0].mention,))  # "off the rectum"
    is_further = any(says(mark, "further") for mark in fragment.marks)
    if found and len(places) == 1 and is_further and says(found[0], "pulled"):
        return Act("expand", places=(places[0],))  # "bring it down by another 5 mm"
    if len(places) != 2:
        return None
    border, towards = places
    if OPPOSITES[border] == towards:
        return Act("shrink", places=(border,))
    return Act("expand", places=(border,)) if border == towards else None


def beyond(fragment: Fragment) -> Act | None:
    """What goes past its border, or past that of the mask."""
    out = [mark for mark in fragment.all("from") if mark.text == "out of" and _is_before_mask(fragment, mark)]
    for mark in () if fragment.has("delete", "exclude", "modal") else [*fragment.all("beyond"), *out]:
        if not is_negated(fragment, mark) and not live(fragment, "fill", "smooth") and not fragment.has("keep"):
            is_wall = not fragment.after(mark) and not fragment.has("masks", "edges") and fragment.has("place")
            is_wall = is_wall and mark.text == "outside"  # "the anterior wall is outside"
            return Act("expand" if is_of_mask(fragment.after(mark)) or is_wall else "shrink")
    return None


def within(fragment: Fragment) -> Act | None:
    """A contour that runs inside of the organ: "lies within the capsule"."""
    for mark in fragment.all("in"):
        after = [each for each in fragment.after(mark) if not says(each, "determiners")]
        is_border = bool(after) and (after[0].kind in ("actual", "edges") or says(after[0], "shells"))
        is_contour = any(each.kind in ("masks", "edges") for each in fragment.before(mark))
        if says(mark, "insides") and is_border and is_contour and not fragment.has("modal", "requests", "not", "keep"):
            return None if live(fragment, "fill", "remove", "restyle") else Act("expand")
    return None


def placed(fragment: Fragment) -> Act | None:
    """Where something is in comparison with the mask: "reaches lower than drawn", "lies further back than drawn"."""
    for than in fragment.all("than"):
        places = [mark for mark in fragment.before(than) if mark.kind == "place" and mark.values[0] in OPPOSITES]
        is_of_place = any(
            mark.kind in ("wanted", "starts") or says(mark, "positions") for mark in fragment.before(than)
        )
        says_size = any(not says(mark, "positions") for mark in live(fragment, "expand", "shrink", "leak"))
        if not places or not is_of_place or says_size:
            continue
        border, towards = places[0].values[0], places[-1].values[0]
        is_with_mask = is_compared_with_mask(fragment, than)
        is_inwards = len(places) > 1 and OPPOSITES[border] == towards
        if is_inwards:
            return Act("shrink" if is_with_mask else "expand", places=(border,))
        return Act("expand" if is_with_mask else "shrink", places=(towards,))
    return None


def is_compared_with_mask(fragment: Fragment, than: Mark) -> bool:
    """Whether something is compared with its mask, and not a mask with what it is of."""
    after = fragment.after(than)
    if is_about_mask(fragment, fragment.before(than)) and not any(mark.kind == "masks" for mark in after):
        return False
    is_drawn = any(mark.kind in ("wanted", "taken_for") for mark in after)
    return is_of_mask(after) or (is_drawn and not any(mark.kind == "actual" for mark in after))


def further(fragment: Fragment) -> Act | None:
    """Where a contour should be: "should pass 4 mm further lateral"."""
    places = [mark for mark in fragment.all("place") if mark.values[0] in (*OPPOSITES, "lateral", "medial")]
    is_wish = (
        fragment.has("modal") and fragment.has("masks", "edges") and any(says(m, "comparing") for m in fragment.marks)
    )
    if len(places) != 1 or not is_wish or fragment.has("than", "not", *SAYS):
        return None
    return Act("expand", places=places[0].values)


def only_there(fragment: Fragment) -> Act | None:
    """What is missing if only the other side is there: "only the lower half is covered"."""
    for only in fragment.all("only"):
        after = [mark for mark in fragment.after(only) if mark.kind != "plain"]
        is_drawn = any(mark.kind == "wanted" or (mark.kind == "masks" and is_verb(mark)) for mark in after)
        is_side = bool(after) and after[0].kind == "place" and after[0].values[0] in OPPOSITES
        if is_side and is_drawn and not fragment.has("not", "modal", "requests") and not live(fragment, "expand"):
            return Act("expand", places=(OPPOSITES[after[0].values[0]],))
    return None


def past(fragment: Fragment) -> Act | None:
    """What goes on where it should have ended: "extends below the apex"; but "extends below the mask"."""
    for verb, mark in itertools.pairwise(
        mark for mark in fragment.marks if mark.kind not in ("plain", "mm", "strength")
    ):
        is_statement_ = says(verb, "goes_on") and not is_order(fragment, verb) and not is_negated(fragment, verb)
        if is_statement_ and says(mark, "about_place") and fragment.after(mark):
            return Act("expand" if is_of_mask(fragment.after(mark)) else "shrink", places=mark.values)
    return None


def overstated(fragment: Fragment) -> Act | None:
    """Where an organ does not reach, but its mask does: "the liver does not extend that far to the left"."""
    far = next((mark for mark in fragment.marks if says(mark, "so_far")), None)
    if far is None or not any(mark.kind == "not" for mark in fragment.before(far)):
        return None
    # "The mask does not go that far" may mean that it should.
    is_mask = is_about_mask(fragment, fragment.before(far)) and not fragment.has("modal")
    goes = any(
        says(mark, "goes_on") or says(mark, "positions") or mark.kind == "wanted" for mark in fragment.before(far)
    )
    return Act("shrink") if goes and not is_mask else None


def due(fragment: Fragment) -> Act | None:
    """What should go on, in words that else are complaints: "ought to bulge further to the right"."""
    for mark in fragment.all("cue"):
        is_wish = mark.values == ("leak",) and any(each.kind == "modal" for each in fragment.before(mark))
        is_further = any(says(each, "comparing") for each in fragment.after(mark))
        if is_wish and is_further and not is_negated(fragment, mark) and not fragment.has("not", "into", "from"):
            return Act("expand")
    return None


def starting(fragment: Fragment) -> Act | None:
    """Where a mask should begin or end: "should start higher", "stop it earlier"."""
    for mark in fragment.all("starts"):
        when = next((each.text for each in fragment.after(mark) if says(each, "when")), None)
        if when and not fragment.has("than", "too") and (fragment.has("modal", "requests") or is_order(fragment, mark)):
            is_start = mark.text.startswith(("start", "begin"))
            return Act("expand" if is_start == (when in ("earlier", "sooner")) else "shrink")
    if not fragment.has("modal"):
        return None
    for start in fragment.all("starts"):
        places = [mark for mark in fragment.after(start) if mark.kind == "place"]
        if start.text.startswith(("start", "begin")) and places and not is_negated(fragment, start):
            towards = places[0].values[0]
            if places[0].text == "higher":
                return Act("expand", places=(towards,))
            if places[0].text == "lower":
                return Act("shrink", places=(OPPOSITES[towards],))
    return None


def stopping(fragment: Fragment) -> Act | None:
    """A mask that ends on its way to a part: "stops 1 cm below the dome"."""
    for stop in fragment.all("starts"):
        after = fragment.after(stop)
        relative = [mark for mark in after if says(mark, "about_place")]
        parts = [mark for mark in fragment.after(relative[0]) if mark.kind == "place"] if relative else []
        if parts and not is_negated(fragment, stop):
            return Act("expand", places=parts[0].values)
    return None


def _is_before_mask(fragment: Fragment, mark: Mark) -> bool:
    after = [each for each in fragment.after(mark) if not says(each, "determiners")]
    return bool(after) and after[0].kind == "masks"
