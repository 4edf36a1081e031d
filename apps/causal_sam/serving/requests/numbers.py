"""Numbers that clients send: one parser for clicks, boxes, closed curves, slices and frames.

JSON holds numbers of any size, and clients send text, booleans, lists and objects in their place.
"""

from __future__ import annotations

import math
import re
from typing import Any

from causal_sam.errors import InputError

MAX_NUMBER = 2**31
_WHOLE_TEXT = re.compile(r"\s*([+-]?[0-9]{1,10})(\.0*)?\s*")


def shown(value: Any) -> str:
    """Describe a value that a client sent, of whatever kind and size, for a sentence."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value) if abs(value) < 1e15 else "a number that is too large or not finite"
    if isinstance(value, str):
        return ascii(value) if len(value) <= 40 else ascii(value[:40]) + "…"
    return f"a list of {len(value)}" if isinstance(value, list) else "an object"


def checked_numbers(value: Any, counts: tuple[int, ...], form: str, what: str) -> list[float]:
    """Return a list of numbers that can be voxel indices or lie between them.

    Args:
        value: value from a client.
        counts: permitted lengths of the list.
        form: notation of the numbers, for the sentence: "[i, j, k]".
        what: noun for the sentence: "roi".

    Raises:
        InputError: it is no list of so many numbers, or one of them is not finite or not of a size that indices have.
    """
    if not isinstance(value, list) or len(value) not in counts:
        raise InputError(f"{what} must be {counts[0]} numbers {form} in voxel indices, not {shown(value)}.")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InputError(f"{what} must be {counts[0]} numbers {form} in voxel indices, with {shown(number)} in it.")
        if not abs(number) < MAX_NUMBER:  # nor is NaN
            raise InputError(f"{what} must be finite voxel indices {form}, with {shown(number)} in it.")
    return [float(number) for number in value]


def checked_points(value: Any, what: str, maximum: int, *, is_flat: bool = False) -> list[list[float]]:
    """Return a list of points [i, j, k].

    Args:
        value: value from a client; null and an empty text mean none.
        what: noun for the sentence: "foreground".
        maximum: maximum number of points.
        is_flat: the image has one slice, so that the third index may be left out.

    Raises:
        InputError: it is no list of points, or there are too many.
    """
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(isinstance(point, list) for point in value):
        raise InputError(f"{what} must be a list of points [i, j, k], not {shown(value)}.")
    if len(value) > maximum:
        raise InputError(f"{what} has {len(value)} points; at most {maximum} are taken in one request.")
    counts = (3, 2) if is_flat else (3,)
    points = (checked_numbers(point, counts, "[i, j, k]", f"A point of {what}") for point in value)
    return [[*point, 0.0] if len(point) == 2 else point for point in points]


def checked_whole(value: Any, what: str) -> int | None:
    """Return a whole number, or None for null and an empty text; text fields of clients send digits as text.

    Args:
        value: value from a client.
        what: noun for the sentence: "slice".

    Raises:
        InputError: it is no whole number, or none of a size that indices have.
    """
    if value is None or value == "":
        return None
    number: float = math.nan
    if isinstance(value, str) and (found := _WHOLE_TEXT.fullmatch(value)):
        number = int(found[1])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if not abs(number) < MAX_NUMBER or number != int(number):
        raise InputError(f"{what} must be a whole number, not {shown(value)}.")
    return int(number)
