"""DICOM series in every geometry that archives hold, and what a DICOM SEG of them says, read with highdicom."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import requests
from numpy.typing import NDArray
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation
from unit.imaging.dicom_files import write_series

from causal_sam.imaging import Volume

# Directions in which columns, rows and stored slices run, RAS+.
AXIAL = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1]])
SAGITTAL = np.array([[0, -1, 0], [0, 0, -1], [-1, 0, 0]])
CORONAL = np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]])
BACKWARDS = np.array([[1], [1], [-1]])  # the slices are stored from the other end
MIRRORED = np.array([[-1], [1], [1]])  # the columns run the other way, as of a patient in prone position
TURN = Rotation.from_euler("xyz", [20, -15, 30], degrees=True)


def _affine(directions: NDArray, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = directions.T * spacing
    affine[:3, 3] = (-31.5, 12.25, 640.0)
    return affine


GEOMETRIES = {
    "axial": _affine(AXIAL, (0.8, 1.3, 5.0)),
    "axial-backwards": _affine(AXIAL * BACKWARDS, (0.8, 0.8, 1.5)),
    "axial-mirrored": _affine(AXIAL * MIRRORED, (0.8, 1.3, 2.0)),
    "sagittal": _affine(SAGITTAL, (0.9, 0.8, 3.0)),
    "coronal-backwards": _affine(CORONAL * BACKWARDS, (0.8, 0.9, 3.0)),
    "oblique": _affine(TURN.apply(AXIAL), (0.8, 1.3, 3.7)),
    "oblique-backwards": _affine(TURN.apply(AXIAL) * BACKWARDS, (1.3, 0.8, 3.7)),
    "oblique-sagittal": _affine(TURN.apply(SAGITTAL), (0.7, 0.9, 3.1)),
}
TILTED = _affine(AXIAL, (0.8, 0.8, 5.0))
TILTED[1, 2] = 1.5  # mm that each slice lies more to anterior: a tilted gantry
SHAPE = (32, 28, 8)
# What is bright: no two directions of it look the same.
BLOCK = (slice(6, 22), slice(8, 21), slice(2, 6))
NOTCH = (slice(14, 22), slice(8, 14), slice(2, 4))
INSIDE = (10, 17, 3)


@dataclass(frozen=True)
class Series:
    """A series in the archive.

    Attributes:
        uid: SeriesInstanceUID, which is MONAI Label's id of the image.
        folder: of its files.
        affine: voxel index (i, j, k) -> RAS+ millimetre, k in the order in which the slices are stored.
        images: headers of the slices in that order.
    """

    uid: str
    folder: Path
    affine: NDArray[np.float64]
    images: list[pydicom.Dataset]

    def place(self, label: Volume) -> NDArray:
        """Return a label map of any grid in the order of the stored slices, each voxel where it is in the patient."""
        voxels = np.argwhere(label.array)
        millimetre = voxels @ label.affine[:3, :3].T + label.affine[:3, 3]
        exact = (millimetre - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T
        np.testing.assert_allclose(exact, exact.round(), atol=0.01)
        placed = np.zeros(SHAPE, label.array.dtype)
        placed[tuple(exact.round().astype(int).T)] = label.array[tuple(voxels.T)]
        return placed


def write_geometry(folder: Path, affine: NDArray[np.float64]) -> Series:
    """Write a series with one bright block."""
    array = np.random.default_rng(0).normal(0, 15, SHAPE) - 80
    array[BLOCK] += 220
    array[NOTCH] -= 220
    uid = generate_uid()
    files = write_series(
        folder,
        array.astype(np.int16),
        affine,
        SeriesInstanceUID=uid,
        StudyInstanceUID=generate_uid(),
        FrameOfReferenceUID=generate_uid(),
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jürgen",
        PatientSex="O",
        ReferringPhysicianName="",
        StudyID="1",
        StudyTime="120000",
        SeriesNumber=1,
        RescaleIntercept=0,
        RescaleSlope=1,
    )
    return Series(uid, folder, affine, [pydicom.dcmread(file, stop_before_pixels=True) for file in files])


class Segmentations:
    """The DICOM SEG objects in an archive.

    Args:
        archive: URL of an Orthanc.
    """

    def __init__(self, archive: str) -> None:
        self._archive = archive

    def of(self, series: Series) -> list[highdicom.seg.Segmentation]:
        """All of them in the study of a series."""
        query = {"StudyInstanceUID": str(series.images[0].StudyInstanceUID), "Modality": "SEG"}
        found = requests.post(f"{self._archive}/tools/find", json={"Level": "Instance", "Query": query}, timeout=30)
        files = [requests.get(f"{self._archive}/instances/{id}/file", timeout=30).content for id in found.json()]
        return [highdicom.seg.segread(BytesIO(file)) for file in files]

    def store(self, segmentation: pydicom.Dataset) -> None:
        """Store one, as another workstation does."""
        buffer = BytesIO()
        segmentation.save_as(buffer)
        requests.post(f"{self._archive}/instances", data=buffer.getvalue(), timeout=30).raise_for_status()


def read_segments(segmentation: highdicom.seg.Segmentation, series: Series) -> dict[str, NDArray[np.bool_]]:
    """Return the masks of a DICOM SEG by the names of its segments, in the order of the series' stored slices.

    The frames are found by the images that they name as their source, and must lie where these do.
    """
    sources = {image.SOPInstanceUID: image for image in series.images}
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        (derivation,) = frame.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        image = sources[source.ReferencedSOPInstanceUID]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, image.ImagePositionPatient, atol=1e-3)
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        np.testing.assert_allclose(orientation, image.ImageOrientationPatient, atol=1e-5)
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, series.images[0].PixelSpacing, atol=1e-5)
    planes = segmentation.get_pixels_by_source_instance(list(sources), assert_missing_frames_are_empty=True)
    return {
        segment.SegmentLabel: planes[..., number].transpose(2, 1, 0) > 0
        for number, segment in enumerate(segmentation.SegmentSequence)
    }


def written_by_another(
    series: Series, masks: dict[str, NDArray], kind: str = "BINARY", **options: Any
) -> highdicom.seg.Segmentation:
    """Make a DICOM SEG of masks in the order of the stored slices, with highdicom, which leaves out empty slices."""
    codes = pydicom.sr.codedict.codes
    images = [pydicom.dcmread(file) for file in sorted(series.folder.iterdir())]
    planes = np.stack(list(masks.values()), axis=-1).transpose(2, 1, 0, 3)
    return highdicom.seg.Segmentation(
        images,
        planes.astype(np.uint8) if planes.dtype == bool else planes,
        kind,
        [
            highdicom.seg.SegmentDescription(
                number,
                name,
                codes.cid7150.Tissue,
                codes.cid7166.Tissue,
                highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
            for number, name in enumerate(masks, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Another",
        manufacturer_model_name="Workstation",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
