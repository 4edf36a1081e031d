"""Colours of labels: those of the client, or else those that MONAI Label gives to structures."""

from __future__ import annotations

from typing import Any

from monailabel.datastore.utils.colors import GENERIC_ANATOMY_COLORS

Color = tuple[int, int, int]


def label_color(name: str, number: int, given: Any = None) -> Color:
    """Return red, green and blue from 0 to 255.

    Args:
        name: label name.
        number: position among the labels; neighbouring ones of unknown structures differ in colour.
        given: colour from the client, three numbers from 0 to 255; anything else does not count.
    """
    if isinstance(given, list | tuple) and len(given) >= 3:
        parts = given[:3]
        if all(isinstance(part, int | float) and 0 <= part <= 255 for part in parts):
            return round(parts[0]), round(parts[1]), round(parts[2])
    others = list(GENERIC_ANATOMY_COLORS.values())
    return GENERIC_ANATOMY_COLORS.get(name.lower(), others[number % len(others)])
