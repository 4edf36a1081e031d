"""Labelled volumes that are not used in training: generated abdomens and real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.interactive import join_structures
from causal_sam.data_sets.cases import Case, matching_cases, read_cases
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
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


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A volume with true masks.

    Attributes:
        group: group of the case in the report.
        case: name of the case in the group.
        volume: image.
        structures: name -> mask in the volume's voxel order.
        tested: names of the structures to test; the others are neighbours.
    """

    group: str
    case: str
    volume: Volume
    structures: Mapping[str, NDArray[np.bool_]]
    tested: tuple[str, ...]


# Volumes are read one by one, since not all fit into memory.
Reader = Callable[[], LabelledVolume]


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


def real_cases(
    directory: Path, kind: str, patterns: Sequence[str], labels: Sequence[str], joins: Mapping[str, list[str]]
) -> list[Reader]:
    """Return labelled images of a folder.

    Args:
        directory: folder of the images.
        kind: data set in the folder, or "auto".
        patterns: SET/CASE/SEQUENCE with * and ?; a case must match one of them. Empty for all cases.
        labels: structures to test; empty for all.
        joins: name of a union of structures -> these structures.

    Raises:
        InputError: the folder cannot be used, or a pattern matches no case.
    """
    cases = matching_cases(read_cases(directory, kind), patterns or ["*"])
    return [partial(_real, case, labels, joins) for case in cases]


def _abdomen(style: str, patient: int) -> LabelledVolume:
    volume, values = studies.render_study(studies.STYLES[style], patient, anatomy=patient)
    structures = {name: np.isin(values, [studies.LABELS[part] for part in parts]) for name, parts in STRUCTURES.items()}
    return LabelledVolume(f"generated {volume.modality}", f"{style} {patient}", volume, structures, tuple(structures))


def _real(case: Case, labels: Sequence[str], joins: Mapping[str, list[str]]) -> LabelledVolume:
    volume, structures = case.read()
    join_structures(structures, dict(joins))
    group = " ".join(filter(None, (case.group, volume.modality)))
    name = " ".join(filter(None, (case.name, case.sequence)))
    tested = tuple(structure for structure in structures if not labels or structure in labels)
    return LabelledVolume(group, name, volume, structures, tested)
