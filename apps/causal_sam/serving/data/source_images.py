"""The DICOM images that a label was drawn on, as the sources of a DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import DA, TM

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.dicom_geometry import SlicePlane, even_stacks, numbers, pixel_spacing, slice_thickness
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.label_maps import align_to_grid
from causal_sam.imaging.volume import check_frame

# highdicom copies these, which images may lack or have anything in, into the segmentation, where they may be empty.
_COPIED = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_EMPTY = ("AccessionNumber", "PatientID", "PatientName", "PatientSex", "StudyID", *_COPIED)
SEXES = ("M", "F", "O")


@dataclass(frozen=True)
class SourceImages:
    """The images of one even stack.

    Attributes:
        headers: of the files in the order of their slices; or of the one file with several frames, with the frames of
            the stack only.
        frames: which frames of the one file they are, counted from 0 in the order of their slices.
        affine: column, row and slice -> RAS+ millimetre.
        count: of the slices.
    """

    headers: list[pydicom.Dataset]
    frames: list[int]
    affine: NDArray[np.float64]
    count: int

    @classmethod
    def read(cls, series: Path, frame: int = 0) -> SourceImages:
        """Read the headers of a series.

        Args:
            series: folder of its files.
            frame: which stack, where several images lie at each place.

        Raises:
            InputError: the folder has no image, or its slices are no even stack.
        """
        headers = _headers(series)
        first = headers[0]
        several = len(headers) == 1 and int(first.get("NumberOfFrames") or 1) > 1
        if several:
            shared = first.get("SharedFunctionalGroupsSequence", [])
            planes = [[group, *shared, first] for group in first.get("PerFrameFunctionalGroupsSequence", [])]
        else:
            planes = [[header] for header in headers]
        if not planes:
            raise InputError(f"The frames of series {series.name} do not say where they lie.")
        slices = [
            SlicePlane.of(
                f"frame {number + 1}" if several else f"image {headers[number].get('SOPInstanceUID')}",
                vector(plane, "ImageOrientationPatient", 6, series.name),
                vector(plane, "ImagePositionPatient", 3, series.name),
                number if several else int(headers[number].get("InstanceNumber") or 0),
            )
            for number, plane in enumerate(planes)
        ]
        stacks = even_stacks(slices, series.name)
        check_frame(frame, len(stacks), series)
        stack = stacks[frame]
        positions = np.array([slices[index].position for index in stack])
        affine = RAS_LPS @ _lps(planes[stack[0]], slices[stack[0]].orientation, positions)
        if several:
            _complete(first)
            first.PerFrameFunctionalGroupsSequence = [planes[index][0] for index in stack]
            first.NumberOfFrames = len(stack)
            return cls([first], stack, affine, len(stack))
        spacing = float(np.linalg.norm(affine[:3, 2]))
        ordered = [headers[index] for index in stack]
        for header in ordered:
            _complete(header)
            header.PixelSpacing = list(pixel_spacing(header) or (1.0, 1.0))
            header.SliceThickness = slice_thickness(header) if header.get("SliceThickness") else spacing
            if len(stack) > 1:
                header.SpacingBetweenSlices = spacing
        return cls(ordered, [], affine, len(stack))

    def planes_of(self, label_map: NDArray[np.integer], image: Volume) -> NDArray[np.integer]:
        """Return a label map in the order of the images, (slices, rows, columns).

        Args:
            label_map: (I, J, K) on the grid of ``image``.
            image: the volume that was made of the images.

        Raises:
            InputError: the grid is not that of the images.
        """
        shape = (int(self.headers[0].Columns), int(self.headers[0].Rows), self.count)
        grid = Volume(np.broadcast_to(np.uint8(0), shape), self.affine)
        return align_to_grid(Volume(label_map, image.affine), grid).T

    def number_frames(self, segmentation: pydicom.Dataset) -> None:
        """Let a segmentation of `headers` refer, in place, to the frames by their numbers in the file."""
        for frame in segmentation.PerFrameFunctionalGroupsSequence if self.frames else ():
            for derivation in frame.DerivationImageSequence:
                for source in derivation.SourceImageSequence:
                    source.ReferencedFrameNumber = self.frames[int(source.ReferencedFrameNumber) - 1] + 1


def item(groups: Iterable[pydicom.Dataset], sequence: str) -> pydicom.Dataset:
    """Return the one item of a sequence in the first of some data sets that has it, or the last data set itself."""
    last = pydicom.Dataset()
    for last in groups:
        if last.get(sequence):
            return last[sequence][0]
    return last


_SEQUENCES = {
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}


def vector(groups: Iterable[pydicom.Dataset], keyword: str, count: int, name: str) -> NDArray[np.float64]:
    """Return the numbers that place a frame.

    Args:
        groups: the functional groups of the frame, those of all frames, and the header.
        keyword: ImageOrientationPatient, ImagePositionPatient or PixelSpacing.
        count: how many numbers there are.
        name: of the file or series, for the sentence.

    Raises:
        InputError: nothing says them.
    """
    return numbers(item(groups, _SEQUENCES[keyword]).get(keyword), keyword, count, name)


def _headers(series: Path) -> list[pydicom.Dataset]:
    headers = []
    for file in sorted(series.iterdir()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue  # what else lies there is no image
        if "Rows" in header:
            headers.append(header)
    if not headers:
        raise InputError(f"The files of series {series.name} are not here.")
    return headers


def _lps(plane: list[pydicom.Dataset], orientation: NDArray, positions: NDArray) -> NDArray[np.float64]:
    measures = item(plane, "PixelMeasuresSequence")
    between_rows, between_columns = pixel_spacing(measures) or (1.0, 1.0)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = orientation[:3] * between_columns, orientation[3:] * between_rows
    if len(positions) > 1:
        lps[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    else:
        lps[:3, 2] = np.cross(orientation[:3], orientation[3:]) * slice_thickness(measures)
    lps[:3, 3] = positions[0]
    return lps


def _complete(header: pydicom.Dataset) -> None:
    """Put into a header, in place, what highdicom needs: clean or empty elements."""
    header.decode()  # its text, before the segmentation that it is copied into says that it is in UTF-8
    for keyword in _EMPTY:
        value = header.get(keyword)
        try:
            _COPIED.get(keyword, str)(value)
        except (ValueError, TypeError):
            value = None
        setattr(header, keyword, value if keyword != "PatientSex" or value in SEXES else None)
