"""BraTS, gliomas in MR of four sequences: the challenges of 2017 to 2021, and of 2023 (https://www.synapse.org/brats)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from causal_sam.data_sets.case import SEQUENCES, Case, LayoutMismatch, image_files, warn_left_out


class _Naming(NamedTuple):
    """Names of files and labels of a challenge."""

    case: re.Pattern[str]
    separator: str
    sequences: tuple[str, ...]
    labels: dict[int, str]


_NAMINGS = (
    _Naming(
        re.compile(r"brats(17|18|19|20|2021)_.+", re.IGNORECASE),
        "_",
        ("flair", "t1", "t1ce", "t2"),
        {1: "necrosis", 2: "edema", 4: "enhancing tumor"},
    ),
    # Only adult gliomas (GLI, SSA): in other challenges the numbers have other meanings.
    _Naming(
        re.compile(r"BraTS-(GLI|SSA)-\d{5}-\d{3}"),
        "-",
        ("t2f", "t1n", "t1c", "t2w"),
        {1: "necrosis", 2: "edema", 3: "enhancing tumor"},
    ),
)
_MAX_DEPTH = 2  # as in BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData/BraTS20_Training_001, or HGG and LGG


def find_cases(directory: Path) -> list[Case]:
    """Find the cases, one for each sequence; cases without a label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no such cases.
    """
    cases, unpaired = [], []
    for folder, naming in _case_folders(directory, _MAX_DEPTH):
        files = image_files(folder)
        label = files.get(f"{folder.name}{naming.separator}seg")
        if label is None:
            unpaired.append(folder.name)
            continue
        cases += [
            Case("BraTS", folder.name, image, label, "MR", SEQUENCES[suffix], naming.labels, is_complete=True)
            for suffix in naming.sequences
            if (image := files.get(f"{folder.name}{naming.separator}{suffix}"))
        ]
    if not cases and unpaired:
        raise LayoutMismatch(f"there is no {unpaired[0]}/…seg.nii.gz, nor one of the other cases")
    if not cases:
        raise LayoutMismatch("there is no folder such as BraTS20_Training_001, BraTS2021_00000 or BraTS-GLI-00000-000")
    warn_left_out("BraTS", unpaired)
    return cases


def _case_folders(directory: Path, deeper: int) -> Iterator[tuple[Path, _Naming]]:
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        naming = next((naming for naming in _NAMINGS if naming.case.fullmatch(folder.name)), None)
        # The parent folder may match the pattern of a case: BraTS2021_Training_Data.
        if naming and any(name.startswith(folder.name) for name in image_files(folder)):
            yield folder, naming
        elif deeper and os.access(folder, os.R_OK | os.X_OK):  # lost+found is not readable
            yield from _case_folders(folder, deeper - 1)
