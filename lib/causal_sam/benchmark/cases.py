"""Labelled images of a folder, as the benchmarks use them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.data_sets.cases import Case, matching_cases, read_cases
from causal_sam.imaging import Volume
from causal_sam.prompting.prompts import Strokes


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A volume with true masks.

    Attributes:
        group: group of the case in the report.
        case: name of the case in the group.
        volume: image.
        structures: name -> mask in the volume's voxel order.
        tested: names of the structures to test; the others are neighbours.
        scribbles: name of a structure -> what a person drew for it.
    """

    group: str
    case: str
    volume: Volume
    structures: Mapping[str, NDArray[np.bool_]]
    tested: tuple[str, ...]
    scribbles: Mapping[str, Strokes] = field(default_factory=dict)


# Volumes are read one by one, since not all fit into memory.
Reader = Callable[[], LabelledVolume]


def real_cases(
    directory: Path, kind: str, patterns: Sequence[str], labels: Sequence[str], joins: Mapping[str, list[str]]
) -> list[Reader]:
    """Return labelled images of a folder.

    Args:
        directory: folder of the images.
        kind: data set in the folder, or "auto".
        patterns: SET/CASE/SEQUENCE with * and ?; a case must match one of them. Empty for all cases.
        labels: structures to test; empty for all.
        joins: see `join_structures`.

    Raises:
        InputError: the folder cannot be used, or a pattern matches no case.
    """
    cases = matching_cases(read_cases(directory, kind), patterns or ["*"])
    return [partial(_real, case, labels, joins) for case in cases]


def join_structures(structures: dict[str, NDArray[np.bool_]], joins: Mapping[str, Sequence[str]]) -> None:
    """Add the unions of structures of which the case has all parts.

    Args:
        structures: name -> mask; gets the unions.
        joins: name of a union -> names of its parts, with * and ? for any text and letter.
    """
    names = list(structures)
    for union, parts in joins.items():
        found = [fnmatch.filter(names, part) for part in parts]
        if all(found):
            structures[union] = np.any([structures[name] for matches in found for name in matches], axis=0)


def _real(case: Case, labels: Sequence[str], joins: Mapping[str, list[str]]) -> LabelledVolume:
    volume, structures = case.read()
    scribbles = {name: Strokes(*drawn) for name, drawn in case.read_scribbles(volume).items()}
    join_structures(structures, joins)
    group = " ".join(filter(None, (case.group, volume.modality)))
    name = " ".join(filter(None, (case.name, case.sequence)))
    tested = tuple(structure for structure in structures if not labels or structure in labels)
    return LabelledVolume(group, name, volume, structures, tested, scribbles)
