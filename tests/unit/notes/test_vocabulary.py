"""The vocabulary of notes, and the names in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import causal_sam.notes
from causal_sam.notes.mentions import NameFinder
from causal_sam.notes.vocabulary import Vocabulary, load_vocabulary, stem
from causal_sam.text import load_lexicon

CONTENT = yaml.safe_load((Path(causal_sam.notes.__file__).with_name("vocabulary.yaml")).read_text(encoding="utf-8"))


@pytest.fixture
def names():
    def names(*labels: str) -> NameFinder:
        return NameFinder(labels, load_lexicon(), load_vocabulary())

    return names


def test_a_phrase_with_two_meanings_is_refused():
    content = {**CONTENT, "keep": [*CONTENT["keep"], "leaks"]}
    with pytest.raises(ValueError, match=r"stands under .*keep"):
        Vocabulary(content)


@pytest.mark.parametrize("word", ["trim", "move", "clip", "include", "extend", "leak", "fill", "miss", "label"])
def test_forms_of_a_word_have_one_stem(word):
    root = word.removesuffix("e")
    doubled = root + root[-1] if word in ("trim", "clip", "label") else root
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    assert {stem(form) for form in (word, plural, f"{doubled}ed", f"{doubled}ing")} == {stem(word)}


def test_a_form_with_its_own_meaning_counts_as_it_is_written():
    vocabulary = load_vocabulary()
    for phrase, kinds in (("fragmented", ("keep_largest",)), ("fragments", ())):
        assert vocabulary.longest_phrase([phrase])[1].values == kinds


def test_forms_are_such_as_there_are():
    forms = load_vocabulary().forms
    assert {"laterally", "shrinks", "overlooked"} <= forms
    assert not {"lateroly", "superiors", "anteriored", "caudadly"} & forms


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *(("kindey", "kidney"), ("mising", "missing"), ("oversegmeted", "oversegmented"), ("antreior", "anterior")),
        *(("stomache", "stomach"), ("spurios", "spurious"), ("smoth", "smooth"), ("latrally", "laterally")),
        *(("wayyy", "way"), ("tooo", "too"), ("liittle", "little"), ("cutt", "cut"), ("incudes", "includes")),
        *(("lvr", "liver"), ("rdeuce", "reduce"), ("overrlooked", "overlooked"), ("noothing", "nothing")),
    ],
)
def test_misspelt_words_are_put_right(names, written, meant):
    assert [stem(word) for word in names("liver").corrected(written)] == [stem(meant)]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("kidneys", ("left kidney", "right kidney")),
        ("both kidneys", ("left kidney", "right kidney")),
        ("left and right kidney", ("left kidney", "right kidney")),
        ("lk", ("left kidney",)),
        ("renal", ()),
        ("hepatic", ("liver",)),
        ("stomach", ()),
    ],
)
def test_names_of_labels(names, text, labels):
    assert names("left kidney", "right kidney", "liver").mention(tuple(text.split())).labels == labels


@pytest.mark.parametrize("text", ["the liver", "liver and spleen", "lower pole", "left", "left of the liver", "ed of"])
def test_phrases_that_are_no_single_name(names, text):
    assert names("liver", "spleen").mention(tuple(text.split())) is None


@pytest.mark.parametrize(
    ("written", "neighbour"),
    [
        *(("ivc", "inferior vena cava"), ("gall bladder", "gallbladder"), ("bladder", "bladder"), ("ribs", "ribs")),
        *(("oesophagus", "esophagus"), ("left adrenal gland", "left adrenal gland"), ("chest wall", "chest wall")),
        *(("renal pelvis", "renal pelvis"), ("renal", "kidney"), ("gonadal vein", "gonadal vein")),
        *(("left masseter", "left masseter"), ("gallbladder fossa", "gallbladder fossa"), ("bronchi", "bronchus")),
    ],
)
def test_neighbours_are_named_as_written_but_for_abbreviations(names, written, neighbour):
    assert names("liver").mention(tuple(written.split())).neighbour == neighbour


@pytest.mark.parametrize(
    ("text", "labels", "meant"),
    [
        ("vertebrae", ("L1", "L2"), ("L1", "L2")),
        ("both widgets", ("left widget", "right widget"), ("left widget", "right widget")),
        ("widgets", ("left widget", "right widget"), ("left widget", "right widget")),
        ("left widget", ("left widget", "right widget"), ("left widget",)),
        ("wilms tumour", ("Wilms tumor", "left kidney"), ("Wilms tumor",)),
        ("psoas", ("left psoas", "right psoas"), ()),
    ],
)
def test_groups_pairs_and_spellings_of_labels(names, text, labels, meant):
    assert names(*labels).mention(tuple(text.split())).labels == meant


def test_a_part_of_a_label_is_no_name(names):
    words = ["lower", "lobe", "of", "the", "right", "lung"]
    length, mention = names("right lung", "left lung").longest_name(words, [False] * 6)
    assert (length, mention.labels) == (2, ())
    assert names("right lower lobe", "right lung").longest_name(words, [False] * 6)[1].labels == ("right lower lobe",)


def test_an_abbreviation_of_two_letters_counts_in_capitals(names):
    known = names("liver")
    assert known.longest_name(["ed"], [False]) is None
    assert known.longest_name(["ed"], [True])[1].neighbour == "edema"
