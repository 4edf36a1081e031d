"""Generated scans of brains from real label maps with FreeSurfer's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.phantom.scans import Style, render_scan

# Structure -> FreeSurfer's numbers, left and right together. All other numbers are outside the brain or unassigned.
STRUCTURES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "cerebral white matter": (2, 41),
        "cerebral cortex": (3, 42),
        "lateral ventricle": (4, 5, 43, 44),
        "cerebellar white matter": (7, 46),
        "cerebellar cortex": (8, 47),
        "thalamus": (10, 49),
        "caudate nucleus": (11, 50),
        "putamen": (12, 51),
        "pallidum": (13, 52),
        "brain stem": (16, 28, 60, 85),
        "hippocampus": (17, 53),
        "amygdala": (18, 26, 54, 58),
        "cerebrospinal fluid": (14, 15, 24, 72),
    }
)
# Structures for annotation that are visible on slices a few millimetres apart.
SEGMENTED = (
    "cerebral white matter", "cerebral cortex", "lateral ventricle", "cerebellar cortex", "thalamus", "caudate nucleus",
    "putamen", "brain stem",
)  # fmt: skip
EXTRACEREBRAL = 255


def _levels(white: float, cortex: float, deep: float, fluid: float) -> dict[str, float]:
    """Return the brightness of all structures from that of four tissues."""
    nucleus = cortex + 0.35 * (deep - cortex)
    return {
        "cerebral white matter": white, "cerebellar white matter": 0.97 * white,
        "brain stem": 0.93 * white + 0.07 * cortex, "cerebral cortex": cortex,
        "cerebellar cortex": 0.97 * cortex + 0.03 * white, "hippocampus": cortex,
        "amygdala": cortex, "thalamus": deep, "pallidum": 0.5 * (deep + white), "caudate nucleus": nucleus,
        "putamen": 0.6 * nucleus + 0.4 * deep, "lateral ventricle": fluid, "cerebrospinal fluid": fluid,
    }  # fmt: skip


def _mr(
    title: str, levels: dict[str, float], noise: float, bias: float, blur: float, vendor: str, tesla: float,
    repetition: float, echo: float, inversion: float | None = None, texture: float = 12,
) -> Style:  # fmt: skip
    tags: dict[str, str | float] = {
        "Manufacturer": vendor, "MagneticFieldStrength": tesla, "RepetitionTime": repetition, "EchoTime": echo,
        "ScanningSequence": "GR" if repetition < 100 else "SE",
    }  # fmt: skip
    if inversion is not None:
        tags |= {"InversionTime": inversion, "ScanningSequence": "IR"}
    return Style("MR", title, levels, (1.0, 1.0, 5.0), noise, texture, bias, tags, blur)


STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "T1 3 T A": _mr("T1-weighted, 3 T", _levels(820, 560, 660, 170), 14, 0.15, 0.5, "SIEMENS", 3.0, 8.5, 3.8),
        "T1 1.5 T B": _mr(
            "T1-weighted, 1.5 T", _levels(700, 540, 600, 260), 32, 0.2, 0.8, "GE MEDICAL SYSTEMS", 1.5, 9.8, 4.6
        ),
        "T1 3 T C": _mr(
            "T1-weighted, 3 T, strong bias field", _levels(860, 640, 720, 120), 24, 0.4, 0.6, "Philips", 3.0, 7.9, 3.5
        ),
        "T1 0.5 T": _mr(
            "T1-weighted, low field", _levels(620, 500, 545, 330), 75, 0.1, 1.3, "Hitachi", 0.5, 25.0, 9.0
        ),
        "T1 7 T": _mr(
            "T1-weighted, 7 T, inhomogeneous", _levels(900, 540, 690, 60), 20, 0.8, 0.4, "SIEMENS", 7.0, 6.0, 2.6
        ),
        "T2 3 T": _mr("T2-weighted, 3 T", _levels(330, 470, 400, 940), 22, 0.25, 0.6, "SIEMENS", 3.0, 4500.0, 95.0),
        "PD 1.5 T": _mr(
            "proton density, 1.5 T", _levels(560, 690, 630, 770), 26, 0.2, 0.8, "GE MEDICAL SYSTEMS", 1.5, 2800.0, 15.0
        ),
        "FLAIR 1.5 T": _mr(
            "FLAIR, 1.5 T", _levels(430, 590, 520, 90), 30, 0.25, 0.9, "Philips", 1.5, 9000.0, 120.0, 2500.0
        ),
    }
)  # fmt: skip


def structure_map(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Map FreeSurfer's numbers to the positions in `STRUCTURES`, counted from 1.

    Args:
        values: FreeSurfer's numbers, of any shape.

    Returns:
        uint8 of the same shape; 0 is background, and other numbers become `EXTRACEREBRAL`.

    Raises:
        InputError: the values have neither white matter nor cortex.
    """
    table = np.full(int(values.max()) + 1, EXTRACEREBRAL, np.uint8)
    table[0] = 0
    for position, numbers in enumerate(STRUCTURES.values(), start=1):
        table[[number for number in numbers if number < len(table)]] = position
    found = table[values]
    if not np.isin(found, (1, 2)).any():
        raise InputError(
            "This is no label map of a brain: FreeSurfer's 2, 3, 41 and 42 (white matter, cortex) are absent."
        )
    return found


def render_brain(
    values: NDArray[np.integer], affine: NDArray[np.float64], style: Style, seed: int
) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
    """Render a scan of a brain from a label map.

    Args:
        values: (I, J, K), FreeSurfer's numbers; slices lie along k.
        affine: 4x4, voxel index -> RAS+ millimetre.
        style: style of the scan.
        seed: seed of noise, texture, bias field, and of the brightness of tissues outside the brain.

    Returns:
        The image, and structure -> mask for `SEGMENTED`.
    """
    rng = np.random.default_rng(seed)
    named = structure_map(values)
    # Tissues outside the brain get a random brightness.
    outside = values * (named == EXTRACEREBRAL)
    numbers, dense = np.unique(outside, return_inverse=True)
    brightest = max(style.levels.values())
    levels = np.concatenate(
        ([0.0], [style.levels[name] for name in STRUCTURES], rng.uniform(0.1, 1.1, len(numbers)) * brightest)
    ).astype(np.float32)
    labels = np.where(named == EXTRACEREBRAL, dense.reshape(values.shape) + len(STRUCTURES), named)
    volume = render_scan(labels, affine, levels, style, rng)
    return volume, {name: np.isin(values, STRUCTURES[name]) for name in SEGMENTED}
