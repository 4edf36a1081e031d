"""DICOM files for the tests: image series in any orientation, written with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid

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


def write_dicom(path: Path, pixels: NDArray[np.integer], **elements: Any) -> None:
    """Write one image; ``pixels`` are rows x columns (x 3), as stored; ``elements`` go into the header by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.is_little_endian, header.is_implicit_VR = True, False
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality = "CT"
    header.SeriesInstanceUID = header.StudyInstanceUID = "1.2.3.4"
    header.Rows, header.Columns = pixels.shape[:2]
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
    """Write slices k of an (I, J, K) array of stored values; i runs along the columns, ``affine`` is RAS+ millimetre.

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
            array[:, :, k].T,
            ImageOrientationPatient=[*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])],
            ImagePositionPatient=list((lps @ [0, 0, k, 1])[:3]),
            PixelSpacing=[spacing[1], spacing[0]],
            SliceThickness=spacing[2],
            InstanceNumber=k + 1,
            **elements,
        )
        files.append(path)
    return files


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
