"""Names of the values of a label map, in all the forms in which clients send them; the one place that decodes them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging.label_maps import MAX_VALUE

BACKGROUND = "background"
Name = TypeVar("Name", bound=Hashable)


def named_masks(
    label_map: NDArray[np.integer], info: Mapping[str, Any]
) -> tuple[dict[str, NDArray[np.bool_]], list[int]]:
    """Split a label map into the structures that its info names unambiguously.

    Args:
        label_map: (I, J, K) label map; 0 is the background.
        info: info of the label.

    Returns:
        Name -> (I, J, K) mask, which may be empty, and the values without an unambiguous name.
    """
    present = [int(value) for value in np.unique(label_map) if value != 0]
    # Several segments may share a name.
    named = {(name, value): value for name, value in named_values(info)}
    values = values_by_name(named, present)
    by_value: dict[int, set[str]] = {}
    for (name, _), value in values.items():
        by_value.setdefault(value, set()).add(name)
    masks: dict[str, NDArray[np.bool_]] = {}
    for value, names in by_value.items():
        if len(names) == 1:
            (name,) = names
            mask = label_map == value
            masks[name] = masks[name] | mask if name in masks else mask
    return masks, [value for value in present if len(by_value.get(value, ())) != 1]


def names_in_info(info: Mapping[str, Any]) -> dict[str, int]:
    """Return label name -> value from the info of a label, in any of the clients' forms.

    ``label_info`` is a list of objects with a name and optionally ``idx`` or ``id``; ``label_names`` (also inside
    ``params``, where the server puts its own results) is an object name -> value or a list in the order of values.
    """
    return dict(named_values(info))


def values_by_name(named: Mapping[Name, int], present: Iterable[int]) -> dict[Name, int]:
    """Assign the values of a label map to names.

    Normally the client's values are used. Slicer, however, sends the numbers of all its segments but exports only some
    of them under the values 1, 2, ... If the map has one of these values without a name, names are assigned by
    position. This does not apply to higher values, which are unnamed structures, or if names share a value.

    Args:
        named: name -> value from `names_in_info`.
        present: values in the label map except 0.
    """
    present = set(present)
    values = set(named.values())
    if present <= values or max(present) > len(named) or len(values) < len(named):
        return dict(named)
    return {name: position for position, name in enumerate(sorted(named, key=named.__getitem__), start=1)}


def named_values(info: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return pairs of name and value as in `names_in_info`; a name may have several values."""
    return [(name.strip(), int(value)) for name, value in _pairs(info) if _is_value(value)]


def value_problem(info: Mapping[str, Any]) -> str | None:
    """Return a sentence about a name whose value is invalid in a label map; None if all are valid."""
    for name, value in _pairs(info):
        if value != 0 and not _is_value(value):
            return (
                f"The value of label {name[:40]!a} must be a whole number from 1 to {MAX_VALUE}, as in the label map, "
                f"not {_abbreviated(value)}."
            )
    return None


def _pairs(info: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the names of structures with the client's values, unchecked."""
    params = info.get("params")
    entries = info.get("label_info")
    if isinstance(entries, list) and entries:
        named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        pairs = [
            (entry["name"], entry.get("idx", entry.get("id", position)))
            for position, entry in enumerate(named, start=_first_position(entry["name"] for entry in named))
        ]
    else:
        names = info.get("label_names") or (params.get("label_names") if isinstance(params, dict) else None) or {}
        if isinstance(names, list):
            pairs = [(name, value) for value, name in enumerate(names, start=_first_position(names))]
        else:
            pairs = list(names.items()) if isinstance(names, dict) else []
    return [(name, value) for name, value in pairs if isinstance(name, str) and name.strip() not in ("", BACKGROUND)]


def _first_position(names: Iterable[Any]) -> int:
    """Return the value of the first name of a list: 0 if it is the background, otherwise 1."""
    return int(next(iter(names), None) != BACKGROUND)


def _is_value(value: Any) -> bool:
    """Return whether a value, possibly as text, is valid in a label map."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= len(str(MAX_VALUE)):
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_VALUE


def _abbreviated(value: Any) -> str:
    """Return the beginning of a value for a message."""
    return ascii(value)[:40] if not isinstance(value, int) or abs(value) < 2**64 else "a number of many digits"
