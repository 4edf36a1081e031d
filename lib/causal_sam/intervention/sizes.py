"""What words say of a mask by themselves: too small, too large, with holes, rough."""

from __future__ import annotations

import itertools

from causal_sam.intervention.borders import beyond, further, only_there, past, placed, starting, stopping, within
from causal_sam.intervention.fragments import Fragment, Mark
from causal_sam.intervention.grammar import (
    SAYS,
    Act,
    before_than,
    is_negated,
    is_order,
    is_statement,
    is_verb,
    live,
    names_in,
    says,
)
from causal_sam.intervention.laterality import OPPOSITES, side_of_part
from causal_sam.intervention.places import is_part
from causal_sam.intervention.schema import Action


def plain_acts(fragment: Fragment) -> list[Act]:
    """Acts that words say by themselves."""
    compared = fragment.all("than")
    names = {mark.mention.labels for mark in names_in(before_than(fragment))}
    if compared and any(mark.mention.labels not in names for mark in names_in(fragment.after(compared[0])) if names):
        return []  # "the spleen is smaller than the liver"
    found: dict[Action, bool] = {}
    for rule in (beyond, within, placed, further, only_there, past):
        whole = rule(fragment)
        if whole is not None:
            return [whole]
    for mark in live(fragment, "expand", "shrink", "fill", "smooth"):
        if _is_finding(fragment, mark):
            continue
        action, is_weak = _meant(fragment, mark)
        found[action] = found.get(action, True) and is_weak
    for rule in (_unwanted, _too, _slightly, _short, stopping, starting, _graded, _enough, _more):
        act = rule(fragment)
        if act is not None:
            found[act.action] = False
            if act.places is not None:
                return [act]
    if "expand" in found and "fill" not in found and any(_is_interior(fragment, mark) for mark in fragment.marks):
        return [Act("fill")]
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
        after_than = fragment.after(than)
        is_with_mask = any(each.kind in ("masks", "wanted", "taken_for", "asks") for each in after_than)
        is_with_mask = is_with_mask or [each.kind for each in after_than] == ["it"]  # "bigger than that"
        if not is_with_mask:
            action = "shrink" if action == "expand" else "expand"
    if mark.text in ("lose", "loses") and fragment.has("mm") and is_order(fragment, mark):
        action = "shrink"  # "must lose 2 mm"
    is_on_object = bool(after) and (says(after[0], "determiners") or after[0].kind in ("mm", "more"))
    if says(mark, "cut_short") and is_on_object and is_order(fragment, mark):
        action = "shrink"
    return action, action == "fill" and says(mark, "weak_holes")


def _is_finding(fragment: Fragment, mark: Mark) -> bool:
    """Whether a word says nothing of a mask: "the liver is enlarged"."""
    before = fragment.before(mark)
    if mark.text.startswith(("disappear", "vanish")) and any(each.text == "make" for each in before):
        return True  # "make it disappear"
    is_state = any(says(each, "copulas") for each in before[-2:]) or (bool(before) and before[-1].mention is not None)
    is_state = is_state and says(mark, "findings")
    return is_state and not fragment.has("modal", "requests", "masks", "than")


def _is_interior(fragment: Fragment, mark: Mark) -> bool:
    """Whether it is the inside that is missing: "the centre of the lesion is left out"."""
    after = fragment.after(mark)
    return says(mark, "interiors") and bool(after) and (after[0].kind == "of" or says(after[0], "copulas"))


def _unwanted(fragment: Fragment) -> Act | None:
    """What should be so, and is not: "does not reach the diaphragm"."""
    # "not labelled", but not "no label"
    wanted = [mark for mark in fragment.all("wanted", "masks", "edges") if mark.kind == "wanted" or is_verb(mark)]
    # "does not extend to the dome", but not "do not extend it".
    wanted += [mark for mark in fragment.all("cue") if mark.text.startswith("extend") and is_statement(fragment, mark)]
    is_not_in = [mark.kind for mark in fragment.marks[-2:]] == ["not", "in"]  # "the tip is not in"
    if is_not_in or any(_lacks_part(fragment, mark) for mark in fragment.all("not")):
        return Act("expand")
    # "only covers half of it"
    is_partial = fragment.has("only") and not fragment.has("modal") and any(mark.kind == "wanted" for mark in wanted)
    if is_partial and not live(fragment, "expand", "shrink", "fill", "smooth"):
        return Act("expand")
    is_due = fragment.has("modal") and any(mark.kind == "wanted" for mark in wanted)
    # "cover the dome", but not "segment the liver"
    orders = [mark for mark in wanted if mark.kind == "wanted" and is_order(fragment, mark)]
    is_due = is_due or any(is_part(part) for mark in orders for part in fragment.after(mark))
    inside = [mark for mark in fragment.all("in") if says(mark, "insides") and fragment.has("pieces")]
    if inside and any(is_negated(fragment, mark) for mark in wanted) and names_in(fragment.after(inside[0])):
        return Act("fill")  # "voxels inside the kidney are not labelled"
    return Act("expand") if is_due or any(is_negated(fragment, mark) for mark in wanted) else None


