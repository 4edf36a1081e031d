"""Demo studies: one phantom abdomen as two CT and two MR examinations, as NIfTI files and as DICOM series."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from causal_sam.atomic import atomic_write
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.volume import Volume
from causal_sam.imaging.writing import write_mask
from causal_sam.phantom.abdomen import LABELS, SEGMENTED, draw_abdomen
from causal_sam.phantom.scans import Style, render_scan

MANIFEST = "demo.json"
# Incremented when the studies change, so that older folders are rewritten.
EDITION = 1
ANATOMY_SEED = 7
EXTENT_MM = (384.0, 288.0, 192.0)
UID_ROOT = "1.2.826.0.1.3680043.8.498."


_HU = {
    "fat": -105, "muscle": 58, "intraperitoneal fat": -98, "bone": 420, "spinal canal": 20, "lung": -830,
    "bowel": 48, "bowel content": -600, "pancreas": 95, "inferior vena cava": 150, "aorta": 165, "stomach": 75,
    "stomach content": 15, "gallbladder": 8, "right kidney": 185, "left kidney": 185, "spleen": 125,
    "liver": 112, "liver lesion": 58,
}  # fmt: skip
_T1 = {
    "fat": 900, "muscle": 300, "intraperitoneal fat": 870, "bone": 420, "spinal canal": 150, "lung": 25,
    "bowel": 330, "bowel content": 90, "pancreas": 520, "inferior vena cava": 120, "aorta": 100,
    "stomach": 330, "stomach content": 160, "gallbladder": 190, "right kidney": 340, "left kidney": 340,
    "spleen": 270, "liver": 480, "liver lesion": 280,
}  # fmt: skip
_T2 = {
    "fat": 620, "muscle": 130, "intraperitoneal fat": 600, "bone": 300, "spinal canal": 950, "lung": 20,
    "bowel": 380, "bowel content": 60, "pancreas": 360, "inferior vena cava": 90, "aorta": 70, "stomach": 330,
    "stomach content": 900, "gallbladder": 980, "right kidney": 560, "left kidney": 560, "spleen": 470,
    "liver": 250, "liver lesion": 600,
}  # fmt: skip
_NATIVE = {
    "pancreas": 42, "inferior vena cava": 42, "aorta": 42, "right kidney": 33, "left kidney": 33, "spleen": 50,
    "liver": 60, "liver lesion": 30, "stomach": 42,
}  # fmt: skip

STYLES = {
    "ct-portal-venous": Style(
        "CT", "CT, portal venous phase, 2 x 2 x 4 mm", _HU, (2.0, 2.0, 4.0), 12, 6, 0.0,
        {"Manufacturer": "Phantom", "KVP": 120.0, "ConvolutionKernel": "SOFT", "ContrastBolusAgent": "IODINE"},
    ),
    "ct-low-dose": Style(
        "CT", "CT without contrast, low dose, 2.4 x 2.4 x 3 mm", _HU | _NATIVE, (2.4, 2.4, 3.0), 22, 5, 0.0,
        {"Manufacturer": "Phantom", "KVP": 100.0, "ConvolutionKernel": "SHARP"},
    ),
    "mr-t1": Style(
        "MR", "MR, T1-weighted, 2 x 2 x 4 mm", _T1, (2.0, 2.0, 4.0), 16, 14, 0.25,
        {"Manufacturer": "Phantom", "MagneticFieldStrength": 1.5, "RepetitionTime": 4.5, "EchoTime": 2.2},
    ),
    "mr-t2": Style(
        "MR", "MR, T2-weighted, 1.6 x 1.6 x 6 mm", _T2, (1.6, 1.6, 6.0), 28, 18, 0.4,
        {"Manufacturer": "Phantom", "MagneticFieldStrength": 3.0, "RepetitionTime": 2400.0, "EchoTime": 92.0},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DemoStudy:
    """Paths and identifiers of a demo study.

    Attributes:
        name: identifier of the image in a MONAI Label folder data store.
        modality: "CT" or "MR".
        title: title for display.
        image: NIfTI file of the image.
        truth: NIfTI file of the true label map, on the grid of the image.
        labels: organ name -> value in ``truth``.
        dicom: folder of the same images as a DICOM series.
        study_uid, series_uid: DICOM identifiers.
    """

    name: str
    modality: str
    title: str
    image: Path
    truth: Path
    labels: dict[str, int]
    dicom: Path
    study_uid: str
    series_uid: str


def write_demo_studies(folder: Path) -> list[DemoStudy]:
    """Write the demo studies, unless they exist.

    The images are in ``folder``, where a MONAI Label data store finds them; the DICOM series are in ``dicom/`` and the
    true label maps in ``truth/``, where it does not. A manifest, which is written last, marks the set as complete.

    Args:
        folder: target folder, created if it does not exist.

    Returns:
        The studies in the order of `STYLES`.
    """
    folder = Path(folder)
    for part in (folder, folder / "dicom", folder / "truth"):
        part.mkdir(parents=True, exist_ok=True)
    studies = [_demo_study(folder, name, style) for name, style in STYLES.items()]
    manifest = folder / MANIFEST
    complete = {"edition": EDITION, "studies": [study.name for study in studies]}
    try:
        if json.loads(manifest.read_text()) == complete:
            return studies
    except (OSError, ValueError):
        pass  # absent or incomplete: write everything
    for seed, (study, style) in enumerate(zip(studies, STYLES.values(), strict=True)):
        _write_study(study, style, seed)
    with atomic_write(manifest) as part:
        part.write_text(json.dumps(complete))
    return studies


def generated_abdomen(
    spacing: tuple[float, float, float], anatomy: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw the label map of a patient.

    Args:
        spacing: voxel size in mm along left, posterior and superior.
        anatomy: seed of the patient's anatomy.

    Returns:
        (I, J, K) label map with the values of `LABELS`, and the 4x4 affine from voxel index to RAS+ millimetre.
    """
    shape = tuple(round(extent / step) for extent, step in zip(EXTENT_MM, spacing, strict=True))
    # DICOM's usual axial order: columns to the left, rows to posterior, slices to superior; the origin is the centre.
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (0, 0, -6)
    return draw_abdomen(shape, affine, np.random.default_rng(anatomy)), affine


