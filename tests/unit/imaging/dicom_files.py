"""DICOM files for the tests: image series in any orientation, written with pydicom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)
from scipy.spatial.transform import Rotation

PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19700101",
    "InstitutionName": "Saint Elsewhere",
    "StudyDate": "20200202",
    "AccessionNumber": "ACC-0815",
    "StudyDescription": "Follow-up of Jane Doe",
    "PatientComments": "Jane was late",
}

# Directions of columns i, rows j and slices k in RAS+, right-handed as DICOM's own are in LPS+.
AXIAL = np.diag([-1.0, -1.0, 1.0])
CORONAL = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
SAGITTAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
OBLIQUE = Rotation.from_euler("xyz", (20, -15, 35), degrees=True).as_matrix() @ AXIAL
SERIES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}


def make_affine(directions: NDArray[np.float64] = AXIAL) -> NDArray[np.float64]:
    """RAS+ grid with voxels of 0.75 x 1.5 x 4 mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions * (0.75, 1.5, 4.0)
    affine[:3, 3] = (10.5, -20.25, 300.0)
    return affine


def write_dicom(path: Path, pixels: NDArray[np.integer], **elements: Any) -> None:
    """Write one image; ``pixels`` are rows x columns (x 3), as stored; ``elements`` go into the header by keyword.

    Of several frames ``pixels`` are frames x rows x columns (x 3), with ``NumberOfFrames`` among the elements.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = elements.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.is_little_endian, header.is_implicit_VR = True, False
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality = "CT"
    header.SeriesInstanceUID = header.StudyInstanceUID = "1.2.3.4"
    header.Rows, header.Columns = pixels.shape[1:3] if "NumberOfFrames" in elements else pixels.shape[:2]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in {**PATIENT, **elements}.items():
        setattr(header, keyword, value)
    header.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    pydicom.dcmwrite(path, header, write_like_original=False)


def write_series(
    folder: Path,
    array: NDArray[np.integer],
    affine: NDArray[np.float64],
    *,
    names: list[str] | None = None,
    **elements: Any,
) -> list[Path]:
    """Write slices k of an (I, J, K) or (I, J, K, 3) array of stored values.

    The index i runs along the columns; ``affine`` is RAS+ millimetre.

    Returns:
        The files in the order of k; ``names`` gives their names in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
    files = []
    for k in range(array.shape[2]):
        path = folder / (names[k] if names else f"{k:03d}.dcm")
        write_dicom(
            path,
            array[:, :, k].swapaxes(0, 1),
            ImageOrientationPatient=[*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])],
            ImagePositionPatient=list((lps @ [0, 0, k, 1])[:3]),
            PixelSpacing=[spacing[1], spacing[0]],
            SliceThickness=spacing[2],
            InstanceNumber=k + 1,
            **elements,
        )
        files.append(path)
    return files


def write_slices(
    folder: Path,
    places: Sequence[Sequence[float]],
    directions: NDArray[np.float64] = AXIAL,
    *,
    shape: tuple[int, int] = (8, 6),
    prefix: str = "",
    **elements: Any,
) -> list[Path]:
    """Write slices at any places, with air in them; the values of slice n lie above 100 n.

    Args:
        folder: made if it is not there.
        places: (x, y, z) of each slice in mm: along its rows, along its columns, and along the normal.
        directions: of columns i, rows j and slices k in RAS+.
        shape: rows and columns.
        prefix: of the files' names; their numbers follow.
        elements: of all headers, by keyword.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0]) @ directions
    files = []
    for number, place in enumerate(places):
        pixels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) + np.int16(100 * number)
        pixels[0, 0] = -1000
        files.append(folder / f"{prefix}{number:03d}.dcm")
        header = {
            "ImageOrientationPatient": [*lps[:, 0], *lps[:, 1]],
            "ImagePositionPatient": list(lps @ place),
            "PixelSpacing": [0.7, 0.7],
            "SliceThickness": 4,
            "InstanceNumber": number + 1,
        }
        write_dicom(files[-1], pixels, **{**header, **elements})
    return files


def dataset(**elements: Any) -> Dataset:
    """A DICOM data set with these elements."""
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def write_enhanced(
    path: Path,
    array: NDArray[np.integer],
    affine: NDArray[np.float64],
    *,
    order: list[tuple[int, int]] | None = None,
    dimensions: bool = True,
    rescale: dict[tuple[int, int], tuple[float, float]] | tuple[float, float] | None = None,
    **elements: Any,
) -> list[Dataset]:
    """Write an (I, J, K, T) array of stored values as one enhanced multi-frame file; ``affine`` is RAS+ millimetre.

    Args:
        path: of the file.
        array: T are points in time.
        affine: of each of them.
        order: (k, t) of the frames in the file; by default t runs slowest.
        dimensions: let each frame say which slice and which point in time it is.
        rescale: slope and intercept, of all frames or of each.
        elements: of the header.

    Returns:
        The functional groups of the frames.
    """
    order = order or [(k, t) for t in range(array.shape[3]) for k in range(array.shape[2])]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
    shared = dataset(
        PlaneOrientationSequence=[
            dataset(ImageOrientationPatient=[*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])])
        ],
        PixelMeasuresSequence=[dataset(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])],
    )
    if isinstance(rescale, tuple):
        shared.PixelValueTransformationSequence = [_rescaling(*rescale)]
    groups = []
    for k, t in order:
        group = dataset(PlanePositionSequence=[dataset(ImagePositionPatient=list((lps @ [0, 0, k, 1])[:3]))])
        if dimensions:
            group.FrameContentSequence = [dataset(DimensionIndexValues=[1, t + 1, k + 1])]
        if isinstance(rescale, dict):
            group.PixelValueTransformationSequence = [_rescaling(*rescale[k, t])]
        groups.append(group)
    if dimensions:
        pointers = ("StackID", "TemporalPositionIndex", "InStackPositionNumber")
        elements["DimensionIndexSequence"] = [dataset(DimensionIndexPointer=tag_for_keyword(p)) for p in pointers]
    write_dicom(
        path,
        np.stack([array[:, :, k, t].T for k, t in order]),
        **{"SOPClassUID": EnhancedMRImageStorage, "Modality": "MR", "NumberOfFrames": len(order)} | elements,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    return groups


def _rescaling(slope: float, intercept: float) -> Dataset:
    return dataset(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")


def rewrite(path: Path, change: Callable[[FileDataset], None]) -> None:
    """Change a file's header in place."""
    header = pydicom.dcmread(path)
    change(header)
    header.save_as(path)


def damage(path: Path, keyword: str, value: bytes, vr: str | None = None) -> None:
    """Write any bytes as the value of an element, which need not be what its VR allows."""
    tag = Tag(tag_for_keyword(keyword))
    value += b" " * (len(value) % 2)
    raw = RawDataElement(tag, vr or dictionary_VR(tag), len(value), value, 0, False, True)
    rewrite(path, lambda header: header.__setitem__(tag, raw))


def without_meta(path: Path, *, implicit: bool) -> None:
    """Rewrite a file as old programs did: without preamble, and without saying how it is encoded."""
    header = pydicom.dcmread(path)
    header.preamble, header.file_meta = None, FileMetaDataset()
    header.is_implicit_VR = implicit
    header.save_as(path)


def write_report(path: Path) -> None:
    """Write a DICOM object without pixels, as archives keep beside the images."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.is_little_endian, header.is_implicit_VR = True, False
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality, header.SeriesInstanceUID, header.StudyInstanceUID = "SR", "1.2.3.9", "1.2.3.4"
    pydicom.dcmwrite(path, header, write_like_original=False)
