"""Names of one structure become one text; a site's own words need no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from causal_sam.errors import InputError
from causal_sam.text import canonical, load_lexicon
from causal_sam.text.lexicon import singular


@pytest.mark.parametrize(
    ("common", "names"),
    [
        ("left kidney", ["LK", "lt kidney", "left renal", "kidney_left", "Lt. Kidney", "renal sinister", "leftKidney"]),
        ("right adrenal gland", ["RAG", "R suprarenal", "adrenal_gland_right", "rad", "Right Adrenals"]),
        ("inferior vena cava", ["IVC", "postcava", "vena cava inferior", "Inf. vena cava"]),
        ("liver tumor", ["liver tumour", "hepatic neoplasm", "Tumor of the liver", "HCC", "hepatocellular carcinoma"]),
        (
            "left lateral ventricle",
            ["Left-Lateral-Ventricle", "lateral vent. L", "LLV", "ventriculus lateralis sinister"],
        ),
        ("left ventricle of the heart", ["heart_ventricle_left", "left cardiac ventricle", "LVC"]),
        ("left upper lobe of the lung", ["lung_upper_lobe_left", "LUL", "upper lobe of the left lung"]),
        ("left rib 1", ["rib_left_1", "1st left rib", "Left first rib"]),
        ("white matter lesion", ["WM-hypointensities", "WMH", "WM lesions"]),
        ("esophagus", ["Oesophagus", "ésophagus", "oesophageal", "OESOPHAGUS"]),
        ("left and right kidney", ["both kidneys", "bilateral renal"]),
    ],
)
def test_all_names_have_one_canonical_text(common, names):
    assert {name: canonical(name) for name in names} == dict.fromkeys(names, common)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Widget_A", "widget a"),
        ("Struktur-7", "struktur 7"),
        ("no tumour", "no tumor"),
        ("Pancreas-Tail", "pancreas tail"),
    ],
)
def test_unknown_names_stay(name, text):
    assert canonical(name) == text


@pytest.mark.parametrize("name", ["LV", "Cortex", "vena cava", "psoas", "PV"])
def test_names_with_several_meanings_stay(name):
    assert len(load_lexicon().readings(name)) == 2
    assert canonical(name) == name.lower()


def test_common_names_are_their_own():
    for common in load_lexicon().structures:
        assert common in {str(reading) for reading in load_lexicon().readings(common)}


def test_their_side_is_told_all_the_same():
    assert {canonical(name) for name in ("lt ventricle", "Ventricle_L", "ventricle, left")} == {"left ventricle"}


def test_a_long_text_takes_no_time():
    assert len(load_lexicon().readings("LV cortex psoas and " * 200)) <= 16


@pytest.mark.parametrize(
    ("plural", "word"), [("kidneys", "kidney"), ("arteries", "artery"), ("masses", "mass"), ("adrenals", "adrenal")]
)
def test_plurals(plural, word):
    assert singular(plural) == singular(word) == word


@pytest.mark.parametrize("word", ["corpus", "pelvis", "abscess", "his", "pus"])
def test_words_that_end_like_plurals(word):
    assert singular(word) == word


def site_file(folder: Path, text: str) -> Path:
    path = folder / "words.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_site_adds_its_own_words(tmp_path):
    path = site_file(
        tmp_path,
        """
        sides: {left: [venstre], right: [høyre]}
        words: {Niere: kidney, tumeur: tumor}
        fillers: [des]
        structures:
          Nidus: [AVM, avm nidus]
          liver: [Leber]
          seroma: {also: [serom], kind_of: lesion}
        """,
    )
    lexicon = load_lexicon(path)
    texts = ["Niere venstre", "Leber", "AVM", "nidus", "tumeur des kidney", "Serom", "LK"]
    expected = ["left kidney", "liver", "nidus", "nidus", "kidney tumor", "seroma", "left kidney"]
    assert [canonical(text, lexicon) for text in texts] == expected
    assert lexicon.broader_terms("seroma") == ("lesion",)
    # The package's own lexicon is another.
    assert canonical("AVM") == "avm"


def test_kinds_in_a_circle_end(tmp_path):
    lexicon = load_lexicon(site_file(tmp_path, "structures: {a b: {kind_of: c d}, c d: {kind_of: a b}}"))
    assert lexicon.broader_terms("a b") == ("c d",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("structures: [liver]", "a section structures that is no mapping"),
        ("synonyms: {}", "a section 'synonyms'"),
        ("- liver", "must have sections"),
        ("structures: {liver: hepar}", "must have a list of names, .*'liver'"),
        ("structures: {liver: {alias: [hepar]}}", "must have a list of names, .*'liver'"),
        ("structures: {liver: [no]}", "has False where a text must be"),
        ("words: {1: kidney}", "has 1 where a text must be"),
        ("sides: {up: [u]}", "has 'up' under sides"),
        ("structures: {liver: [", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as told:
        load_lexicon(site_file(tmp_path, text))
    assert "words.yaml" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_lexicon(tmp_path / "words.yaml")
