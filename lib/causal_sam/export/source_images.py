"""The DICOM images that a label was drawn on, as the sources of the DICOM objects that are made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import DA, TM, DSfloat

from causal_sam import __version__
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.dicom import slice_stacks
from causal_sam.imaging.dicom_frames import frame_stacks, frames_affine, has_frames
from causal_sam.imaging.dicom_geometry import pixel_spacing, slice_thickness, stack_affine, vector
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.label_maps import align_to_grid
from causal_sam.imaging.volume import check_frame

# highdicom copies these, which images may lack or have anything in, into the segmentation, where they may be empty.
_COPIED = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_EMPTY = ("AccessionNumber", "PatientID", "PatientName", "PatientSex", "StudyID", *_COPIED)
SEXES = ("M", "F", "O")
ALGORITHM = "Causal-SAM"
UTF_8 = "ISO_IR 192"
MAX_LABEL = 64  # characters that DICOM allows in the name of a segment or structure
EQUIPMENT: Final[Mapping[str, Any]] = {
    "manufacturer": ALGORITHM,
    "manufacturer_model_name": ALGORITHM,
    "software_versions": __version__,
    "device_serial_number": "0",
}
"""Attributes of the equipment that makes an object, as arguments of highdicom."""


@dataclass(frozen=True)
class SourceImages:
    """The images of one even stack.

    Attributes:
        headers: headers of the files in the order of their slices; or the header of one multi-frame file, with the
            frames of the stack only.
        frames: indices of the frames in a multi-frame file, counted from 0, in the order of their slices.
        affine: column, row and slice -> RAS+ millimetre.
        count: number of slices.
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
            frame: index of the stack, where several images lie at each place.

        Raises:
            InputError: the folder has no image, or its slices are no even stack.
        """
        headers = _headers(series)
        file, first = next(iter(headers.items()))
        if len(headers) == 1 and has_frames(first):
            if "PerFrameFunctionalGroupsSequence" not in first:
                raise InputError(f"The frames of series {series.name} do not say where they lie.")
            stacks = frame_stacks(first, series.name)
            check_frame(frame, len(stacks), series)
            stack, frames = stacks[frame], first.PerFrameFunctionalGroupsSequence
            affine = frames_affine(first, stack, series.name)
            _complete(first)
            first.PerFrameFunctionalGroupsSequence = [frames[index] for index in stack]
            first.NumberOfFrames = len(stack)
            return cls([first], stack, affine, len(stack))
        ordered_files = slice_stacks(headers, series) if len(headers) > 1 else [[file]]
        check_frame(frame, len(ordered_files), series)
        ordered = [headers[each] for each in ordered_files[frame]]
        orientation = vector(ordered[:1], "ImageOrientationPatient", 6, series.name)
        ends = np.array(
            [vector([header], "ImagePositionPatient", 3, series.name) for header in (ordered[0], ordered[-1])]
        )
        spacing = pixel_spacing(ordered[0]) or (1.0, 1.0)
        lps = stack_affine(orientation, spacing, ends, len(ordered), slice_thickness(ordered[0]))
        step = DSfloat(float(np.linalg.norm(lps[:3, 2])), auto_format=True)
        for header in ordered:
            _complete(header)
            header.PixelSpacing = list(pixel_spacing(header) or (1.0, 1.0))
            header.SliceThickness = slice_thickness(header) if header.get("SliceThickness") else step
            if len(ordered) > 1:
                header.SpacingBetweenSlices = step
        return cls(ordered, [], RAS_LPS @ lps, len(ordered))

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

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the images."""
        return str(self.headers[0].get("SeriesInstanceUID", ""))

    def reference(self, index: int) -> pydicom.Dataset:
        """Return a reference to the image of a slice, for a sequence of referenced images.

        Args:
            index: index of the slice in the stack.
        """
        header = self.headers[0 if self.frames else index]
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        if self.frames:
            item.ReferencedFrameNumber = self.frames[index] + 1
        return item

    @contextmanager
    def explain_failure(self, kind: str) -> Iterator[None]:
        """Turn the exceptions of DICOM libraries within the block into an `InputError` about the headers.

        Args:
            kind: the object that is made, such as "DICOM SEG".
        """
        try:
            yield
        except InputError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as error:
            raise InputError(
                f"The label cannot be written as {kind}: the headers of series {self.series_uid} are incomplete "
                f"({error})."
            ) from error

    def number_frames(self, segmentation: pydicom.Dataset) -> None:
        """Let a segmentation of `headers` refer, in place, to the frames by their numbers in the file."""
        for frame in segmentation.PerFrameFunctionalGroupsSequence if self.frames else ():
            for derivation in frame.DerivationImageSequence:
                for source in derivation.SourceImageSequence:
                    source.ReferencedFrameNumber = self.frames[int(source.ReferencedFrameNumber) - 1] + 1


def dicom_label(name: str) -> str:
    """Return the name of a label as DICOM can hold it: cut off, and without backslashes, which separate values."""
    return name.replace("\\", "/")[:MAX_LABEL]


def _headers(series: Path) -> dict[Path, pydicom.Dataset]:
    headers: dict[Path, pydicom.Dataset] = {}
    for file in sorted(series.iterdir()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue  # what else lies there is no image
        if "Rows" in header:
            headers[file] = header
    if not headers:
        raise InputError(f"The files of series {series.name} are not here.")
    return headers


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
