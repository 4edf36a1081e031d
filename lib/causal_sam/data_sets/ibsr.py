"""IBSR-18: T1 of brains with three tissues (https://www.nitrc.org/projects/ibsr)."""

from __future__ import annotations

import re
from pathlib import Path

from causal_sam.data_sets.case import Case, LayoutMismatch, image_files, warn_left_out

# Label 1 is cerebrospinal fluid, but the experts drew only the ventricles.
TISSUES = {1: "cerebral ventricles", 2: "gray matter", 3: "white matter"}
_FOLDER = re.compile(r"IBSR_\d{2}")


def find_cases(directory: Path) -> list[Case]:
    """Find the brains; those without a label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no such brains.
    """
    cases, unpaired = [], []
    for folder in sorted(path for path in directory.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)):
        files = image_files(folder)
        image, label = files.get(folder.name), files.get(f"{folder.name}_seg")
        if image and label:
            cases.append(Case("IBSR", folder.name, image, label, "MR", "T1", TISSUES, is_complete=True))
        else:
            unpaired.append(folder.name)
    if not cases:
        raise LayoutMismatch("there is no IBSR_01/IBSR_01.nii.gz with an IBSR_01/IBSR_01_seg.nii.gz")
    warn_left_out("IBSR", unpaired)
    return cases
