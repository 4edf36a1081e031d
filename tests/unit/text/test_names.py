"""Written names are resolved to the label that they mean, and others to none.

`variants.yaml` has the texts. `pytest tests/unit/text/test_names.py -k accuracy -s` prints how many are found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_sam.text import LabelNames, Resolved, TextEncoder, load_lexicon, load_text_encoder

SITES = yaml.safe_load((Path(__file__).parent / "variants.yaml").read_text(encoding="utf-8"))
ABDOMEN = ["liver", "spleen", "right kidney", "left kidney", "inferior vena cava", "lesion"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder()


@pytest.fixture(scope="module")
def abdomen() -> LabelNames:
    return LabelNames(ABDOMEN)


def found(names: LabelNames, text: str) -> str | None:
    resolved = names.resolve(text)
    return None if resolved is None else resolved.label


def label(site: dict[str, Any]) -> str:
    return site["site"]


@pytest.mark.parametrize("site", SITES, ids=label)
def test_variants_are_found(site, encoder):
    names = LabelNames(site["labels"], encoder)
    wanted = {text: name for name, texts in site["variants"].items() for text in texts}
    assert {text: found(names, text) for text in wanted} == wanted


@pytest.mark.parametrize("site", SITES, ids=label)
def test_others_are_not(site, encoder):
    names = LabelNames(site["labels"], encoder)
    assert {text: names.resolve(text) for text in site["others"]} == dict.fromkeys(site["others"])


@pytest.mark.parametrize("site", SITES, ids=label)
def test_without_an_encoder_less_is_found_but_nothing_else(site):
    names = LabelNames(site["labels"])
    wanted = {text: {name, None} for name, texts in site["variants"].items() for text in texts}
    assert all(found(names, text) in labels for text, labels in wanted.items())
    assert not any(map(names.resolve, site["others"]))


def test_accuracy(encoder):
    counts = {"right": 0, "none": 0, "wrong": 0, "others none": 0, "others wrong": 0}
    for site in SITES:
        names = LabelNames(site["labels"], encoder)
        for group in (site["variants"], site.get("missed", {})):
            for name, texts in group.items():
                for text in texts:
                    counts[{name: "right", None: "none"}.get(found(names, text), "wrong")] += 1
        for text in site["others"]:
            counts["others none" if names.resolve(text) is None else "others wrong"] += 1
    labels = {(site["site"], name) for site in SITES for name in site["variants"]}
    print(f"\n{counts} for {len(labels)} labels")
    assert counts["wrong"] == counts["others wrong"] == 0
    assert counts["right"] >= 0.98 * (counts["right"] + counts["none"])


@pytest.mark.parametrize(
    ("text", "name", "how"),
    [
        ("left kidney", "left kidney", "exact"),
        ("Left_Kidneys", "left kidney", "exact"),
        ("LK", "left kidney", "synonym"),
        ("metastasis", "lesion", "synonym"),
        ("left kidny", "left kidney", "spelling"),
    ],
)
def test_how_it_was_found(abdomen, text, name, how):
    resolved = abdomen.resolve(text)
    assert (resolved.label, resolved.how) == (name, how)
    assert resolved.score == 1 if how in ("exact", "synonym") else 0.8 < resolved.score < 1


def test_meaning_has_a_score(encoder):
    resolved = LabelNames(["nasal cavity", "mesh"], encoder).resolve("nose cavity")
    assert (resolved.label, resolved.how) == ("nasal cavity", "meaning")
    assert 0.85 <= resolved.score < 1


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("kidney", ("right kidney", "left kidney")),
        ("kidneys", ("right kidney", "left kidney")),
        ("both kidneys", ("right kidney", "left kidney")),
        ("kidny", ("right kidney", "left kidney")),
        ("LK", ("left kidney",)),
        ("upper pole of the left kidney", ("right kidney", "left kidney")),
        ("heart", ()),
        ("", ()),
        ("liver " * 50, ()),
    ],
)
def test_candidates_to_ask_about(abdomen, text, labels):
    assert abdomen.candidates(text) == labels


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("other", [None, "exact", "typo", "german"])
def test_sides_are_never_crossed(side, other, encoder):
    """A site that has one side only does not get what is said of the other."""
    opposite = {"left": "right", "right": "left"}[side]
    names = LabelNames([f"{side} kidney", f"{side} breast implant", "spleen"], encoder)
    german = {"left": "linke", "right": "rechte"}[opposite]
    text = {None: f"{opposite} breast implant", "exact": f"{opposite} kidney", "typo": f"{opposite} kidny"}.get(
        other, f"{german} kidney"
    )
    assert names.resolve(text) is None


def test_a_side_may_be_left_out_where_there_is_one():
    assert LabelNames(["left kidney", "liver"]).resolve("renal") == Resolved("left kidney", "synonym", 1.0)


def test_labels_decide_between_meanings():
    heart, brain = ["left ventricle", "aorta"], ["Left-Lateral-Ventricle", "CSF"]
    assert found(LabelNames(heart), "LV") == "left ventricle"
    assert found(LabelNames(brain), "LV") == "Left-Lateral-Ventricle"
    assert found(LabelNames(["heart_ventricle_left", *brain]), "LV") is None


def test_findings_have_wider_terms():
    assert found(LabelNames(["liver", "liver tumor"]), "hepatic mets") == "liver tumor"
    assert found(LabelNames(["liver", "tumor"]), "liver lesion") == "tumor"
    assert found(LabelNames(["liver tumor", "kidney tumor"]), "tumour") is None
    assert found(LabelNames(["tumor", "lesion"]), "metastasis") is None
    assert found(LabelNames(["lesion", "kidney tumor"]), "tumor") is None
    assert found(LabelNames(["cyst"]), "lesion") is None
    assert found(LabelNames(["tumor", "cyst"]), "lesion") is None
    assert found(LabelNames(["lesion", "kidney tumor", "kidney cyst"]), "renal mass") is None
    assert found(LabelNames(["liver tumor"]), "lung tumor") is None


def test_exact_names_win_over_meanings():
    names = LabelNames(["tumor", "Tumor", "neoplasm", "mass"])
    assert [found(names, text) for text in ("tumor", "Tumor", "neoplasm", "mass")] == list(names.names)
    assert names.resolve("TUMOR") is None


def test_a_site_names_its_labels_without_code(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text("structures: {widget: [dingus, thingummy]}\n")
    names = LabelNames(["widget", "liver"], lexicon=load_lexicon(path))
    assert [found(names, text) for text in ("Dingus", "thingumy", "hepatic", "doodad")] == [
        "widget",
        "widget",
        "liver",
        None,
    ]
