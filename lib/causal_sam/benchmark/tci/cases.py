"""Generated abdomens that are not used in training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from causal_sam.benchmark.cases import LabelledVolume, Reader
from causal_sam.errors import InputError
from causal_sam.phantom import studies

# Training uses other images (`causal_sam.phantom.samples`), demo studies and other benchmarks smaller numbers.
FIRST_PATIENT = 50_000
PATIENTS = 1_000  # per seed
# Structure -> labels of the phantom that form it, including lesions and contents.
STRUCTURES: Mapping[str, tuple[str, ...]] = {
    "liver": ("liver", "liver lesion"),
    "spleen": ("spleen",),
    "right kidney": ("right kidney",),
    "left kidney": ("left kidney",),
    "stomach": ("stomach", "stomach content"),
    "gallbladder": ("gallbladder",),
    "pancreas": ("pancreas",),
    "aorta": ("aorta",),
}


def generated_cases(count: int, seed: int) -> list[Reader]:
    """Return generated abdomens, CT and MR in turn, each of a different patient.

    Args:
        count: number of abdomens.
        seed: seed of the patients.

    Raises:
        InputError: ``count`` is too large.
    """
    if count > PATIENTS:
        raise InputError(f"At most {PATIENTS} abdomens can be generated, not {count}.")
    styles = list(studies.STYLES)
    return [
        partial(_abdomen, styles[number % len(styles)], FIRST_PATIENT + PATIENTS * seed + number)
        for number in range(count)
    ]


def _abdomen(style: str, patient: int) -> LabelledVolume:
    volume, values = studies.render_study(studies.STYLES[style], patient, anatomy=patient)
    structures = {name: np.isin(values, [studies.LABELS[part] for part in parts]) for name, parts in STRUCTURES.items()}
    return LabelledVolume(f"generated {volume.modality}", f"{style} {patient}", volume, structures, tuple(structures))