def _lacks_part(fragment: Fragment, denial: Mark) -> bool:
    """Whether a mask is without a part: "mask without the dome", "dome not in the liver mask"."""
    after = [mark for mark in fragment.after(denial) if not says(mark, "determiners")]
    if fragment.has(*SAYS - {"cue"}, "modal", "requests", "starts", "protect"):
        return False
    if denial.text == "without":
        return bool(after) and is_part(after[0]) and not live(fragment, "shrink", "fill", "smooth", "restyle")
    kinds = [mark.kind for mark in after if mark.kind not in ("plain", "name")]
    return denial.text == "not" and kinds[:2] == ["in", "masks"] and fragment.has("place")


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
            if mark.text in ("soon", "early", "late"):
                is_start = any(each.text.startswith(("start", "begin")) for each in fragment.all("starts"))
                return Act("shrink" if is_start == (mark.text != "late") else "expand")
            if mark.kind == "place" and mark.values[0] in (*OPPOSITES, "lateral", "medial"):
                ends = [each for each in fragment.before(too) if each.kind == "starts"]
                border = [each for each in fragment.before(too) if each.kind == "place"]
                sides = [side_of_part(each.values[0]) for each in border]
                border = [each for each, side in zip(border, sides, strict=True) if side in OPPOSITES] or border
                value = side_of_part(border[-1].values[0]) if border else None
                if ends and not border and mark.values[0] in OPPOSITES:
                    return Act("expand", places=(OPPOSITES[mark.values[0]],))
                is_short = value is not None and OPPOSITES.get(value) == mark.values[0]
                return Act("expand", places=border[-1].values) if is_short else Act("shrink", places=mark.values)
            if mark.kind not in ("plain", "strength", "word"):
                break
        if too.text == "too far":
            return Act("shrink")
    return None


def _slightly(fragment: Fragment) -> Act | None:
    """A little of a size: "a touch tight"; and much of it, if it is said of a mask."""
    for mark, size in itertools.pairwise(fragment.marks):
        is_little = mark.values == ("slight",) or (mark.values == ("strong",) and fragment.has("masks"))
        if size.kind in ("large", "small") and is_little and not is_negated(fragment, size):
            return Act("shrink" if size.kind == "large" else "expand")
    return None


def _short(fragment: Fragment) -> Act | None:
    """Short by a length."""
    # "5 mm short", "two slices short"
    for mark in fragment.marks:
        if mark.kind != "mm" and not says(mark, "units"):
            continue
        following = [each for each in fragment.after(mark) if each.kind not in ("plain", "strength")]
        if following and says(following[0], "short") and not is_negated(fragment, following[0]):
            return Act("expand")
    return None


def _graded(fragment: Fragment) -> Act | None:
    """More or less of a size: "more wide", "less big"."""
    for mark, size in itertools.pairwise(fragment.marks):
        if size.kind not in ("large", "small") or is_negated(fragment, size):
            continue
        is_more = mark.kind == "more" if mark.kind == "more" or mark.text == "less" else None
        if is_more is not None:
            is_larger = is_more == (size.kind == "large")
            is_compared = fragment.has("than") and not fragment.has("modal", "requests")
            return Act("expand" if is_larger != is_compared else "shrink")
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
    # "another 5 mm"
    for mark, following in itertools.pairwise(fragment.marks):
        if says(mark, "further") and following.kind == "mm" and not fragment.has(*SAYS, "move"):
            return Act("expand")
    # "the pancreas needs its tail"
    for mark, owner, part in zip(fragment.marks, fragment.marks[1:], fragment.marks[2:], strict=False):
        is_whole = says(mark, "needed") and owner.text in ("its", "the") and is_part(part)
        if is_whole and part is fragment.marks[-1] and not fragment.has(*SAYS):
            return Act("expand")
    is_needed = fragment.has("modal", "requests") or any(says(mark, "needed") for mark in fragment.marks)
    is_all = not fragment.has("word", "effects", "than")  # "a bit more on the right"
    than = fragment.all("than")
    # "there is more edema than was contoured"
    is_drawn_less = bool(than) and any(
        mark.kind in ("masks", "wanted", "taken_for") or says(mark, "called") for mark in fragment.after(than[0])
    )
    is_needed = is_needed or is_drawn_less
    if fragment.has("mm") and any(mark.text == "less" for mark in fragment.marks) and not fragment.has(*SAYS):
        return Act("shrink")
    return Act("expand") if fragment.has("more") and (is_needed or is_all) and not fragment.has(*SAYS) else None
