"""The codes that a label's name is given in a DICOM SEG."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from causal_sam.export.segment_codes import GROUPS, SYNONYMS, TISSUE, find_structure
from serving.data.label_set import ABDOMEN

CATEGORY, TYPE = "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"
SIDE = "SegmentedPropertyTypeModifierCodeSequence"
REGION, REGION_SIDE = "AnatomicRegionSequence", "AnatomicRegionModifierSequence"
ANATOMY, ABNORMAL = "123037004", "49755003"
RIGHT, LEFT = "24028007", "7771000"


def values(name: str) -> dict[str, str]:
    structure = find_structure(name)
    kind = structure.concept()
    found = {CATEGORY: structure.category.value, TYPE: kind.value}
    concepts = [(kind, SIDE)] + [(region, REGION_SIDE) for region in structure.regions() or ()]
    if structure.regions():
        found[REGION] = structure.regions()[0].value
    for concept, sequence in concepts:
        if sequence in concept:
            found[sequence] = concept[sequence][0].CodeValue
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("liver", "10200004"),
        ("spleen", "78961009"),
        ("pancreas", "15776009"),
        ("gallbladder", "28231008"),
        ("stomach", "69695003"),
        ("aorta", "15825003"),
        ("inferior vena cava", "64131007"),
        ("Inferior_Vena_Cava", "64131007"),
        ("urinary bladder", "89837001"),
        ("lungs", "39607008"),
        ("heart", "80891009"),
        ("brain", "12738006"),
        ("esophagus", "32849002"),
        ("oesophagus", "32849002"),
        ("prostate", "41216001"),
        ("left ventricle", "87878005"),
    ],
)
def test_organs(name: str, value: str) -> None:
    assert values(name) == {CATEGORY: ANATOMY, TYPE: value}


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("right kidney", "64033007", RIGHT),
        ("left kidney", "64033007", LEFT),
        ("kidney_left", "64033007", LEFT),
        ("adrenal_gland_right", "23451007", RIGHT),
        ("lung upper lobe left", "45653009", LEFT),
    ],
)
def test_sides(name: str, value: str, side: str) -> None:
    assert values(name) == {CATEGORY: ANATOMY, TYPE: value, SIDE: side}


def test_lesions() -> None:
    assert values("lesion") == {CATEGORY: ABNORMAL, TYPE: "52988006"}
    assert values("Tumour") == {CATEGORY: ABNORMAL, TYPE: "108369006"}
    assert values("liver lesion") == {CATEGORY: ABNORMAL, TYPE: "52988006", REGION: "10200004"}
    left = {CATEGORY: ABNORMAL, TYPE: "367643001", REGION: "64033007", REGION_SIDE: LEFT}
    assert values("left kidney cyst") == left


@pytest.mark.parametrize("name", ["Segment_1", "no tumor", "label 7", "läsion", "肝臓", "???", "", "left", "concepts"])
def test_other_names_are_tissue(name: str) -> None:
    assert values(name) == {CATEGORY: TISSUE.value, TYPE: TISSUE.value}


def test_the_labels_that_are_offered_are_all_coded() -> None:
    assert [name for name in ABDOMEN if values(name)[TYPE] == TISSUE.value] == []


def test_meanings_are_those_of_the_dictionary() -> None:
    kidney = find_structure("right kidney")
    assert (kidney.code.scheme_designator, kidney.code.meaning, kidney.side.meaning) == ("SCT", "Kidney", "Right")
    assert kidney.category.meaning == "Anatomical Structure"


def test_synonyms_lead_to_structures() -> None:
    assert [word for word, keyword in SYNONYMS.items() if not any(hasattr(group, keyword) for group, _ in GROUPS)] == []
    assert all(category in codes.cid7150 for _, category in GROUPS)
