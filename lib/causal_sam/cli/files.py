"""Paths of the files that are distributed with the package, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1]


def app_folder() -> Path:
    """Folder of the MONAI Label app."""
    packaged = PACKAGE / "_app"
    return packaged if packaged.is_dir() else CHECKOUT / "apps" / "causal_sam"


def requirements_file() -> Path:
    """The list of the versions that the tests run with."""
    packaged = PACKAGE / "requirements.txt"
    return packaged if packaged.is_file() else CHECKOUT / "requirements.txt"
