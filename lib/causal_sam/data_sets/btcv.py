"""BTCV, "Beyond the Cranial Vault": abdominal CT with 13 organs (Synapse syn3193805)."""

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
    10: "portal and splenic vein",
    11: "pancreas",
    12: "right adrenal gland",
    13: "left adrenal gland",
}
_ROOTS = (".", "Training", "RawData/Training")
# The second is what MONAI's tutorials make of the first.
_FOLDERS = (("img", "label"), ("imagesTr", "labelsTr"))
_IMAGE = re.compile(r"img(\d{4})")


def find_cases(directory: Path) -> list[Case]:
    """Find the training cases; those without a label map are left out, and said.

    Raises:
        OtherLayout: there are none.
    """
    for root in _ROOTS:
        for images, labels in _FOLDERS:
            cases = _cases(directory / root / images, directory / root / labels)
            if cases:
                return cases
    raise OtherLayout("there is no img/img0001.nii.gz with a label/label0001.nii.gz")


def _cases(images: Path, labels: Path) -> list[Case]:
    label_files = image_files(labels)
    cases, without = [], []
    for name, image in image_files(images).items():
        number = _IMAGE.fullmatch(name)
        if number is None:
            continue
        label = label_files.get(f"label{number[1]}")
        if label is None:
            without.append(name)
        else:
            cases.append(Case("BTCV", number[1], image, label, "CT", "portal venous", ORGANS, is_complete=True))
    if cases:
        say_left_out("BTCV", without)
    return cases
