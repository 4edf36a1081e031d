"""What the script for labels learns from, and what it holds out."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from causal_sam.data_sets.case import Case

SCRIPT = Path(__file__).parents[3] / "training" / "train_labels.py"


@pytest.fixture
def brats(tmp_path):
    for number in range(5):
        name = f"BraTS2021_{number:05}"
        (tmp_path / name).mkdir()
        for suffix in ("flair", "t1", "t2", "seg"):
            image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
            nibabel.save(image, tmp_path / name / f"{name}_{suffix}.nii.gz")
    return tmp_path


def test_all_sequences_of_a_patient_are_held_out_together(script, brats, monkeypatch):
    monkeypatch.delattr(Case, "read")  # the names are known: nothing is read to find them
    arguments = Namespace(data=brats, kind="auto", label=["edema"], validation=0.4)
    names, learnt, held_out = script._cases(arguments, np.random.default_rng(0))
    assert names == ["edema"]
    assert (len(learnt), len(held_out)) == (9, 6)
    assert not {case.name for case in learnt} & {case.name for case in held_out}
    assert {case.sequence for case in held_out} == {"FLAIR", "T1", "T2"}
