"""DICOM SEG of a label map, written with highdicom."""

from __future__ import annotations

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from causal_sam import __version__
from causal_sam.export.segment_codes import find_structure
from causal_sam.export.segmented_volume import Segment, SegmentedVolume
from causal_sam.export.source_images import ALGORITHM, EQUIPMENT, UTF_8, SourceImages, dicom_label

SERIES_NUMBER = 300


def write_dicom_seg(segmented: SegmentedVolume, sources: SourceImages) -> Segmentation:
    """Make a DICOM SEG of a label map; it has the slices with voxels only.

    Args:
        segmented: its values become the segments 1, 2, ... in ascending order.
        sources: images that the label map was drawn on.

    Raises:
        InputError: the label map is not on the grid of the images, or their headers lack what a segmentation needs.
    """
    planes = sources.planes_of(_numbered(segmented), segmented.image)
    with sources.explain_failure("DICOM SEG"):
        made = Segmentation(
            sources.headers,
            planes,
            SegmentationTypeValues.BINARY,
            [_description(number, segment, sources) for number, segment in enumerate(segmented.segments, start=1)],
            series_instance_uid=generate_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            content_label="SEGMENTATION",
            content_description="Segmentation by Causal-SAM",
            series_description=ALGORITHM,
            **EQUIPMENT,
        )
    sources.number_frames(made)
    made.SpecificCharacterSet = UTF_8
    return made


def _numbered(segmented: SegmentedVolume) -> NDArray[np.uint16]:
    """Replace the values by 1, 2, ..."""
    values = [segment.value for segment in segmented.segments]
    numbers = np.zeros(values[-1] + 1, np.uint16)
    numbers[values] = np.arange(1, len(values) + 1)
    return numbers[segmented.label_map]


def _description(number: int, segment: Segment, sources: SourceImages) -> SegmentDescription:
    structure = find_structure(segment.name)
    made = SegmentDescription(
        number,
        dicom_label(segment.name),
        structure.category,
        structure.concept(),
        SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        highdicom.AlgorithmIdentificationSequence(ALGORITHM, codes.DCM.ArtificialIntelligence, __version__),
        # A structure of an image keeps its tracking UID in all versions of the segmentation.
        tracking_uid=generate_uid(entropy_srcs=[sources.series_uid, segment.name]),
        tracking_id=segment.name,
        anatomic_regions=structure.regions(),
    )
    made.SegmentDescription = segment.name
    made.SpecificCharacterSet = UTF_8  # within an item, OHIF ignores the file's character set
    made.RecommendedDisplayCIELabValue = list(CIELabColor(*rgb2lab(np.array(segment.color) / 255)).value)
    return made
