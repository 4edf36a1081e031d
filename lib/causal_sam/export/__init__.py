"""Label maps for other programs: NIfTI, NRRD, CSV, and the DICOM objects SEG, RTSTRUCT and SR."""

from causal_sam.export.formats import FORMATS, ExportFormat, checked_format, export_label_map
from causal_sam.export.segmented_volume import Segment, SegmentedVolume
from causal_sam.export.source_images import SourceImages

__all__ = [
    "FORMATS",
    "ExportFormat",
    "Segment",
    "SegmentedVolume",
    "SourceImages",
    "checked_format",
    "export_label_map",
]
