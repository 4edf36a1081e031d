"""What the segments of a DICOM SEG are called, whatever the client says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from unit.imaging.dicom_files import write_dicom

from serving.segments import complete_segmentation, for_converter, named_segments

INDICES = {"liver": 1, "spleen": 2, "right kidney": 3}


@pytest.mark.parametrize(
    ("info", "present", "names"),
    [
        # By value, not by position.
        ({"label_info": [{"name": "a", "idx": 1}, {"name": "b", "idx": 2}, {"name": "c", "idx": 4}]}, [2, 4], "bca"),
        # Slicer has counted a segment that it did not export.
        ({"label_info": [{"name": "b", "idx": 2}, {"name": "c", "idx": 3}]}, [1, 2], "bc"),
        # The server's own result, of a batch for example.
        ({"params": {"label_names": {"c": 5, "a": 1}}}, [5], "ca"),
    ],
)
def test_names_follow_the_values(info: dict, present: list[int], names: str) -> None:
    assert [segment["name"] for segment in named_segments(info, present, INDICES)] == list(names)


def test_without_names_the_label_set_counts() -> None:
    for info in ({}, {"label_info": None}, {"label_info": "liver"}):
        named = {segment["name"]: segment["idx"] for segment in named_segments(info, [3, 1], INDICES)}
        assert list(named.items()) == [("liver", 1), ("right kidney", 3)]
    unknown = named_segments({"label_info": [{"name": "a", "idx": 1}]}, [1, 9], INDICES)
    assert [segment["name"] for segment in unknown] == ["a", "label 9"]


def test_what_else_the_client_said_is_kept() -> None:
    info = {"label_info": [{"name": " cyst ", "idx": 1, "color": [1, 2.0, 3, 255]}, None]}
    (cyst,) = named_segments(info, [1], INDICES)
    assert cyst == {"name": "cyst", "idx": 1, "color": [1, 2.0, 3, 255]}
    assert for_converter(cyst)["segmentAttribute"]["recommendedDisplayRGBValue"] == [1, 2, 3]


def test_for_the_converter() -> None:
    given = for_converter({"name": "spleen", "idx": 2, "color": "red"})
    attributes = given["segmentAttribute"]
    assert given["model_name"] == attributes["SegmentAlgorithmName"] == "Causal-SAM"
    assert attributes["labelID"] == 2
    assert attributes["SegmentedPropertyTypeCodeSequence"]["CodeMeaning"] == "Spleen"
    assert "recommendedDisplayRGBValue" not in attributes  # "red" is no colour
    assert for_converter({"name": "spleen", "idx": 2})["segmentAttribute"]["recommendedDisplayRGBValue"]


def test_names_of_any_script_and_length_are_completed(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    invented = {"ContentCreatorName": "Reader1", "ClinicalTrialSeriesID": "Session1"}
    latin = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"}
    names = ["Läsion", "肝臓", "a\\b", "x" * 100]
    write_dicom(path, np.zeros((2, 2), np.int16), SegmentSequence=[Dataset() for _ in names], **invented, **latin)
    complete_segmentation(path, names)
    dataset = pydicom.dcmread(path)
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["Läsion", "肝臓", "a/b", "x" * 64]
    assert [segment.SegmentDescription for segment in dataset.SegmentSequence] == names
    assert dataset.PatientName == "Müller^Jürgen"
    assert dataset.ContentCreatorName == ""
    assert "ClinicalTrialSeriesID" not in dataset
