"""The DICOM studies of the end-to-end tests, with the true masks of their organs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid


@dataclass(frozen=True)
class Study:
    """A DICOM study of one series: its identifiers, the affine of its volume and the true organs.

    `organs` maps a label to a boolean array (I, J, K): i counts columns, j rows, k slices from inferior to superior.
    """

    folder: Path
    modality: str
    study_uid: str
    series_uid: str
    organs: dict[str, np.ndarray]


def write_study(folder: Path, modality: str) -> Study:
    folder.mkdir(parents=True)
    n, depth, spacing, thickness = 128, 20, 3.0, 6.0
    x, y, z = np.meshgrid(
        (np.arange(n) - n / 2) * spacing, (np.arange(n) - n / 2) * spacing, np.arange(depth) * thickness, indexing="ij"
    )

    def ball(cx, cy, cz, rx, ry, rz):
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1

    body = ball(0, 0, 60, 165, 120, 1000)
    organs = {
        "liver": ball(-75, -15, 75, 65, 70, 45),
        "spleen": ball(100, 30, 80, 30, 40, 30),
        "left kidney": ball(60, 60, 40, 24, 28, 36),
        "right kidney": ball(-60, 70, 25, 24, 26, 20),
    }
    values = {"liver": 110, "spleen": 150, "left kidney": 200, "right kidney": 200}
    rng = np.random.default_rng(0)
    image = np.full(x.shape, -1000.0)
    image[body] = 0
    for name, mask in organs.items():
        image[mask] = values[name]
    if modality == "MR":
        image = image + 1000
    image += rng.normal(0, 8, image.shape)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(depth):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        d.is_little_endian, d.is_implicit_VR = True, False
        d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        d.PatientName, d.PatientID, d.Modality = "Phantom^Abdomen", "PH" + modality, modality
        d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber = "20260101", "120000", "1", "1"
        d.PatientBirthDate, d.PatientSex, d.ReferringPhysicianName = "", "O", ""
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
        d.SeriesNumber, d.InstanceNumber, d.SeriesDescription = 1, k + 1, "phantom"
        d.ImagePositionPatient = [-n / 2 * spacing, -n / 2 * spacing, k * thickness]
        d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        d.PixelSpacing, d.SliceThickness, d.SpacingBetweenSlices = [spacing, spacing], thickness, thickness
        d.Rows = d.Columns = n
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
        if modality == "CT":
            d.RescaleIntercept, d.RescaleSlope, d.RescaleType = 0, 1, "HU"
            d.WindowCenter, d.WindowWidth = 40, 400
        else:
            d.WindowCenter, d.WindowWidth = 1000, 600
        d.PixelData = image[:, :, k].T.round().astype("<i2").tobytes()
        d.save_as(folder / f"{k:03d}.dcm", write_like_original=False)
    return Study(folder, modality, study, series, organs)
