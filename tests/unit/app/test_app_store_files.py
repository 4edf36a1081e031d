"""Ids of files, and damaged indexes: a file is listed under one id or said to be left out, and the rest is served."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_store import make_images, named, opened, save, saved_pair

from causal_sam.imaging.label_names import names_in_info
from causal_sam.site.accepted import accepted_labels
from serving.data.files import Extensions
from serving.data.folder_store import FolderStore

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
NAMES = (
    f"{UID}175.nii.gz",
    f"{UID}176.nii.gz",
    "T1.nii.gz_brain.nii.gz",
    "case.nii.gz",
    "case.nrrd",
    "case.nii",
    "UPPER.NII.GZ",
    "Mixed.Nii.Gz",
    "with blanks in it.nii.gz",
    "a.b.c.nrrd",
    "nii.gz.nii.gz",
    "nrrd",
    f"{unicodedata.normalize('NFC', 'schädel')}.nii.gz",
    f"{unicodedata.normalize('NFD', 'köpfe')}.nii.gz",
    "心臓.nii.gz",
)
INDEX = "datastore_v2.json"


def listed(store: FolderStore) -> dict[str, str]:
    """Names of the files of all images, by their ids."""
    return {image_id: Path(store.get_image_uri(image_id)).name for image_id in store.list_images()}


def test_each_file_has_an_id_of_its_own(tmp_path: Path) -> None:
    images = [name for name in NAMES if name != "nrrd"]
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    store = opened(tmp_path)
    ids = listed(store)
    assert sorted(ids.values()) == sorted(images)
    assert {f"{UID}175", f"{UID}176", "T1.nii.gz_brain", "case", "case.nrrd", "case.nii", "UPPER"} <= ids.keys()
    assert ids["case"] == "case.nii.gz"
    for image_id, name in ids.items():
        assert Path(store.get_image_uri(image_id)).read_bytes() == name.encode()
        for form in ("NFC", "NFD"):  # clients write accents as they like
            assert Path(store.get_image_uri(unicodedata.normalize(form, image_id))).name == name
    assert listed(opened(tmp_path)) == ids
    (tmp_path / "case.nii.gz").unlink()
    assert listed(store) == listed(opened(tmp_path)) == {key: name for key, name in ids.items() if key != "case"}


def test_labels_belong_to_the_images_of_their_ids(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in NAMES:
        if name.lower().endswith(".nii.gz"):
            save(folder / name, 0)
    save(folder / "case.nii", 0)
    store = opened(folder)
    for value, image_id in enumerate(store.list_images(), start=1):
        store.save_label(image_id, str(save(tmp_path / "label.nii.gz", value)), "final", named(value))
    for server in (store, opened(folder)):
        assert len(server.get_labeled_images()) == len(listed(server))
        for value, image_id in enumerate(store.list_images(), start=1):
            assert saved_pair(server, image_id) == (value, f"structure {value}")
    (folder / INDEX).unlink()  # no names, but the same labels
    assert set(opened(folder).get_labeled_images()) == set(store.list_images())


def test_what_is_not_listed_is_said_once_and_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "good.nii.gz", 0)
    for name in (
        ".nii.gz",
        "._good.nii.gz",
        "..nii.gz",
        "a..b.nii.gz",
        "con.nii.gz",
        "tab\t.nii.gz",
        "x" * 240 + ".nii.gz",
    ):
        (tmp_path / name).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe4.nii.gz")).write_bytes(b"")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "broken.nii.gz").symlink_to("nowhere")
    (tmp_path / "circle.nii.gz").symlink_to("circle.nii.gz")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "sub" / "more").mkdir(parents=True)
    (tmp_path / "sub" / "more" / "inside.nii.gz").write_bytes(b"")
    (tmp_path / "labels" / "final").mkdir(parents=True)
    (tmp_path / "labels" / "final" / "nobody.nii.gz").write_bytes(b"")
    for name in ("good.nii.gz", "good.nrrd"):
        (tmp_path / "labels" / "final" / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    with caplog.at_level(logging.WARNING):
        store = opened(tmp_path)
        assert store.list_images() == ["good"]
        assert opened(tmp_path).list_images() == ["good"]
    left_out = [path.name for path in tmp_path.glob("*.nii.gz") if path.name != "good.nii.gz"]
    left_out += ["sub/more/inside.nii.gz", "labels/final/nobody.nii.gz"]
    for name in (*left_out, *(path.name for path in tmp_path.glob(".*.nii.gz"))):
        assert sum(f"{ascii(name)[1:-1]}" in line for line in caplog.messages) >= 2, name  # by both
    assert any("is that label" in line for line in caplog.messages)
    assert all("\n" not in line for line in caplog.messages)
    assert not any("notes.txt" in line for line in caplog.messages)
    caplog.clear()
    store.refresh()
    assert not caplog.messages
    json.loads((tmp_path / INDEX).read_text())


def test_indexes_with_ids_of_earlier_rules_keep_working(tmp_path: Path) -> None:
    # MONAI Label cut this upload at its first dot, and had the rest as extension.
    save(tmp_path / "1.3.6.nii.gz", 0)
    save(tmp_path / "T1.nii.gz_brain.nii.gz", 0)
    (tmp_path / "labels" / "final").mkdir(parents=True)
    save(tmp_path / "labels" / "final" / "1.nii.gz", 4)
    content = {
        "name": "old",
        "description": "",
        "objects": {
            "1": {
                "image": {"ext": ".3.6.nii.gz", "info": {"ts": 1}},
                "labels": {"final": {"ext": ".nii.gz", "info": named(4)}},
            },
        },
    }
    (tmp_path / INDEX).write_text(json.dumps(content))
    store = opened(tmp_path)
    assert listed(store) == {"1": "1.3.6.nii.gz", "T1.nii.gz_brain": "T1.nii.gz_brain.nii.gz"}
    assert saved_pair(store, "1") == (4, "structure 4")
    store.save_label("1", str(_label(tmp_path, 5)), "final", named(5))
    assert saved_pair(opened(tmp_path), "1") == (5, "structure 5")


def _label(folder: Path, value: int) -> Path:
    (folder / "elsewhere").mkdir(exist_ok=True)
    return save(folder / "elsewhere" / "label.nii.gz", value)


def test_an_image_does_not_take_the_file_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    save(folder / "case.nii.gz", 1)
    save(folder / "case.nii", 2)
    store = opened(folder)
    assert listed(store) == {"case": "case.nii.gz", "case.nii": "case.nii"}
    with pytest.raises(ValueError, match=r"The file 'case.nii' is that of image 'case.nii'"):
        store.add_image("case", str(save(tmp_path / "new.nii", 3)), {})
    store.add_image("case.nii", str(tmp_path / "new.nii"), {})
    assert listed(store) == {"case": "case.nii.gz", "case.nii": "case.nii"}
    store.add_image("case.nii", str(save(tmp_path / "new.nii.gz", 3)), {})
    assert listed(store) == {"case": "case.nii.gz", "case.nii": "case.nii.nii.gz"}
    assert store.add_image("", str(tmp_path / "new.nii.gz"), {}) == "new"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30), st.sampled_from([".nii.gz", ".nii", ".nrrd", ".NII.GZ", ""]))
def test_a_name_is_cut_at_its_end(stem: str, ext: str) -> None:
    parts = Extensions(("*.nii", "*.nii.gz", "*.nrrd")).split(stem + ext)
    if parts is not None:
        assert "".join(parts) == stem + ext
        assert parts[1].lower() in (".nii.gz", ".nii", ".nrrd")
        assert len(parts[1]) >= len(ext)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data store with two labels."""
    folder = make_images(tmp_path_factory.mktemp("whole") / "studies")
    for number in range(4, 12):
        (folder / f"case{number}.nii.gz").unlink()
    store = opened(folder)
    for number in (1, 2):
        path = str(save(folder.parent / "label.nii.gz", number))
        store.save_label(f"case{number}", path, "final", named(number) | {"reader": "Müller"})
    return folder


