"""DICOM SEG: written for a label with highdicom, and read back from any program that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from monailabel.datastore.utils.colors import GENERIC_ANATOMY_COLORS
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from causal_sam import __version__
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.dicom_geometry import item, stack_affine, vector
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.label_maps import align_to_grid
from serving.data.incoming_labels import IncomingLabel
from serving.data.segment_codes import find_structure
from serving.data.source_images import SourceImages

ALGORITHM = "Causal-SAM"
SERIES_NUMBER = 300
MAX_LABEL = 64  # characters that DICOM allows in a segment's label
UTF_8 = "ISO_IR 192"
# Smallest fraction at which a voxel of a fractional segment belongs to it.
MIN_FRACTION = 0.5
LABEL_MAP = "LABELMAP"
# A frame lies this close to a slice of the image, in voxels.
GRID_TOLERANCE = 0.1


def write_dicom_seg(label: IncomingLabel, series: Path, frame: int = 0) -> Segmentation:
    """Make a DICOM SEG of a label; it has the slices with voxels only.

    Args:
        label: its values become the segments 1, 2, ... in ascending order.
        series: folder with the files of the image.
        frame: index of the frame of the image that the label was made on.

    Raises:
        InputError: the label is empty, the series is no even stack on the grid of the label, or its headers lack what
            a segmentation needs.
    """
    segments = label.segments
    if not segments:
        raise InputError("The label has no voxel, so there is nothing to store.")
    sources = SourceImages.read(series, frame)
    planes = sources.planes_of(_numbered(label.label_map, [segment["idx"] for segment in segments]), label.image)
    try:
        made = Segmentation(
            sources.headers,
            planes,
            SegmentationTypeValues.BINARY,
            [_description(number, segment, series.name) for number, segment in enumerate(segments, start=1)],
            series_instance_uid=generate_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer=ALGORITHM,
            manufacturer_model_name=ALGORITHM,
            software_versions=__version__,
            device_serial_number="0",
            content_label="SEGMENTATION",
            content_description="Segmentation by Causal-SAM",
            series_description=ALGORITHM,
        )
    except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as error:
        raise InputError(
            f"The label cannot be written as DICOM SEG: the headers of series {series.name} are incomplete ({error})."
        ) from error
    sources.number_frames(made)
    made.SpecificCharacterSet = UTF_8
    return made


def read_dicom_seg(file: Path, image: Volume) -> tuple[NDArray[np.uint16], list[dict[str, Any]]]:
    """Read a DICOM SEG, of whatever program, as a label map of its image.

    Args:
        file: the DICOM SEG. Its frames may be a part of the image's slices and pixels, in any order and direction.
        image: (I, J, K).

    Returns:
        (I, J, K) the number of the segment of each voxel, and for each segment its ``name`` and ``idx``, the number.

    Raises:
        InputError: segments overlap, the frames do not lie on the grid of the image, or the file is damaged.
    """
    try:
        segmentation = pydicom.dcmread(file)
        label = _label_of(segmentation, image)
        return align_to_grid(label, image), _names_of(segmentation)
    except InputError:
        raise
    except Exception as error:  # foreign objects fail in their own ways
        raise InputError(f"The DICOM SEG cannot be read: it is damaged, or of an unknown kind ({error}).") from error


def _numbered(label_map: NDArray[np.integer], values: list[int]) -> NDArray[np.uint16]:
    """Replace the values by 1, 2, ..."""
    numbers = np.zeros(values[-1] + 1, np.uint16)
    numbers[values] = np.arange(1, len(values) + 1)
    return numbers[label_map]


def _description(number: int, segment: Mapping[str, Any], series: str) -> SegmentDescription:
    name = segment["name"]
    structure = find_structure(name)
    made = SegmentDescription(
        number,
        name.replace("\\", "/")[:MAX_LABEL],  # DICOM separates values by backslashes
        structure.category,
        structure.concept(),
        SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        highdicom.AlgorithmIdentificationSequence(ALGORITHM, codes.DCM.ArtificialIntelligence, __version__),
        # A structure of an image keeps its tracking UID in all versions of the segmentation.
        tracking_uid=generate_uid(entropy_srcs=[series, name]),
        tracking_id=name,
        anatomic_regions=structure.regions(),
    )
    made.SegmentDescription = name
    made.SpecificCharacterSet = UTF_8  # within an item, OHIF ignores the file's character set
    made.RecommendedDisplayCIELabValue = list(_colour(number, segment).value)
    return made


def _colour(number: int, segment: Mapping[str, Any]) -> CIELabColor:
    """The client's colour, or else that of the structure, or else one that its neighbours do not have."""
    colour = segment.get("color")
    is_colour = (
        isinstance(colour, list | tuple) and len(colour) >= 3 and all(isinstance(c, int | float) for c in colour)
    )
    if not is_colour or not all(0 <= part <= 255 for part in colour[:3]):
        others = list(GENERIC_ANATOMY_COLORS.values())
        colour = GENERIC_ANATOMY_COLORS.get(segment["name"].lower(), others[number % len(others)])
    return CIELabColor(*rgb2lab(np.array(colour[:3]) / 255))


