"""CHAOS: abdominal CT with the liver and MR with four organs (https://chaos.grand-challenge.org).

Images are DICOM series, label maps are folders with one PNG per slice. The PNGs correspond to the DICOM files in the
order of their names, whatever the direction of the slices, as the organisers define; this was verified with the liver
in a series of the data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from causal_sam.data_sets.case import Case, LayoutMismatch, warn_left_out
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.dicom_geometry import numbers
from causal_sam.imaging.directions import RAS_LPS

# The PNGs of CT have one bit, which may be read as 1.
CT_LABELS: dict[tuple[int, ...], str] = {(1, 255): "liver"}
MR_LABELS = {63: "liver", 126: "right kidney", 189: "left kidney", 252: "spleen"}
# Value of a label of MR -> first and last grey value.
_MR_GREYS = {63: (55, 70), 126: (110, 135), 189: (175, 200), 252: (240, 255)}
# Image, label map and sequence of an MR case, relative to its folder.
_MR_SERIES = (
    ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground", "T1 in phase"),
    ("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground", "T1 out of phase"),
    ("T2SPIR/DICOM_anon", "T2SPIR/Ground", "T2 SPIR"),
)


def find_cases(directory: Path) -> list[Case]:
    """Find the cases, one per sequence for MR; cases without a label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no such cases.
    """
    found: list[Case] = []
    for root in (directory, directory / "Train_Sets"):
        for folder in _numbered(root / "CT"):
            image, label = folder / "DICOM_anon", folder / "Ground"
            if image.is_dir():
                found.append(
                    Case(
                        "CHAOS",
                        f"CT {folder.name}",
                        image,
                        label,
                        "CT",
                        "portal venous",
                        CT_LABELS,
                        is_complete=True,
                        label_reader=read_png_labels,
                    )
                )
        for folder in _numbered(root / "MR"):
            found += [
                Case(
                    "CHAOS",
                    f"MR {folder.name}",
                    folder / image,
                    folder / label,
                    "MR",
                    sequence,
                    MR_LABELS,
                    is_complete=True,
                    label_reader=_read_mr_labels,
                )
                for image, label, sequence in _MR_SERIES
                if (folder / image).is_dir()
            ]
    if not found:
        raise LayoutMismatch("there is no CT/1/DICOM_anon, MR/1/T1DUAL/DICOM_anon/InPhase or MR/1/T2SPIR/DICOM_anon")
    cases = [case for case in found if _files(case.label, ".png")]
    if not cases:
        raise LayoutMismatch(f"there is no PNG in {found[0].label.relative_to(directory)}, nor for another case")
    warn_left_out("CHAOS", [f"{case.name} {case.sequence}" for case in found if case not in cases])
    return cases


def read_png_labels(folder: Path, volume: Volume) -> NDArray[np.int64]:
    """Read a label map from one PNG per DICOM file of the image, in the order of their names.

    Args:
        folder: folder of the PNGs.
        volume: image that was read from a folder of DICOM files.

    Returns:
        (I, J, K) grey values in the image's voxel order; slices follow the positions in the DICOM files.

    Raises:
        InputError: the number of PNGs differs from that of the slices, or a PNG has another size.
    """
    images, files = _files(folder, ".png"), [] if volume.source is None else _files(volume.source, ".dcm")
    count = volume.shape[2]
    if len(images) != count or len(files) != count:
        raise InputError(
            f"{folder} has {len(images)} pictures, and {volume.source} has {count} slices in {len(files)} DICOM "
            "files: there must be one picture and one file for each slice."
        )
    along = (np.linalg.inv(volume.affine) @ RAS_LPS)[2, :3]
    # Ranks, since the spacing need not be exactly even.
    slices = np.argsort([_position(file) @ along for file in files])
    values = np.empty(volume.shape, np.int64)
    for k, index in enumerate(slices):
        image = read_volume(images[index])
        if image.shape[:2] != volume.shape[:2]:
            raise InputError(
                f"{images[index]} is {image.shape[0]} x {image.shape[1]} pixels, and the slices of "
                f"{volume.source} are {volume.shape[0]} x {volume.shape[1]}: they must be of the same size."
            )
        values[:, :, k] = np.rint(image.array[:, :, 0])
    return values


def _read_mr_labels(folder: Path, volume: Volume) -> NDArray[np.int64]:
    greys = read_png_labels(folder, volume)
    values = greys.copy()
    for value, (first, last) in _MR_GREYS.items():
        values[(greys >= first) & (greys <= last)] = value
    return values


def _position(file: Path) -> NDArray[np.float64]:
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["ImagePositionPatient"])
    return numbers(header.get("ImagePositionPatient"), "ImagePositionPatient", 3, file.name)


def _numbered(folder: Path) -> list[Path]:
    """Return the folders of cases in the order of their numbers."""
    return sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))


def _files(folder: Path, extension: str) -> list[Path]:
    return sorted(
        path for path in folder.glob("*") if path.suffix.lower() == extension and not path.name.startswith(".")
    )
