"""DICOM SR of a label map: a measurement report (TID 1500) on the segments of a DICOM SEG, written with highdicom."""

from __future__ import annotations

import math
from collections.abc import Iterator

from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from causal_sam import __version__
from causal_sam.export.measurements import DECIMALS, Measurements, measure
from causal_sam.export.segment_codes import find_structure
from causal_sam.export.segmented_volume import SegmentedVolume
from causal_sam.export.source_images import ALGORITHM, EQUIPMENT, UTF_8, SourceImages

SERIES_NUMBER = 302
MILLILITRE = Code("ml", "UCUM", "milliliter")
# Modality -> the quantity that its voxels measure, and the unit.
QUANTITIES = {
    "CT": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
    "MR": (codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits),
}
PROCEDURES = {"CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.LN.MRIUnspecifiedBodyRegion}
DERIVATIONS = {
    "mean": codes.cid7464.Mean,
    "sd": codes.cid7464.StandardDeviation,
    "min": codes.cid7464.Minimum,
    "median": codes.cid7464.Median,
    "max": codes.cid7464.Maximum,
}


def write_dicom_sr(segmented: SegmentedVolume, sources: SourceImages, segmentation: Segmentation) -> Comprehensive3DSR:
    """Make a report of the volumes and intensities of the segments of a DICOM SEG.

    Args:
        segmented: the label map.
        sources: images that it was drawn on.
        segmentation: the DICOM SEG that was made of both.

    Raises:
        InputError: the headers lack what a report needs.
    """
    modality = str(sources.headers[0].get("Modality"))
    # The voxels of a CT series are not Hounsfield units in all cases.
    measured = segmented.image.modality if modality == "CT" else modality
    with sources.explain_failure("DICOM SR"):
        device = DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=[ALGORITHM, __version__]), name=ALGORITHM, model_name=ALGORITHM
        )
        groups = [
            _group(number, each, measured, segmentation) for number, each in enumerate(measure(segmented), start=1)
        ]
        report = MeasurementReport(
            ObservationContext(ObserverContext(codes.DCM.Device, device)),
            PROCEDURES.get(modality, codes.cid100.ImagingProcedure),
            groups,
        )
        made = Comprehensive3DSR(
            [*sources.headers, segmentation],
            report[0],
            series_instance_uid=generate_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            series_description=ALGORITHM,
            **EQUIPMENT,
        )
    made.SpecificCharacterSet = UTF_8
    return made


def _group(
    number: int, measurements: Measurements, modality: str, segmentation: Segmentation
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    structure, segment = find_structure(measurements.label), segmentation.SegmentSequence[number - 1]
    place = structure.region or structure
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(segment.TrackingUID, measurements.label),
        referenced_segment=ReferencedSegment.from_segmentation(segmentation, number),
        finding_type=structure.code,
        finding_category=structure.category,
        finding_sites=[FindingSite(place.code, laterality=place.side)],
        algorithm_id=AlgorithmIdentification(ALGORITHM, __version__),
        measurements=list(_measured(measurements, modality)),
    )


def _measured(measurements: Measurements, modality: str) -> Iterator[Measurement]:
    yield Measurement(codes.SCT.Volume, round(measurements.volume_ml, DECIMALS), MILLILITRE)
    if modality in QUANTITIES and math.isfinite(measurements.mean):
        quantity, unit = QUANTITIES[modality]
        for statistic, derivation in DERIVATIONS.items():
            value = round(getattr(measurements, statistic), DECIMALS)
            yield Measurement(quantity, value, unit, derivation=derivation)
