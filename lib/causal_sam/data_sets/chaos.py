"""CHAOS: abdominal CT with the liver and MR with four organs (https://chaos.grand-challenge.org).

Images are DICOM series, label maps a folder with one PNG for each slice. The pictures belong to the DICOM files in the
order of their names, whatever the direction of the slices is: the organizers count that way, and so it is checked
against the liver in a series of theirs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from causal_sam.data_sets.case import Case, OtherLayout, say_left_out
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.dicom_geometry import numbers
from causal_sam.imaging.directions import RAS_LPS

# The pictures of CT have one bit, which is read as 1.
CT_LABELS = {(1, 255): "liver"}
MR_LABELS = {63: "liver", 126: "right kidney", 189: "left kidney", 252: "spleen"}
# First and last grey value that mean a label of MR.
_MR_GREYS = {63: (55, 70), 126: (110, 135), 189: (175, 200), 252: (240, 255)}
# Images and label map of a case of MR, below its folder.
_MR_SERIES = (
    ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground", "T1 in phase"),
    ("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground", "T1 out of phase"),
    ("T2SPIR/DICOM_anon", "T2SPIR/Ground", "T2 SPIR"),
)


def find_cases(directory: Path) -> list[Case]:
    """Find the cases, of MR one for each sequence; those without a label map are left out, and said.

    Raises:
        OtherLayout: there are none.
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
                        label_reader=read_pictures,
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
                    label_reader=_read_mr_pictures,
                )
                for image, label, sequence in _MR_SERIES
                if (folder / image).is_dir()
            ]
    if not found:
        raise OtherLayout("there is no CT/1/DICOM_anon, MR/1/T1DUAL/DICOM_anon/InPhase or MR/1/T2SPIR/DICOM_anon")
    cases = [case for case in found if _files(case.label, ".png")]
    if not cases:
        raise OtherLayout(f"there is no PNG in {found[0].label.relative_to(directory)}, nor for another case")
    say_left_out("CHAOS", [f"{case.name} {case.sequence}" for case in found if case not in cases])
    return cases


def read_pictures(folder: Path, volume: Volume) -> NDArray[np.int64]:
    """Read a label map from one picture for each DICOM file of the image, in the order of their names.

    Args:
        folder: with the pictures.
        volume: the image, read from a folder of DICOM files.

    Returns:
        (I, J, K) grey values in the image's voxel order: columns, rows, and slices where their files say.

    Raises:
        InputError: there are more or fewer pictures than slices, or one has another size.
    """
    pictures, files = _files(folder, ".png"), _files(volume.source, ".dcm")
    count = volume.shape[2]
    if len(pictures) != count or len(files) != count:
        raise InputError(
            f"{folder} has {len(pictures)} pictures, and {volume.source} has {count} slices in {len(files)} DICOM "
            "files: there must be one picture and one file for each slice."
        )
    along = (np.linalg.inv(volume.affine) @ RAS_LPS)[2, :3]
    # Ranks, since slices need not be quite even.
    slices = np.argsort([_position(file) @ along for file in files])
    values = np.empty(volume.shape, np.int64)
    for k, index in enumerate(slices):
        picture = read_volume(pictures[index])
        if picture.shape[:2] != volume.shape[:2]:
            raise InputError(
                f"{pictures[index]} is {picture.shape[0]} x {picture.shape[1]} pixels, and the slices of "
                f"{volume.source} are {volume.shape[0]} x {volume.shape[1]}: they must be of the same size."
            )
        values[:, :, k] = np.rint(picture.array[:, :, 0])
    return values


def _read_mr_pictures(folder: Path, volume: Volume) -> NDArray[np.int64]:
    greys = read_pictures(folder, volume)
    values = greys.copy()
    for value, (first, last) in _MR_GREYS.items():
        values[(greys >= first) & (greys <= last)] = value
    return values


def _position(file: Path) -> NDArray[np.float64]:
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["ImagePositionPatient"])
    return numbers(header.get("ImagePositionPatient"), "ImagePositionPatient", 3, file.name)


def _numbered(folder: Path) -> list[Path]:
    """The folders of cases, in the order of their numbers."""
    return sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))


def _files(folder: Path, extension: str) -> list[Path]:
    return sorted(
        path for path in folder.glob("*") if path.suffix.lower() == extension and not path.name.startswith(".")
    )
