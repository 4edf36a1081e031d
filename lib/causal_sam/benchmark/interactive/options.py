"""Choices of the interactive benchmark; a separate module that is fast to import, for help texts."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Images that are segmented: single slices, or whole volumes."""

    SLICES = "slices"
    VOLUME = "volume"


class Prompt(StrEnum):
    """First prompt of a structure."""

    CLICK = "click"
    BOX = "box"
    SCRIBBLE = "scribble"
    NAME = "name"


class Protocol(StrEnum):
    """Rules of the annotator: the benchmark's own, or those of a challenge."""

    OWN = "own"
    CVPR2025 = "cvpr2025"
