"""Common names of the structures of label maps, and unions of structures, from `names.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_SIDES = {"left": "right", "right": "left"}
_SIDE = re.compile(r"\b(left|right)\b")


@cache
def contents() -> Mapping[str, Any]:
    """Return the contents of `names.yaml`."""
    return yaml.safe_load((Path(__file__).parent / "names.yaml").read_text(encoding="utf-8"))


@cache
def common_name(name: str) -> str:
    """Return the common name of a structure of a label map; "" if it is none that people ask for.

    >>> common_name("white matter of left cerebral hemisphere"), common_name("other soft tissue"), common_name("liver")
    ('left cerebral white matter', '', 'liver')
    """
    for pattern, replacement in contents()["renamed"]:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name) if replacement else ""
    return name


@cache
def mirrored(name: str) -> str:
    """Return the name of the structure at the other side.

    >>> mirrored("left kidney"), mirrored("liver")
    ('right kidney', 'liver')
    """
    return _SIDE.sub(lambda match: _SIDES[match[1]], name)


@cache
def without_side(name: str) -> str:
    """Return a name without its side.

    >>> without_side("left lung upper lobe")
    'lung upper lobe'
    """
    return " ".join(_SIDE.sub("", name).split())


def unions(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the unions that a label map with these structures labels completely.

    Args:
        names: common names of all structures of the map, whether or not they are in a field of view.

    Returns:
        Name of each union, and the names of its parts.
    """
    known = frozenset(names)
    found: dict[str, frozenset[str]] = {}
    for name in sorted(known):  # equal seeds give equal samples in every process
        if name.startswith("left ") and mirrored(name) in known:
            base = without_side(name)
            found[contents()["plurals"].get(base, base)] = frozenset({name, mirrored(name)})
    # In the order of the file: later unions may be made of earlier ones.
    for name, choices in contents()["unions"].items():
        for choice in choices:
            parts = [frozenset(filter(re.compile(f"^(?:{pattern})$").match, known)) for pattern in choice]
            if all(parts):
                found[name] = frozenset().union(*parts)
                break
    return {name: parts for name, parts in found.items() if name not in known}
