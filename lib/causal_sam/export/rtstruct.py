"""DICOM RT Structure Set of a label map: closed planar contours on the slices of the image.

A contour runs halfway between voxels inside and outside of the structure, so that a reader that fills it gets the same
voxels. A part with holes is one contour that passes to each hole and back by the same way: DICOM's keyhole technique
(PS3.3 C.8.8.6.3), which all readers fill alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.measure import find_contours

from causal_sam.export.segment_codes import find_structure
from causal_sam.export.segmented_volume import Segment, SegmentedVolume
from causal_sam.export.source_images import ALGORITHM, EQUIPMENT, UTF_8, SourceImages, dicom_label
from causal_sam.imaging.directions import RAS_LPS

SERIES_NUMBER = 301
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, and still the one that structure sets name
DECIMALS = 3  # of coordinates in mm


def write_rtstruct(segmented: SegmentedVolume, sources: SourceImages) -> Dataset:
    """Make an RT Structure Set of a label map.

    Args:
        segmented: its values become the structures 1, 2, ... in ascending order.
        sources: images that the label map was drawn on.

    Raises:
        InputError: the label map is not on the grid of the images, or their headers lack what a structure set needs.
    """
    planes = sources.planes_of(segmented.label_map, segmented.image)
    first, now = sources.headers[0], datetime.now()
    with sources.explain_failure("RTSTRUCT"):
        made = SOPClass(
            study_instance_uid=first.StudyInstanceUID,
            series_instance_uid=generate_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(),
            sop_class_uid=RTStructureSetStorage,
            instance_number=1,
            modality="RTSTRUCT",
            transfer_syntax_uid=ImplicitVRLittleEndian,  # with explicit VR, a contour would be limited to 64 KB
            series_description=ALGORITHM,
            **EQUIPMENT,
        )
        made.copy_patient_and_study_information(first)
        made.SpecificCharacterSet = UTF_8
        made.OperatorsName = ""
        made.StructureSetLabel = ALGORITHM
        made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        made.ApprovalStatus = "UNAPPROVED"
        made.FrameOfReferenceUID, made.PositionReferenceIndicator = first.FrameOfReferenceUID, ""
        made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(sources)]
        made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
        for number, segment in enumerate(segmented.segments, start=1):
            made.StructureSetROISequence.append(_structure(number, segment, first.FrameOfReferenceUID))
            made.ROIContourSequence.append(_contours(number, segment, planes, sources))
            made.RTROIObservationsSequence.append(_observation(number, segment))
    return made


def _frame_of_reference(sources: SourceImages) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = sources.series_uid
    series.ContourImageSequence = [sources.reference(index) for index in range(sources.count)]
    study.ReferencedSOPClassUID = STUDY_CLASS
    study.ReferencedSOPInstanceUID = sources.headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = sources.headers[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _structure(number: int, segment: Segment, frame_of_reference: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = number, dicom_label(segment.name)
    item.ROIDescription = segment.name
    item.ReferencedFrameOfReferenceUID = frame_of_reference
    item.ROIGenerationAlgorithm = "SEMIAUTOMATIC"
    return item


def _observation(number: int, segment: Segment) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIIdentificationCodeSequence = [find_structure(segment.name).concept()]
    item.RTROIInterpretedType, item.ROIInterpreter = "", ""
    return item


def _contours(number: int, segment: Segment, planes: NDArray[np.integer], sources: SourceImages) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber, item.ROIDisplayColor = number, list(segment.color)
    item.ContourSequence = []
    to_lps = RAS_LPS @ sources.affine
    for index in np.flatnonzero((planes == segment.value).any(axis=(1, 2))).tolist():
        for polygon in polygons_of(planes[index] == segment.value):
            voxels = np.column_stack([polygon[:, ::-1], np.full(len(polygon), index)])
            points = voxels @ to_lps[:3, :3].T + to_lps[:3, 3]
            contour = Dataset()
            contour.ContourImageSequence = [sources.reference(index)]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            coordinates = [f"{coordinate:.{DECIMALS}f}" for coordinate in points.ravel()]
            # pydicom would check each of up to millions of numbers for several microseconds.
            contour.add(DataElement("ContourData", "DS", coordinates, already_converted=True))
            item.ContourSequence.append(contour)
    return item


def polygons_of(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Yield the border of each part of a mask.

    Args:
        mask: (rows, columns). Voxels that touch at a corner alone are two parts.

    Yields:
        (N, 2) corners (row, column) of a closed polygon, halfway between voxels; the first one is not repeated.
    """
    parts, _ = ndimage.label(mask)
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        rings = find_contours(np.pad(parts[place] == number, 1), 0.5)
        outer, *holes = sorted((ring[:-1] for ring in rings), key=lambda ring: -np.ptp(ring, axis=0).prod())
        for hole in holes:
            outer = _with_hole(outer, hole)
        yield outer + [side.start - 1 for side in place]


def _with_hole(polygon: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Go around a polygon, on the way to the nearest corner of a hole, around that, and back."""
    distances = cdist(polygon, hole)
    leave, enter = np.unravel_index(distances.argmin(), distances.shape)
    around = np.roll(hole, -enter, axis=0)
    return np.concatenate([polygon[: leave + 1], around, around[:1], polygon[leave:]])
