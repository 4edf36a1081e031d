"""Which identifiers are allowed, by sweeps of what ends in other folders, logs or names."""

from __future__ import annotations

from pathlib import Path

import pytest

from causal_sam.errors import InputError
from serving.requests.identifiers import MAX_LENGTH, checked_identifier, checked_label_name, checked_result_tag

GOOD = (
    "1.2.840.113619.2.55.3.604688119.969.1268071029.320",
    "b5b8e4f0-5a0b-11ee-8c99-0242ac120002",
    "patient 12 (T1)",
    "T1.nii.gz_brain.nii.gz",
    "final",
    "Größe",
    "Gro\u0308ße",
    "肝臓",
    "a" * MAX_LENGTH,
    "console",
    "50% of it",
    "2024-01-01T10:00",
)
BAD = (
    *(
        "",
        " ",
        "\t",
        ".",
        "..",
        "...",
        ".hidden",
        "a..b",
        "../x",
        "..\\x",
        "/tmp/x",
        "x/y",
        "x\\y",
        "x/",
        "a.",
        " a",
        "a ",
    ),
    *("a\0", "a\n", "\x1b[31m", "a\x7f", "a\x85b", "\ud800", "a\udfff", "\u202egnp", "a\u200b", "\ufeffa", "a\u2028b"),
    *("con", "NUL", "nul.txt", "COM1", "%2e%2e%2fx", "a%00", "lpt9.nii.gz", "C:", "c:x", "com¹", "\ue000", "a\u200d"),
    *("a" * (MAX_LENGTH + 1), "1" * 5000, "肝" * 100),
)
NO_STRINGS = (None, 1, 1.0, True, [], ["a"], {}, b"a", Path("a"))


def test_plain_names_are_kept_unchanged() -> None:
    for name in GOOD:
        assert checked_identifier(name, "image id") == name


def test_what_leaves_a_folder_or_hides_itself_is_refused_with_one_printable_sentence() -> None:
    for name in (*BAD, *NO_STRINGS):
        with pytest.raises(InputError) as caught:
            checked_identifier(name, "label tag")
        sentence = str(caught.value)
        assert sentence.startswith("The label tag "), repr(name)
        assert sentence.endswith(".")
        assert sentence.isprintable()
        assert len(sentence) < 450


def test_every_accepted_identifier_is_one_component_of_a_path(tmp_path: Path) -> None:
    for name in GOOD:
        file = tmp_path / f"{name}.label.nii.gz"
        file.write_bytes(b"x")
        assert file.resolve().parent == tmp_path.resolve()


def test_names_of_labels_may_contain_what_paths_may_not() -> None:
    for name in ("left/right ventricle", "T10/T11", "lesion..2", "می\u200cرود"):
        assert checked_label_name(name) == name
    for name in ("", "  ", "a\nb", "\ud800", "\0", "x" * (MAX_LENGTH + 1), "\u202eliver", 3, None):
        with pytest.raises(InputError, match="label name"):
            checked_label_name(name)


def test_results_of_tasks_are_not_saved_as_accepted_labels() -> None:
    assert [checked_result_tag(tag) for tag in (None, "", "original", "second try")] == [
        *("original", "original", "original", "second try")
    ]
    for tag in ("final", "FINAL", "../final", "/tmp/x", 1, ["final"], [], {}):
        with pytest.raises(InputError, match="label tag"):
            checked_result_tag(tag)
