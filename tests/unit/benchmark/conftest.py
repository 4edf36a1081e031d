"""Labelled images that tests of benchmarks share."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

SHAPE = (40, 36, 6)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with a block, each as T1 (bright block) and T2 (dark block)."""
    folder = tmp_path_factory.mktemp("images")
    cases = []
    for patient in range(3):
        rng = np.random.default_rng(patient)
        label = np.zeros(SHAPE, np.uint8)
        label[12 + patient : 24 + patient, 10:22] = 1
        nibabel.save(nibabel.Nifti1Image(label, np.diag([-2.0, -2.0, 6.0, 1.0])), folder / f"{patient}_label.nii.gz")
        for sequence, level in (("T1", 500), ("T2", 120)):
            image = rng.normal(300, 8, SHAPE)
            image[[0, 1, -1, -2]] = 0
            image[label > 0] = level
            path = folder / f"{patient}_{sequence}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.diag([-2.0, -2.0, 6.0, 1.0])), path)
            cases.append(
                {
                    "set": "blocks",
                    "case": str(patient),
                    "image": path.name,
                    "label": f"{patient}_label.nii.gz",
                    "modality": "MR",
                    "sequence": sequence,
                    "labels": {"1": "block"},
                }
            )
    (folder / "cases.json").write_text(json.dumps(cases))
    return folder
