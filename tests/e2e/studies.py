"""The DICOM studies of the end-to-end tests: demo studies of the package, with their true organs as arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from causal_sam.imaging import read_volume
from causal_sam.phantom.studies import DemoStudy, write_demo_studies


@dataclass(frozen=True)
class Study:
    """One study of one series.

    Attributes:
        dicom: folder of the DICOM files.
        study_uid: identifier that OHIF opens it by.
        organs: label -> boolean array (I, J, K) of the true organ; i counts columns, j rows, k slices from inferior to
            superior, as in OHIF and in the files that MONAI Label makes of the series.
    """

    dicom: Path
    study_uid: str
    organs: dict[str, np.ndarray]


def write_studies(folder: Path, names: list[str]) -> dict[str, Study]:
    """Write the demo studies under `folder` and return those called `names`, by name."""
    return {study.name: _with_organs(study) for study in write_demo_studies(folder) if study.name in names}


def _with_organs(study: DemoStudy) -> Study:
    truth = read_volume(study.truth).array
    return Study(study.dicom, study.study_uid, {label: truth == value for label, value in study.labels.items()})
