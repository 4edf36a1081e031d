"""AMOS22: abdominal CT and MR with 15 organs (https://amos22.grand-challenge.org)."""

from __future__ import annotations

import re
from pathlib import Path

from causal_sam.data_sets.case import Case, LayoutMismatch, pair_files, warn_left_out

ORGANS = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior vena cava",
    10: "pancreas",
    11: "right adrenal gland",
    12: "left adrenal gland",
    13: "duodenum",
    14: "urinary bladder",
    15: "prostate/uterus",  # the slash lets both names find the label
}
LAST_CT = 500  # highest case number of CT; higher ones are MR
_PARTS = ("Tr", "Va")
_IMAGE = re.compile(r"amos_(\d{4})")


def find_cases(directory: Path) -> list[Case]:
    """Find the cases for training and validation; cases without a label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no such cases.
    """
    for root in (directory, directory / "amos22"):
        cases, unpaired = [], []
        for part in _PARTS:
            pairs, without = pair_files(root / f"images{part}", root / f"labels{part}", _IMAGE, "amos_{}")
            unpaired += without
            for number, image, label in pairs:
                modality = "CT" if int(number) <= LAST_CT else "MR"
                cases.append(Case("AMOS", number, image, label, modality, "", ORGANS, is_complete=True))
        if cases:
            warn_left_out("AMOS", unpaired)
            return cases
    raise LayoutMismatch("there is no imagesTr/amos_0001.nii.gz with a labelsTr/amos_0001.nii.gz")
