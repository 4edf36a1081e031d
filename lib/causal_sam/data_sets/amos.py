"""AMOS22: abdominal CT and MR with 15 organs (https://amos22.grand-challenge.org)."""

from __future__ import annotations

import re
from pathlib import Path

from causal_sam.data_sets.case import Case, OtherLayout, image_files, say_left_out

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
    15: "prostate/uterus",  # whichever is there; the slash lets both names find it
}
LAST_CT = 500  # number of the case; those after it are MR
_PARTS = ("Tr", "Va")
_IMAGE = re.compile(r"amos_(\d{4})")


def find_cases(directory: Path) -> list[Case]:
    """Find the cases for training and validation; those without a label map are left out, and said.

    Raises:
        OtherLayout: there are none.
    """
    for root in (directory, directory / "amos22"):
        cases, without = [], []
        for part in _PARTS:
            labels = image_files(root / f"labels{part}")
            for name, image in image_files(root / f"images{part}").items():
                number = _IMAGE.fullmatch(name)
                if number is None:
                    continue
                if name not in labels:
                    without.append(name)
                    continue
                modality = "CT" if int(number[1]) <= LAST_CT else "MR"
                cases.append(Case("AMOS", number[1], image, labels[name], modality, "", ORGANS, is_complete=True))
        if cases:
            say_left_out("AMOS", without)
            return cases
    raise OtherLayout("there is no imagesTr/amos_0001.nii.gz with a labelsTr/amos_0001.nii.gz")