def _served(folder: Path) -> dict[str, str | None]:
    """Open a data store whose index is damaged; names of the labels, which are right or none."""
    for path in folder.glob("*.damaged-*"):
        path.unlink()
    before = (folder / INDEX).read_bytes()
    store = opened(folder)
    assert store.list_images()
    assert sorted(store.list_images()) == [f"case{number}" for number in range(4)]
    names = {}
    for image_id in store.get_labeled_images():
        names[image_id] = next(iter(names_in_info(store.get_label_info(image_id, "final"))), None)
    for path in folder.glob("*.damaged-*"):
        assert path.read_bytes() == before
    json.loads((folder / INDEX).read_text())
    assert opened(folder).json() == store.json()  # and the next start finds nothing wrong
    assert len(accepted_labels(folder)) == len(names)
    return names


def test_an_index_cut_off_anywhere_is_served(whole: Path) -> None:
    content = (whole / INDEX).read_bytes()
    # Every byte of the first part, and of the end; and some between.
    for length in sorted({*range(60), *range(0, len(content), 37), *range(len(content) - 40, len(content) - 1)}):
        (whole / INDEX).write_bytes(content[:length])
        assert _served(whole) == {"case1": None, "case2": None}, length
        assert len(list(whole.glob("*.damaged-*"))) == 1
        assert (whole / "labels" / "final" / "case1.nii.gz").exists()
    (whole / INDEX).write_bytes(content)
    assert _served(whole) == {"case1": "structure 1", "case2": "structure 2"}
    assert not list(whole.glob("*.damaged-*"))


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=8),
    st.just("\ud800"),
    st.just("../../x"),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)


