"""Lengths in digits and words, and amounts that are no lengths."""

from __future__ import annotations

import pytest

from causal_sam.notes import EmbeddedInterpreter, NoteRequest
from causal_sam.notes.tokens import tokenise

LABELS = ("liver", "spleen", "stomach")


@pytest.fixture(scope="module")
def interpreter() -> EmbeddedInterpreter:
    return EmbeddedInterpreter()


def read(interpreter: EmbeddedInterpreter, note: str):
    return interpreter.invoke(NoteRequest(note, LABELS)).plan


@pytest.mark.parametrize(
    ("text", "mm"),
    [
        *((".5 cm", 5), ("(.8 cm)", 8), ("0.5-.8 cm", 6.5), ("liver,5 mm", 5), ("5 +/- 1 mm", 5), ("5 ± 1 mm", 5)),
        *(("1 1/2 cm", 15), ("1-1/2 cm", 15), ("3/4 cm", 7.5), ("1/2 to 1 cm", 7.5), ("2 and a half cm", 25)),
        *(("fifteen mm", 15), ("twenty mm", 20), ("twenty-five mm", 25), ("forty two millimetres", 42)),
        *(("one and a half centimetres", 15), ("half a cm", 5), ("a half cm", 5), ("a quarter of a cm", 2.5)),
        *(("two point five mm", 2.5), ("zero point oh five cm", 0.5), ("2 point 5 cm", 25), ("two to three mm", 2.5)),
        *(("a good centimetre", 10), ("six mm", 6), ("sixteen mm", 16), ("a mm", 1)),
    ],
)
def test_lengths_are_read_in_digits_and_words(text, mm):
    (found,) = [token.mm for token in tokenise(f"extend by {text}") if token.kind in ("mm", "amount")]
    assert found == mm


@pytest.mark.parametrize(
    ("note", "quoted"),
    [
        *((f"Shrink the liver by {amount}", amount) for amount in ("5 voxels", "two pixels", "20 %", "5", "five")),
        *((f"Shrink the liver by {amount}", amount) for amount in ("1 to 2", "a third", "2/3 cm", "15 percent")),
        *(("Liver too large by 20 ml", "20 ml"), ("The liver is 20 cc too large", "20 cc")),
        *(("The liver is a third of a centimetre too large", "third of"), ("Shrink it by a hundred mm", "hundred mm")),
        ("The liver is three quarters of a cm too large", "quarters of a cm"),
        ("The liver is 5 voxels too small", "5 voxels"),
    ],
)
def test_what_is_no_length_in_millimetres_is_asked_for(interpreter, note, quoted):
    question = read(interpreter, note).question or ""
    assert question.startswith("How many mm are")
    assert quoted in question


@pytest.mark.parametrize(
    ("note", "extent_mm"),
    [
        *(("Liver one voxel too large", None), ("The 20 ml cyst of the liver is missing", None)),
        *(("50 % of the liver is missing", None), ("Shrink the liver by 5 mm", 5.0), ("by 1 to 2 cm", 15.0)),
    ],
)
def test_what_is_no_amount_of_a_correction_is_not_asked_for(interpreter, note, extent_mm):
    found = read(interpreter, note if "liver" in note.lower() else f"Shrink the liver {note}")
    assert "How many mm" not in (found.question or "")
    assert extent_mm in [act.extent_mm for act in found.interventions] or extent_mm is None


@pytest.mark.parametrize("form", ["{} slices short at the top", "{} mm too large", "{}½ cm too small"])
def test_absurd_numbers_are_asked_about(interpreter, form):
    assert read(interpreter, f"The spleen is {form.format('9' * 400)}").question is not None


@pytest.mark.parametrize(
    "words", ["hundred one-half ", "by one ", "slices 1 and ", "point one ", "half of a ", "1 1/2 "]
)
def test_many_numbers_are_divided_at_once(words):
    assert tokenise((words * 500)[:1000], 3.0, 60)


def test_absurd_names_are_asked_about(interpreter):
    assert read(interpreter, f"The liver leaks into the {'a' * 120}al vein").question is not None


@pytest.mark.parametrize("amount", ["2-3 voxels", "1-2 voxels", "2 to 3 pixels"])
def test_a_range_of_voxels_is_no_range_of_slices(interpreter, amount):
    for note in (f"Shrink the liver by {amount}", f"the liver is {amount} too large"):
        assert "How many mm" in read(interpreter, note).question
