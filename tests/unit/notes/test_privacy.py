"""De-identification removes what identifies a person from a note, and keeps the rest."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_sam.benchmark.notes import read_notes
from causal_sam.correction.guard import Effect
from causal_sam.imaging import Volume
from causal_sam.notes.privacy import scrub
from causal_sam.style import describe

UNSEEN = Path(__file__).with_name("unseen.jsonl")
COMMON = Path(__file__).with_name("names.txt")
LABELS = ("liver", "spleen", "Lesion Kappa 7")
GIVEN = ["john", "Maria", "JOSÉ", "Wei", "grace", "Mark", "Ann-Kathrin", "Liv"]
# Some of them are words of notes as well.
FAMILY = ["smith", "Müller", "O'NEIL", "garcía", "Long", "Little", "Nguyen", "van Dyk", "Strong", "doe", "Fields"]
FRAMES = [
    "{} {}: liver too large",
    "liver of {} {} is too large",
    "patient {} {} has a liver that leaks into the spleen",
    "The spleen is cut off. Regards, {} {}",
    "Dr. {} {} wants the liver smaller",
    "liver too large ({}^{})",
]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("given", GIVEN)
def test_names_go_and_the_rest_stays(frame: str, given: str) -> None:
    own = set(re.findall(r"\w+", frame.casefold()))
    for family in FAMILY:
        said = scrub(frame.format(given, family), LABELS)
        words = set(re.findall(r"[^\W_]+", said.casefold()))
        names = set(re.findall(r"[^\W_]+", f"{given} {family}".casefold())) - {"s"}
        assert not names & words, said
        assert own - words <= {"dr", "wants", "regards", "has"}, said


def test_common_names_go_even_if_they_are_words_of_notes() -> None:
    names = COMMON.read_text().split()
    for first, last in zip(names[1:], names, strict=False):
        for frame in FRAMES:
            said = scrub(frame.format(first.title(), last.title()), LABELS).casefold()
            assert not {first, last} & set(re.findall(r"[^\W_]+", said)) - set(re.findall(r"\w+", frame)), said


@pytest.mark.parametrize("name", ["john long", "long, john", "patient mark long", "Mark Long", "MARK LONG MD"])
def test_names_that_are_words_of_notes_go_beside_others(name: str) -> None:
    said = scrub(f"{name}: liver of {name} is too long", LABELS)
    assert said.endswith("is too long")
    assert not set(re.findall(r"\w+", said.removesuffix("is too long").casefold())) & {"mark", "long", "john"}


@pytest.mark.parametrize(
    ("note", "secrets"),
    [
        ("MRN 48151623: liver too big", ["48151623"]),
        ("liver too big, ID: P-4711/b", ["4711"]),
        ("acc# A77-1234 spleen cut off", ["A77", "1234"]),
        ("case 12 spleen cut off", ["12"]),
        ("NHS 943 476 5919 liver too big", ["943", "476", "5919"]),
        ("123-45-6789 liver too big", ["123", "6789"]),
        ("call +49 (30) 123 456 about the liver", ["49", "123", "456"]),
        ("call 555-0199 about the liver", ["555", "0199"]),
        ("liver too big on 12.03.2019", ["12", "03", "2019"]),
        ("liver too big on 2019-03-12", ["2019"]),
        ("liver too big, images 12/03/2019", ["12", "2019"]),
        ("liver too big since March 12th, 2019 at 14:35", ["March", "12", "2019", "14", "35"]),
        ("liver too big since 3 may 61", ["may", "61"]),
        ("DOB 3/5/61, liver too big", ["3", "61"]),
        ("54-year-old, liver too big", ["54"]),
        ("liver too big, 12 Oak Street, 90210 Springfield", ["12", "Oak", "90210", "Springfield"]),
        ("liver too big, Hauptstraße 5", ["Haupt", "5"]),
        ("mail j.doe@clinic.org, see https://pacs.example/?id=7 or C:\\scans\\doe", ["doe", "clinic", "pacs", "scans"]),
        ("1.2.840.113619.2.55.3 liver too big", ["840", "113619"]),
        ("J\u200bane D\u00adoe: liver too big", ["ane", "oe"]),
        ("liver too big, MRN \uff14\uff18\uff11\uff15\uff11\uff16", ["48", "\uff14"]),
        ("Dr Douglas and Mr Hunter say the liver is too big", ["Douglas", "Hunter"]),
    ],
)
def test_what_identifies_goes(note: str, secrets: list[str]) -> None:
    said = scrub(note, LABELS)
    assert [secret for secret in secrets if secret.casefold() in said.casefold()] == []
    assert ("liver" in said) == ("liver" in note)


@pytest.mark.parametrize(
    "note",
    [
        "liver leaks into Morison's pouch by 5 mm in slices 30-36",
        "spleen: fluid in the pouch of Douglas is included, Gerota fascia crossed",
        "liver goes beyond Glisson's capsule; the Riedel lobe is cut off",
        "Liver spills into Morison",
        "LK undersegmented in slices 30-36, 40 and 42",
        "do NOT touch the Spleen, but the liver isn't right and can't be kept",
        "shrink by 1.5-2.5 cm at L2/3 and T12, segment 4a, lower 1/3, sl12",
        "LIVER TOO LARGE, PLEASE SHRINK",
        "Left Kidney Too Large Please Shrink",
        "Lesion Kappa 7 is cut off, image no 120",
        "FLAIR: edema extends further back on the MR than the mask shows",
    ],
)
def test_what_a_note_needs_stays(note: str) -> None:
    assert scrub(note, LABELS) == note


def test_misspelt_words_are_sent_spelt_right() -> None:
    assert scrub("Kindey and spleen undersegmentd", LABELS) == "kidney and spleen undersegment"


def test_hardly_a_note_loses_a_word() -> None:
    cases = read_notes(UNSEEN)
    changed = [case.request.note for case in cases if "[" in scrub(case.request.note, case.request.labels)]
    assert len(changed) <= 0.05 * len(cases), changed


# The known abbreviations without vowels, such as FDG, have three letters.
@settings(max_examples=100, deadline=None)
@given(
    st.text("bcdfghjkqvxz", min_size=4, max_size=9), st.text("0123456789", min_size=5, max_size=9), st.text(max_size=20)
)
def test_what_no_list_has_never_stays(word, number, other):
    for text in (f"{word} {number}: liver", f"liver of {word.title()}, {other} {word.upper()}-{number} too big"):
        said = scrub(text, LABELS).casefold()
        assert word not in re.findall(r"[^\W_]+", said)
        assert number not in said


def test_labels_stay_as_the_site_writes_them() -> None:
    assert scrub("Kappa 7 is too big") == "[name] 7 is too big"
    assert scrub("Kappa 7 is too big", LABELS) == "Kappa 7 is too big"


def test_what_tools_say_stays_but_for_names() -> None:
    effect = str(Effect("liver", 3.2, 1234.56, {"left": 3.2}, {"superior": 1234.56}))
    assert scrub(effect, LABELS) == effect.replace("\N{MINUS SIGN}", "-")
    array = np.random.default_rng(0).normal(300, 20, (40, 32, 8)).astype(np.float32)
    tags = {"Manufacturer": "SIEMENS", "MagneticFieldStrength": 3.0}
    style = describe(Volume(array, np.diag([-1.0, -1.0, 5.0, 1.0]), "MR", tags)).sentence
    assert "iemens" in style
    assert scrub(style, LABELS) == re.sub("siemens", "[name]", style, flags=re.IGNORECASE)