def _paths(value: object, path: tuple = ()) -> list[tuple]:
    """All places in a JSON value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in below for found in _paths(each, (*path, key)))]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), odd=ODD)
def test_an_index_with_anything_anywhere_is_served(whole: Path, data: st.DataObject, odd: object) -> None:
    content = (whole / INDEX).read_bytes()
    try:
        changed = json.loads(content)
        path = data.draw(st.sampled_from(_paths(changed)))
        if not path:
            changed = odd
        else:
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = odd
        if path[:1] in (("images_dir",), ("labels_dir",)) and isinstance(odd, str):
            return  # that is another folder
        (whole / INDEX).write_text(json.dumps(changed))
        names = _served(whole)
        untouched = "case2" if "case1" in path else "case1"
        if len(path) > 2:  # one entry is damaged, the others are not
            assert names[untouched] == f"structure {untouched[-1]}"
        for image_id, name in names.items():
            if path[-2:] != (0, "name"):
                assert name in (None, f"structure {image_id[-1]}")
    finally:
        (whole / INDEX).write_bytes(content)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(min_size=1, max_size=40), place=st.floats(0, 1))
def test_an_index_with_junk_in_it_is_served(whole: Path, junk: bytes, place: float) -> None:
    content = (whole / INDEX).read_bytes()
    try:
        at = int(place * (len(content) - len(junk)))
        (whole / INDEX).write_bytes(content[:at] + junk + content[at + len(junk) :])
        assert set(_served(whole)) <= {"case1", "case2"}
    finally:
        (whole / INDEX).write_bytes(content)


def test_an_index_of_another_kind_is_served_or_said(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = (whole / INDEX).read_bytes()
    kinds = [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"PK\x03\x04", b"[" * 100_000, b'{"objects": []}', b"\0" * 5000]
    for kind in kinds:
        caplog.clear()
        (whole / INDEX).write_bytes(kind)
        assert _served(whole) == {"case1": None, "case2": None}, kind
        (line,) = (line for line in caplog.messages if "damaged" in line)
        assert "not used for learning until they are saved again" in line
        assert "\n" not in line
    for other in (content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content):  # as some editors save it
        (whole / INDEX).write_bytes(other)
        assert _served(whole) == {"case1": "structure 1", "case2": "structure 2"}
    (whole / INDEX).unlink()
    (whole / INDEX).mkdir()
    caplog.clear()
    store = opened(whole)
    assert len(store.list_images()) == 4
    assert "Let it be a file" in caplog.text
    with pytest.raises(ValueError, match="cannot be written"):
        store.save_label("case1", str(whole / "case1.nii.gz"), "final", named(1))
    (whole / INDEX).rmdir()
    (whole / INDEX).write_bytes(content)


def test_an_index_damaged_or_deleted_under_a_running_server_loses_no_name(whole: Path) -> None:
    content = (whole / INDEX).read_bytes()
    store = opened(whole)
    for damage in (lambda path: path.write_bytes(content[: len(content) // 2]), Path.unlink):
        damage(whole / INDEX)
        assert saved_pair(store, "case1") == (1, "structure 1")
        store.set_description("written again")
        assert saved_pair(opened(whole), "case2") == (2, "structure 2")
