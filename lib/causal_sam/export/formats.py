"""The registry of export formats: a new one is a function that writes a file, and an entry in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from pydicom import Dataset

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from causal_sam.export.dicom_seg import write_dicom_seg
from causal_sam.export.dicom_sr import write_dicom_sr
from causal_sam.export.measurements import write_csv
from causal_sam.export.rtstruct import write_rtstruct
from causal_sam.export.segmented_volume import SegmentedVolume
from causal_sam.export.slicer_segmentation import write_slicer_segmentation
from causal_sam.export.source_images import SourceImages
from causal_sam.imaging import write_mask

DICOM = "application/dicom"


@dataclass(frozen=True)
class ExportFormat:
    """A form in which a label map leaves the program.

    Attributes:
        suffix: end of the file's name.
        media_type: media type for HTTP.
        description: what the file is, for people.
        write: writes a `SegmentedVolume` to a path; also takes the `SourceImages` if the format needs a series.
        needs_series: the image must be a DICOM series, whose headers go into the file.
    """

    suffix: str
    media_type: str
    description: str
    write: Callable[..., object]
    needs_series: bool = False


def export_label_map(
    segmented: SegmentedVolume, format: str, path: Path, sources: Callable[[], SourceImages] | None
) -> Path:
    """Write a label map in one of the `FORMATS`; the file appears whole or not at all.

    Args:
        segmented: the label map.
        format: name of the format.
        path: ends in the suffix of the format.
        sources: reads the headers of the DICOM series that the image comes from; None if it comes from none.

    Returns:
        ``path``.

    Raises:
        InputError: there is no such format, the suffix is another one, the format needs a DICOM series, or the label
            map cannot be written so.
    """
    chosen = checked_format(format)
    if not path.name.lower().endswith(chosen.suffix):
        raise InputError(f"A file of the format {format} ends in {chosen.suffix}, and {path.name} does not.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist.")
    if not chosen.needs_series:
        chosen.write(segmented, path)
    elif sources is not None:
        chosen.write(segmented, path, sources())
    else:
        others = ", ".join(name for name, each in FORMATS.items() if not each.needs_series)
        raise InputError(f"The format {format} needs an image that is a DICOM series; {others} do not.")
    return path


def checked_format(format: str) -> ExportFormat:
    """Return a format by its name.

    Raises:
        InputError: there is no such format.
    """
    if format not in FORMATS:
        raise InputError(f"There is no export format {format[:40]!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[format]


def _write_nifti(segmented: SegmentedVolume, path: Path) -> None:
    write_mask(segmented.label_map, segmented.image, path)


def _write_seg(segmented: SegmentedVolume, path: Path, sources: SourceImages) -> None:
    _save(write_dicom_seg(segmented, sources), path)


def _write_rtstruct(segmented: SegmentedVolume, path: Path, sources: SourceImages) -> None:
    _save(write_rtstruct(segmented, sources), path)


def _save(made: Dataset, path: Path) -> None:
    with atomic_write(path, is_synced=False) as part:
        made.save_as(part, write_like_original=False)


def _write_sr(segmented: SegmentedVolume, path: Path, sources: SourceImages) -> None:
    """Write the report in one archive with the DICOM SEG whose segments it measures."""
    segmentation = write_dicom_seg(segmented, sources)
    report = write_dicom_sr(segmented, sources, segmentation)
    with TemporaryDirectory() as folder, atomic_write(path, is_synced=False) as part, ZipFile(part, "w") as archive:
        for name, made in (("segmentation.dcm", segmentation), ("report.dcm", report)):
            made.save_as(Path(folder, name), write_like_original=False)
            archive.write(Path(folder, name), name)


FORMATS = {
    "nifti": ExportFormat(".nii.gz", "application/gzip", "label map as NIfTI", _write_nifti),
    "nrrd": ExportFormat(
        ".seg.nrrd",
        "application/octet-stream",
        "segmentation of 3D Slicer",
        write_slicer_segmentation,
    ),
    "csv": ExportFormat(".csv", "text/csv", "volume and intensities of each label", write_csv),
    "dicom_seg": ExportFormat(".dcm", DICOM, "DICOM SEG", _write_seg, needs_series=True),
    "rtstruct": ExportFormat(".dcm", DICOM, "DICOM RT Structure Set", _write_rtstruct, needs_series=True),
    "dicom_sr": ExportFormat(
        ".zip",
        "application/zip",
        "DICOM SR of volumes and intensities, with its DICOM SEG",
        _write_sr,
        needs_series=True,
    ),
}