def render_study(style: Style, seed: int, anatomy: int = ANATOMY_SEED) -> tuple[Volume, NDArray[np.uint8]]:
    """Render an abdomen in a style.

    Args:
        style: style of the image.
        seed: seed of noise and texture.
        anatomy: seed of the patient's anatomy; the demo studies share the default.

    Returns:
        The image as int16, and its label map with the values of `LABELS`.
    """
    labels, affine = generated_abdomen(style.spacing, anatomy)
    rng = np.random.default_rng(seed)
    air = -1000.0 if style.modality == "CT" else 0.0
    levels = np.array([air, *(style.levels[name] for name in LABELS)], np.float32)
    return render_scan(labels, affine, levels, style, rng), labels


def _demo_study(folder: Path, name: str, style: Style) -> DemoStudy:
    return DemoStudy(
        name=name,
        modality=style.modality,
        title=style.title,
        image=folder / f"{name}.nii.gz",
        truth=folder / "truth" / f"{name}.nii.gz",
        labels={organ: LABELS[organ] for organ in SEGMENTED},
        dicom=folder / "dicom" / name,
        study_uid=generate_uid(UID_ROOT, [name, "study"]),
        series_uid=generate_uid(UID_ROOT, [name, "series"]),
    )


def _write_study(study: DemoStudy, style: Style, seed: int) -> None:
    volume, labels = render_study(style, seed)
    image = nibabel.Nifti1Image(volume.array, volume.affine)
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    with atomic_write(study.image) as part:
        nibabel.save(image, part)
    write_mask(labels, volume, study.truth)
    (study.truth.parent / "labels.json").write_text(json.dumps(study.labels, indent=1))
    write_dicom_series(volume, study, style.tags)


def write_dicom_series(volume: Volume, study: DemoStudy, tags: dict[str, str | float]) -> None:
    """Write a volume as a DICOM series of CT or MR images.

    Args:
        volume: int16 image; k is the slice axis, i is the column index.
        study: demo study with the target folder, identifiers and title.
        tags: DICOM keyword -> value of further header elements.
    """
    study.dicom.mkdir(parents=True, exist_ok=True)
    lps = RAS_LPS @ volume.affine
    spacing = volume.spacing
    columns, rows = lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]
    for k in range(volume.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage if volume.modality == "CT" else MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(UID_ROOT, [study.name, str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = study.dicom / f"{k + 1:04d}.dcm"
        header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        header.is_little_endian, header.is_implicit_VR = True, False
        header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID = study.study_uid, study.series_uid
        header.FrameOfReferenceUID = generate_uid(UID_ROOT, [study.name, "frame"])
        header.PatientName, header.PatientID = f"Phantom^{study.name}", f"PHANTOM-{study.name.upper()}"
        header.PatientBirthDate, header.PatientSex, header.ReferringPhysicianName = "", "O", ""
        header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20260101", "120000", "1", ""
        header.StudyDescription, header.SeriesDescription = "Phantom abdomen", study.title
        header.Modality, header.SeriesNumber, header.InstanceNumber = volume.modality, 1, k + 1
        header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        header.PatientPosition, header.BodyPartExamined = "HFS", "ABDOMEN"
        header.ImageOrientationPatient = [round(float(v), 6) for v in (*columns, *rows)]
        header.ImagePositionPatient = [round(float(v), 4) for v in (lps @ (0, 0, k, 1))[:3]]
        header.PixelSpacing = [spacing[1], spacing[0]]
        header.SliceThickness = header.SpacingBetweenSlices = spacing[2]
        header.Rows, header.Columns = volume.shape[1], volume.shape[0]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        if volume.modality == "CT":
            header.RescaleIntercept, header.RescaleSlope, header.RescaleType = 0, 1, "HU"
            header.WindowCenter, header.WindowWidth = 50, 400
        else:
            header.WindowCenter, header.WindowWidth = 450, 900
            header.ScanningSequence, header.SequenceVariant, header.ScanOptions = "GR", "SP", ""
            header.MRAcquisitionType, header.EchoTrainLength = "3D", 1
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        header.PixelData = np.ascontiguousarray(volume.array[:, :, k].T).astype("<i2").tobytes()
        pydicom.dcmwrite(path, header, write_like_original=False)
