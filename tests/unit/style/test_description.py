"""Descriptions of style: true, the same for what is made alike, and without anything of the patient."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_sam.imaging import Volume
from causal_sam.imaging.dicom_headers import ACQUISITION_TAGS
from causal_sam.phantom.studies import STYLES, render_study
from causal_sam.style import describe
from causal_sam.style.headers import read_acquisition
from causal_sam.text import TextEncoder

AFFINE = np.diag([-1.0, -1.0, 5.0, 1.0])


def volume(modality: str = "MR", **tags: str | float) -> Volume:
    rng = np.random.default_rng(0)
    array = rng.normal(0, 5, (24, 24, 6)).astype(np.float32)
    array[4:20, 4:20] += 200
    return Volume(array, AFFINE, modality, tags)


def test_demo_studies_are_told_apart_and_described_truly() -> None:
    sentences = {name: describe(render_study(style, 0)[0]).sentence for name, style in STYLES.items()}
    assert len(set(sentences.values())) == len(sentences)
    portal, low_dose, t1, t2 = (sentences[name] for name in STYLES)
    assert portal.startswith("A CT image from a 120 kV scanner, with soft kernel, contrast agent, thick slices of 4 mm")
    assert "sharp kernel" in low_dose
    assert "visible noise" in low_dose
    assert t1.startswith("A T1-weighted MR image from a 1.5 T scanner")
    assert t2.startswith("A T2-weighted MR image from a 3 T scanner, with thick slices of 6 mm and pixels of 1.6 mm.")


def test_the_same_scanner_gives_the_same_words() -> None:
    style = STYLES["ct-portal-venous"]
    assert describe(render_study(style, 0)[0]).sentence == describe(render_study(style, 1)[0]).sentence


@pytest.mark.parametrize(
    ("tags", "sequence"),
    [
        ({"ScanningSequence": "SE", "RepetitionTime": 500.0, "EchoTime": 12.0}, "T1"),
        ({"ScanningSequence": "SE", "RepetitionTime": 4000.0, "EchoTime": 100.0}, "T2"),
        ({"ScanningSequence": "SE", "RepetitionTime": 3000.0, "EchoTime": 15.0}, "PD"),
        ({"ScanningSequence": "SE\\IR", "RepetitionTime": 9000.0, "EchoTime": 120.0, "InversionTime": 2500.0}, "FLAIR"),
        ({"ScanningSequence": "GR", "RepetitionTime": 600.0, "EchoTime": 20.0}, "T2*"),
        ({"ScanningSequence": "EP", "RepetitionTime": 5000.0, "EchoTime": 80.0}, None),
        ({}, None),
    ],
)
def test_the_sequence_follows_from_its_times(tags: dict, sequence: str | None) -> None:
    assert read_acquisition(volume(**tags)).sequence == sequence


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("B20f", "soft"), ("Br40d\\3", "standard"), ("Bl57d", "sharp"), ("FC51", "sharp"), ("STANDARD", "standard"),
     ("LUNG", "sharp"), ("John Doe", None)],
)  # fmt: skip
def test_kernels_are_one_of_three(name: str, kernel: str | None) -> None:
    assert read_acquisition(volume("CT", ConvolutionKernel=name)).kernel == kernel


def test_vendors_and_families_are_known_ones() -> None:
    found = read_acquisition(volume(Manufacturer="SIEMENS", ManufacturerModelName="Skyra 45078 John"))
    assert (found.vendor, found.model_family) == ("Siemens", "Skyra")
    found = read_acquisition(volume(Manufacturer="Doe Scanners", ManufacturerModelName="Skyra"))
    assert (found.vendor, found.model_family) == (None, None)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(ACQUISITION_TAGS), st.just("Zqxwv^Jkhgf 19610412 ID77443322"), min_size=5))
def test_nothing_that_was_typed_into_a_header_gets_through(tags: dict[str, str]) -> None:
    for modality in ("CT", "MR"):
        described = describe(volume(modality, **tags))
        text = json.dumps(described.to_dict())
        assert not any(secret in text for secret in ("Zqxwv", "Jkhgf", "1961", "77443322"))


def test_the_structured_form_has_numbers_words_and_evidence() -> None:
    record = describe(render_study(STYLES["mr-t2"], 0)[0]).to_dict()
    assert record["acquisition"]["field_strength"] == 3.0
    assert record["source"] == "measured"
    assert record["measured"]["bias_field"] > 0
    assert all(artefact["evidence"] for artefact in record["measured"]["artefacts"])
    assert set(record["words"]) <= set(
        record["sentence"].replace(" and ", ", ").rstrip(".").split("It has ")[1].split(", ")
    )


def test_the_embedding_is_that_of_the_sentence() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> torch.Tensor:
        asked.append(texts)
        return torch.ones(len(texts), 3)

    described = describe(volume())
    vector = described.vector(TextEncoder("some", "1f", 3, embed))
    assert asked == [[described.sentence]]
    torch.testing.assert_close(vector, torch.full((3,), 3**-0.5))