def _label_of(header: pydicom.Dataset, image: Volume) -> Volume:
    """Read the frames of a DICOM SEG into a volume on their own pixels and the slices of the image."""
    shared = header.get("SharedFunctionalGroupsSequence", [])
    groups = [[frame, *shared] for frame in header.PerFrameFunctionalGroupsSequence]
    orientations, positions, spacings = (
        np.array([vector(group, keyword, count, "The DICOM SEG") for group in groups])
        for keyword, count in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2))
    )
    if not np.allclose(orientations, orientations[0], atol=1e-4) or not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise InputError("The frames of the DICOM SEG differ in direction or size.")
    normal = np.cross(orientations[0][:3], orientations[0][3:])
    # The slices of the image tell the distance of the frames: those without voxels may have been left out.
    steps = (RAS_LPS @ image.affine)[:3, :3]
    axis = np.abs(normal @ (steps / np.linalg.norm(steps, axis=0))).argmax()
    lps = stack_affine(orientations[0], spacings[0], [positions[0], positions[0] + steps[:, axis]], 2)
    offsets = (positions - positions[0]) @ np.linalg.inv(lps[:3, :3]).T
    slices = np.rint(offsets[:, 2]).astype(int)
    if np.abs(offsets - slices[:, None] * (0, 0, 1)).max() > GRID_TOLERANCE:
        raise InputError("The frames of the DICOM SEG do not lie on slices of the image.")
    if np.ptp(slices) >= image.shape[axis]:
        raise InputError("The frames of the DICOM SEG reach beyond the image.")
    lps[:3, 3] = positions[0] + slices.min() * lps[:3, 2]
    array = np.zeros((header.Columns, header.Rows, np.ptp(slices) + 1), np.uint16, order="F")
    for group, place, frame in zip(groups, slices - slices.min(), _frames(header), strict=True):
        _add(array[:, :, place], frame.T, group, header)
    return Volume(array, RAS_LPS @ lps)


def _frames(segmentation: pydicom.Dataset) -> Iterator[NDArray[np.integer]]:
    """Decode frames, rows x columns; those of one bit one by one, for all of them may be large.

    highdicom's reader of single frames takes too few bytes where a frame does not begin with a byte.
    """
    shape = (int(segmentation.Rows), int(segmentation.Columns))
    count, size = int(segmentation.NumberOfFrames), shape[0] * shape[1]
    if segmentation.BitsAllocated > 1:
        yield from segmentation.pixel_array.reshape(count, *shape)
        return
    packed = np.frombuffer(segmentation.PixelData, np.uint8)
    for start in range(0, count * size, size):
        bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
        yield bits[start % 8 :][:size].reshape(shape)


def _add(plane: NDArray[np.uint16], frame: NDArray, groups: Iterable[pydicom.Dataset], header: pydicom.Dataset) -> None:
    """Add a frame to its slice of the label map, in place."""
    kind = header.SegmentationType
    if kind == LABEL_MAP:
        inside, number = frame > 0, frame
    else:
        full = header.MaximumFractionalValue if kind == SegmentationTypeValues.FRACTIONAL.value else 1
        inside = frame >= MIN_FRACTION * full
        number = int(item(groups, "SegmentIdentificationSequence").ReferencedSegmentNumber)
    if taken := int(plane[inside].max(initial=0)):
        raise InputError(f"Segments {taken} and {number} of the DICOM SEG overlap; a label map has one for each voxel.")
    np.copyto(plane, np.asarray(number, np.uint16), where=inside)


def _names_of(header: pydicom.Dataset) -> list[dict[str, Any]]:
    entries = []
    for segment in header.SegmentSequence:
        label, described = str(segment.get("SegmentLabel", "")), str(segment.get("SegmentDescription", ""))
        # A name that is too long for a label is whole in the description.
        name = described if described.startswith(label) and len(label) == MAX_LABEL else label
        entries.append({"name": name.strip() or f"segment {segment.SegmentNumber}", "idx": int(segment.SegmentNumber)})
    return [entry for entry in entries if entry["idx"] > 0]
