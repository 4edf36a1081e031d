"""Numbers, units and slice ranges in notes."""

from __future__ import annotations

import pytest

from causal_sam.notes.tokens import tokenise


def lengths(text: str) -> list[float]:
    return [token.mm for token in tokenise(text) if token.kind == "mm"]


def slices(text: str) -> list[tuple[int, int]]:
    return [each for token in tokenise(text) for each in token.slices]


@pytest.mark.parametrize(
    ("form", "factor"),
    [("{}mm", 1), ("{} mm", 1), ("~{}-mm", 1), ("ca. {} millimetres", 1), ("{} cm", 10), ("{} centimeters", 10)],
)
def test_lengths_are_in_millimetres(form, factor):
    for value in (1, 2.5, 12):
        assert lengths(f"extend by {form.format(value)} there") == [pytest.approx(value * factor)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two mm", [2]),
        ("half a centimetre", [5]),
        ("2-3 mm", [2.5]),
        ("1,5 cm", [15]),
        ("a few mm", []),
        ("some millimetres", []),
        ("a couple of mm", []),
        ("3 voxels", []),
        ("5 times", []),
        ("2 mm or 4 mm", [2, 4]),
    ],
)
def test_what_is_a_length_and_what_is_none(text, found):
    assert lengths(text) == found


@pytest.mark.parametrize("key", ["slices", "Slice", "sl.", "sl", "images", "slices no.", "axial slices", "slices:"])
def test_ranges_of_slices(key):
    for join in ("-", " - ", "–", " to ", " until ", " through "):  # noqa: RUF001
        assert slices(f"too small in {key} 30{join}36 there") == [(30, 36)], join
        assert slices(f"too small in {key} 36{join}30 there") == [(30, 36)], join


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("slice 14", [(14, 14)]),
        ("from slice 12 to slice 20", [(12, 20)]),
        ("between slices 10 and 25", [(10, 25)]),
        ("slices 12 and 13", [(12, 13)]),
        ("slices 12 and 20", [(12, 12), (20, 20)]),
        ("slices 3, 4, 5 and 9-11", [(3, 5), (9, 11)]),
        ("sl30", [(30, 30)]),
        ("z=7", [(7, 7)]),
        ("5 mm slices", []),
        ("slice thickness 5 mm", []),
        ("slice 3 mm", []),
        ("vertebra L3", []),
        ("slices 20, 22, and 24", [(20, 20), (22, 22), (24, 24)]),
        ("slices 12 13 14", [(12, 14)]),
        ("slices 20 through to 24", [(20, 24)]),
        ("slice 30 +/- 2", [(28, 32)]),
        ("slice 30±2", [(28, 32)]),
        ("slice 20 3 mm", [(20, 20)]),
        ("slices 20-25 by 5 mm slices", [(20, 25)]),
        ("by 3 mm slice 20", [(20, 20)]),
    ],
)
def test_which_slices(text, found):
    assert slices(text) == found


def test_a_slice_of_so_many_is_one_slice():
    for text, count, found in (
        ("slice 35/60", 60, ((35, 35),)),
        ("slice 35/60", 80, ((35, 35), (60, 60))),
        ("slices 59/60", 60, ((59, 60),)),
    ):
        assert tokenise(text, slice_count=count)[0].slices == found


@pytest.mark.parametrize("text", ["above slice 40", "slice 40 onwards", "from slice 40", "up to slice 12", "sl. 4 ff"])
def test_ranges_without_an_end_are_told_from_others(text):
    assert [token.kind for token in tokenise(text) if token.kind.endswith("slices")] == ["open slices"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("too small in slices 3-5, too large on 20-24", [(3, 5), (20, 24)]),
        ("too small (30-36)", [(30, 36)]),
        ("in 2-3 places", []),
        ("by 2-3 mm", []),
        ("BETWEEN SLICES 7 AND 12", [(7, 12)]),
        ("slcies 7-12", [(7, 12)]),
        ("beetween slices 7 and 12", [(7, 12)]),
    ],
)
def test_slices_in_careless_notes(text, found):
    assert slices(text) == found


@pytest.mark.parametrize("unit", ["milimetres", "millimeters", "milimeter", "MM"])
def test_units_in_careless_notes(unit):
    assert lengths(f"by 5 {unit}") == [5]
    assert lengths("half a centimter") == [5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LK & RK", "lk and rk"),
        ("lat+post", "lat and post"),
        ("too big ++", "too big strongly"),
        ("to small", "too small"),
        ("2 big", "too big"),
        ("w/o dome", "without dome"),
        ("liver as well as spleen", "liver and spleen"),
        ("2 more mm", "more 2 mm"),
        ("+5 MM", "expand 5 mm"),
        ("left nor the right lung", "left and right lung"),
        ("GB incl. in liver", "gb included in liver"),
    ],
)
def test_signs_and_short_forms_are_words(text, words):
    assert " ".join(token.text for token in tokenise(text)) == words


def test_spoken_punctuation_is_punctuation():
    tokens = tokenise("spleen colon tip missing comma too small full stop leaks into the colon period")
    assert [token.kind for token in tokens if token.kind != "word"] == ["comma", "comma", "stop", "stop"]
    assert tokens[-2].text == "colon"
    assert [token.text for token in tokenise("leaks into colon")] == ["leaks", "into", "colon"]


@pytest.mark.parametrize(
    "text", ["</x>", "{x}", "$(x)", "a@b.cd", "http://x", "print(x", "`x`", "<|x|>", "/etc/x", "x; -- y"]
)
def test_signs_of_programs(text):
    assert "foreign" in {token.kind for token in tokenise(text)}


@pytest.mark.parametrize(
    "text", ["hole(s)", "<5 mm", "liver/spleen", "LK -> RK", "50 %", "a) b)", "isn`t", "#2", "*tip*"]
)
def test_what_clinicians_write_is_no_program(text):
    assert "foreign" not in {token.kind for token in tokenise(text)}


def test_short_forms_end_no_sentence():
    assert "stop" not in {token.kind for token in tokenise("sup. pole of the LK, ca. 3 mm, approx. sl. 4")}
    assert [token.kind for token in tokenise("Too small. Too wide")].count("stop") == 1


@pytest.mark.parametrize("form", ["isn't", "isnt", "isn’t", "is not"])  # noqa: RUF001
def test_contractions_are_negations(form):
    assert [token.text for token in tokenise(f"it {form} covered")] == ["it", "is", "not", "covered"]


@pytest.mark.parametrize("form", ["over-segmented", "over segmented", "Oversegmented"])
def test_compounds_are_one_word(form):
    assert [token.text for token in tokenise(form)] == ["oversegmented"]


def test_fractions_are_lengths():
    lengths = [
        [token.mm for token in tokenise(f"liver {text} too small") if token.mm] for text in ("½ cm", "2½ cm", "¾ mm")
    ]
    assert lengths == [[5.0], [25.0], [0.75]]
