"""Reading DICOM: order, geometry and acquisition tags by pydicom, voxels by ITK and GDCM, as MONAI Label does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import SimpleITK as sitk

from causal_sam.errors import InputError, join_limited
from causal_sam.imaging.dicom_frames import has_frames, read_frames
from causal_sam.imaging.dicom_geometry import MAX_NAMED, SlicePlane, even_stacks, pixel_spacing, slice_thickness
from causal_sam.imaging.dicom_headers import (
    VALUE_TAGS,
    acquisition_tags,
    check_length,
    has_image,
    is_dicom,
    read_header,
)
from causal_sam.imaging.intensity import with_modality
from causal_sam.imaging.itk import to_volume
from causal_sam.imaging.limits import MAX_VOXELS, check_voxels
from causal_sam.imaging.volume import Volume, check_frame


def read_dicom(path: Path, frame: int = 0, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read one DICOM image, or a folder that holds the images of one series.

    Args:
        path: a file, or a folder (not its sub folders). Files in the folder that are not DICOM, or are DICOM objects
            without pixels, are left out.
        frame: index of the image, where several lie at each place: points in time, or sequences.
        max_voxels: limit of what the headers claim together, checked before pixels are decoded.

    Returns:
        The volume with modality and acquisition tags; i runs along the columns, j along the rows, and k along the
        slices. Slices of a series follow the direction of the cross product of the two, slices of a file its own order.
        Voxels are in the units of the modality, Hounsfield units for CT; colour pictures give their luminance.

    Raises:
        TooLargeError: the headers claim more than ``max_voxels``.
        InputError: no DICOM image, a damaged one, several series in a folder, slices that are missing, doubled, not
            parallel or of different size, no such frame, or frames that do not say where they lie.
    """
    if path.is_file():
        headers = {path: read_header(path)}
        if not has_image(headers[path], path):
            raise InputError(f"{path.name} is a DICOM object without an image.")
    else:
        headers = _headers_in(path)
    file, first = next(iter(headers.items()))
    check_voxels(path, _claimed_shape(headers), max_voxels, int(first.get("SamplesPerPixel") or 1))
    for each, header in headers.items():
        check_length(header, each)
    if has_frames(first) and len(headers) == 1:
        volume = read_frames(file, first, frame)
    else:
        stacks = slice_stacks(headers, path) if len(headers) > 1 else [[file]]
        check_frame(frame, len(stacks), path)
        image = _read_slices(stacks[frame], headers, path)
        volume = replace(to_volume(image, path), frame=frame, frames=len(stacks))
    return with_modality(replace(volume, tags=acquisition_tags(first), source=path), str(first.get("Modality") or ""))


def _claimed_shape(headers: dict[Path, pydicom.Dataset]) -> tuple[int, int, int]:
    rows, columns = (
        max(int(header.get(keyword) or 0) for header in headers.values()) for keyword in ("Rows", "Columns")
    )
    return columns, rows, sum(max(1, int(header.get("NumberOfFrames") or 1)) for header in headers.values())


def _is_grey(header: pydicom.Dataset) -> bool:
    return str(header.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME")


def _read_slices(files: list[Path], headers: dict[Path, pydicom.Dataset], path: Path) -> sitk.Image:
    """Decode single-frame files as one image."""
    first = headers[files[0]]
    reader: sitk.ImageReaderBase
    if len(files) > 1:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(file) for file in files])
        if len({tuple(str(headers[file].get(keyword)) for keyword in VALUE_TAGS) for file in files}) > 1:
            # ITK gives all slices the type that the first one needs, and would round or cut off the others.
            reader.SetOutputPixelType(sitk.sitkFloat64)
    else:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(files[0]))
    reader.SetImageIO("GDCMImageIO")
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"The pixels of {path.name} cannot be decoded: the DICOM data are damaged.") from error
    # GDCM gives the spacing of radiographs on the detector only, and no thickness for a single slice.
    between_rows, between_columns = pixel_spacing(first) or (1.0, 1.0)
    thickness = image.GetSpacing()[2] if len(files) > 1 else slice_thickness(first)
    image.SetSpacing((between_columns, between_rows, thickness))
    return image


def _headers_in(folder: Path) -> dict[Path, pydicom.Dataset]:
    """Headers of the images of the one series in a folder."""
    headers = {}
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith("."):
            continue
        if not is_dicom(file):
            if file.suffix.lower() == ".dcm":
                raise InputError(f"{file.name} in the folder {folder.name} is not DICOM: it is damaged.")
            continue
        header = read_header(file)
        if has_image(header, file):
            headers[file] = header
    if not headers:
        raise InputError(f"The folder {folder.name} holds no DICOM image.")
    series = {str(header.get("SeriesInstanceUID")) for header in headers.values()}
    if len(series) > 1:
        raise InputError(f"The folder {folder.name} holds {len(series)} DICOM series; give a folder with one of them.")
    return headers


def slice_stacks(headers: dict[Path, pydicom.Dataset], folder: Path) -> list[list[Path]]:
    """Sort the files of a series along the normal of its slices, for each point in time.

    Raises:
        InputError: the series is no even stack; ITK would bend it into one.
    """
    for file, header in headers.items():
        if has_frames(header):
            raise InputError(f"{file.name} holds several frames and lies beside other files: give that file alone.")
    # Localizers come first: they are the reason for most of what else differs.
    if localizers := [file.name for file, header in headers.items() if "LOCALIZER" in str(header.get("ImageType"))]:
        raise InputError(
            f"{join_limited(localizers, MAX_NAMED)} in {folder.name} "
            f"{'is a localizer' if len(localizers) == 1 else 'are localizers'}: "
            "remove what is no slice of the series."
        )
    sizes = _by_value(headers, lambda header: (int(header.Rows), int(header.Columns)))
    if len(sizes) > 1:
        fewest = next(iter(sizes.values()))
        (a, b), (c, d) = sorted(sizes)[:2]
        raise InputError(
            f"The slices in {folder.name} differ in size ({a} x {b} and {c} x {d}): {join_limited(fewest, MAX_NAMED)} "
            "cannot be of the same 3D series."
        )
    for what, value in (
        ("are grey and coloured", _is_grey),
        ("differ in pixel spacing", _rounded_spacing),
        ("differ in the size of their numbers", lambda header: header.get("BitsAllocated")),
    ):
        kinds = _by_value(headers, value)
        if len(kinds) > 1:
            raise InputError(
                f"The slices in {folder.name} {what}: {join_limited(next(iter(kinds.values())), MAX_NAMED)} "
                "cannot be of the same 3D series."
            )
    planes = [
        SlicePlane.of(
            file.name,
            header.get("ImageOrientationPatient"),
            header.get("ImagePositionPatient"),
            # Scanners number the images of a place in the order of time, whichever of the two they count first.
            int(header.get("InstanceNumber") or 0),
        )
        for file, header in headers.items()
    ]
    files = list(headers)
    return [[files[index] for index in stack] for stack in even_stacks(planes, folder.name)]


def _by_value(headers: dict[Path, pydicom.Dataset], value: Callable[[pydicom.Dataset], Any]) -> dict[Any, list[str]]:
    """Names of files by something in their headers; the rarest first."""
    names: dict[Any, list[str]] = {}
    for file, header in headers.items():
        names.setdefault(value(header), []).append(file.name)
    return dict(sorted(names.items(), key=lambda item: len(item[1])))


def _rounded_spacing(header: pydicom.Dataset) -> tuple[float, ...]:
    return tuple(float(f"{distance:.3g}") for distance in pixel_spacing(header) or ())
