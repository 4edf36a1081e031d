"""BTCV, "Beyond the Cranial Vault": abdominal CT with 13 organs (Synapse syn3193805)."""

from __future__ import annotations

import itertools
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
    10: "portal and splenic vein",
    11: "pancreas",
    12: "right adrenal gland",
    13: "left adrenal gland",
}
_ROOTS = (".", "Training", "RawData/Training")
# The second layout is that of MONAI's tutorials.
_FOLDERS = (("img", "label"), ("imagesTr", "labelsTr"))
_IMAGE = re.compile(r"img(\d{4})")


def find_cases(directory: Path) -> list[Case]:
    """Find the training cases; cases without a label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no such cases.
    """
    for root, (images, labels) in itertools.product(_ROOTS, _FOLDERS):
        pairs, unpaired = pair_files(directory / root / images, directory / root / labels, _IMAGE, "label{}")
        if pairs:
            warn_left_out("BTCV", unpaired)
            return [
                Case("BTCV", number, image, label, "CT", "portal venous", ORGANS, is_complete=True)
                for number, image, label in pairs
            ]
    raise LayoutMismatch("there is no img/img0001.nii.gz with a label/label0001.nii.gz")
