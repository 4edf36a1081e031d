"""`causal-sam export`: a label map in the form that another program reads."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from causal_sam.cli.options import Frame, ImageFile, NamesInOrder, ValueNames, name_values
from causal_sam.errors import InputError


class Format(StrEnum):
    """Names of the export formats; `causal_sam.export.FORMATS` takes too long to import for a help text."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    CSV = "csv"
    DICOM_SEG = "dicom_seg"
    RTSTRUCT = "rtstruct"
    DICOM_SR = "dicom_sr"


def export(
    image: ImageFile,
    mask: Annotated[Path, typer.Argument(help="Mask or label map on the grid of the image: NIfTI, NRRD or MHA.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .nii.gz, .seg.nrrd, .csv, .dcm, .zip for dicom_sr.")
    ],
    format: Annotated[Format, typer.Option(help="Format of the file.", show_default=False)],
    label: ValueNames = None,
    labels: NamesInOrder = None,
    frame: Frame = 0,
) -> None:
    """Write a label map as NIfTI, NRRD, DICOM SEG or RTSTRUCT, or its volumes and intensities as CSV or DICOM SR.

    The DICOM formats need the folder of the DICOM series as the image. dicom_sr is an archive of the report and the
    DICOM SEG that it is about.
    """
    if output.resolve() in (image.resolve(), mask.resolve()):
        raise InputError(f"The export would replace {output}: give another file with -o.")
    if image.is_dir() and output.resolve().is_relative_to(image.resolve()):
        raise InputError(f"{output} lies in the folder of the images, and would count as one: give a file elsewhere.")

    from causal_sam.export import SegmentedVolume, SourceImages, export_label_map
    from causal_sam.imaging import read_label_map, read_volume
    from causal_sam.imaging.label_maps import present_values

    volume = read_volume(image, frame)
    label_map = read_label_map(mask, volume)
    names = name_values(label or [], labels, present_values(label_map))
    segmented = SegmentedVolume.from_names(volume, label_map, names)
    sources = (lambda: SourceImages.read(image, frame)) if image.is_dir() else None
    export_label_map(segmented, format, output, sources)
    typer.echo(f"{', '.join(segment.name for segment in segmented.segments)}: written to {output}")
