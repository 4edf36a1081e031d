"""The segments of a label map: which structure each value is, and what a DICOM SEG says about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pydicom
from monailabel.datastore.utils.colors import GENERIC_ANATOMY_COLORS

from causal_sam.learning.accepted import names_in_info, values_by_name
from serving.segment_codes import segment_codes

ALGORITHM = "Causal-SAM"
MAX_LABEL = 64  # characters that DICOM allows in a segment's label
UTF_8 = "ISO_IR 192"
# MONAI Label writes a trial that the patient takes no part in.
INVENTED = ("ClinicalTrialCoordinatingCenterName", "ClinicalTrialSeriesID", "ClinicalTrialTimePointID")


def named_segments(info: Mapping[str, Any], present: Collection[int], indices: Mapping[str, int]) -> list[dict]:
    """Name the values of a label map.

    Args:
        info: what the client said about the label.
        present: values in the label map, without 0.
        indices: the label set, name -> value; for clients that did not say.

    Returns:
        A ``label_info`` with a ``name`` and an ``idx`` in each entry, and whatever else the client has in it. First the
        values that are present, in ascending order, then the names without a voxel that the client gave.
    """
    given = info.get("label_info")
    given = [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
    more = {str(entry.get("name")).strip(): entry for entry in given}
    named = names_in_info(info)
    values = values_by_name(named or indices, present)
    names = {value: name for name, value in values.items()}
    shown = [(names.get(value, f"label {value}"), value) for value in sorted(present)]
    absent = [(name, value) for name, value in values.items() if name in named and value not in present]
    return [{**more.get(name, {}), "name": name, "idx": value} for name, value in shown + absent]


def for_converter(segment: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segment of `named_segments` in the form in which MONAI Label hands it to dcmqi.

    dcmqi refuses names that are not ASCII, so the names follow later: see `complete_segmentation`.
    """
    name, value = segment["name"], segment["idx"]
    attributes = {
        "labelID": value,
        "SegmentLabel": f"label {value}",
        "SegmentDescription": f"label {value}",
        "SegmentAlgorithmType": "SEMIAUTOMATIC",
        "SegmentAlgorithmName": ALGORITHM,
        **segment_codes(name),
    }
    colour = segment.get("color", GENERIC_ANATOMY_COLORS.get(name))
    if isinstance(colour, list | tuple) and len(colour) >= 3:
        attributes["recommendedDisplayRGBValue"] = [int(part) for part in colour[:3]]
    return {"name": name, "model_name": ALGORITHM, "segmentAttribute": attributes}


def complete_segmentation(path: Path, names: Collection[str]) -> None:
    """Write the segments' names, in any script, into a DICOM SEG that MONAI Label made, and take out what it invented.

    Args:
        path: the file, changed in place.
        names: of the segments, in their order.
    """
    dataset = pydicom.dcmread(path)
    # Text is decoded as the file says it is, before the file says that it is something else.
    dataset.decode()
    dataset.SpecificCharacterSet = UTF_8
    for segment, name in zip(dataset.SegmentSequence, names, strict=True):
        segment.SegmentLabel = name.replace("\\", "/")[:MAX_LABEL]  # a backslash would make two of it
        segment.SegmentDescription = name
    dataset.ContentCreatorName = ""
    for keyword in INVENTED:
        if keyword in dataset:
            del dataset[keyword]
    dataset.save_as(path)
