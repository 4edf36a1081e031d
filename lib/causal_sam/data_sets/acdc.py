"""ACDC: cine MR of the heart (https://www.creatis.insa-lyon.fr/Challenge/acdc), with scribbles that people drew.

The scribbles are those of Valvano et al. 2021, arXiv 2007.01152, in the form of github.com/HiLab-git/WSL4MIS: the
values of the label map where something was drawn, and 4 where nothing was.
"""

from __future__ import annotations

import re
from pathlib import Path

from causal_sam.data_sets.case import Case, LayoutMismatch, image_files, pair_files, warn_left_out

STRUCTURES = {1: "right ventricle of the heart", 2: "myocardium", 3: "left ventricle of the heart"}
SCRIBBLES = "scribblesTr"
_IMAGE = re.compile(r"(patient\d{3}_frame\d{2})")


def find_cases(directory: Path) -> list[Case]:
    """Find the images with scribbles, one for each phase; those without a label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no such images.
    """
    pairs, unpaired = pair_files(directory / "imagesTr", directory / "labelsTr", _IMAGE, "{}")
    scribbles = image_files(directory / SCRIBBLES)
    cases = [
        Case("ACDC", name, image, label, "MR", "cine", STRUCTURES, is_complete=True, scribbles=scribbles[name])
        for name, image, label in pairs
        if name in scribbles
    ]
    if not cases:
        raise LayoutMismatch("there is no imagesTr/patient001_frame01.nii.gz with a label map and scribbles")
    warn_left_out("ACDC", [*unpaired, *(name for name, _, _ in pairs if name not in scribbles)])
    return cases
