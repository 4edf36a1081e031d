"""JSON from clients: objects that are finite, shallow, small, and hold text that can be written again."""

from __future__ import annotations

import json
import math
from typing import Any

from causal_sam.errors import InputError

MAX_DEPTH = 32
MAX_TEXT = 100_000
MAX_INTEGER = 2**53
"""Largest whole number that every client can represent exactly."""

# Python refuses numbers with more digits too, in a message that is of no use to a client.
_MAX_DIGITS = 400


def checked_object(text: str | bytes, what: str = "form field params") -> dict[str, Any]:
    """Parse a JSON object; blank text is an empty one.

    Args:
        text: text from a client.
        what: noun for the sentence.

    Raises:
        InputError: it is no JSON object, or `checked_json` refuses it.
    """
    value = checked_json(text, what) if text.strip() else {}
    if not isinstance(value, dict):
        raise InputError(f"The {what} must be a JSON object, not {json.dumps(value)[:40]}.")
    return value


def checked_json(text: str | bytes, what: str) -> Any:
    """Parse JSON.

    Raises:
        InputError: it is not valid JSON in UTF-8, or holds a number that is not finite or beyond `MAX_INTEGER`, text
            with lone surrogates or longer than `MAX_TEXT` characters, or more than `MAX_DEPTH` nested levels.
    """
    try:
        value = json.loads(text, parse_constant=_refused_constant, parse_int=_integer)
    except RecursionError:
        raise InputError(f"The {what} is nested too deeply; at most {MAX_DEPTH} levels are allowed.") from None
    except InputError as error:
        raise InputError(f"The {what} {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"The {what} is not text in UTF-8.") from None
    except ValueError as error:
        raise InputError(f"The {what} is not valid JSON: {error}.") from error
    if problem := _problem(value):
        raise InputError(f"The {what} {problem}")
    return value


def _refused_constant(name: str) -> float:
    raise InputError(f"contains {name}; numbers must be finite.")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise InputError("contains a whole number that is too large.")
    return int(digits)


def _problem(value: Any) -> str | None:
    """End of the sentence that says what is wrong with a parsed value; None if nothing is."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return None
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                if len(item) > MAX_TEXT:
                    return f"contains text of {len(item)} characters; at most {MAX_TEXT} are allowed."
                if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                    return "contains half of a character (a lone surrogate)."
            elif isinstance(item, float):
                if not math.isfinite(item):
                    return "contains a number that is too large; numbers must be finite."
            elif isinstance(item, int):
                if abs(item) > MAX_INTEGER:
                    return f"contains a whole number beyond {MAX_INTEGER}."
            elif isinstance(item, list):
                below += item
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
        level = below
    return f"is nested too deeply; at most {MAX_DEPTH} levels are allowed."
