"""Accepted labels as the clients leave them in the data store: what is listed, what they mean, what is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from filelock import FileLock
from tiny_site import AFFINE, LEFT, PLACES, RIGHT, SHAPE, TinySite

from causal_sam.errors import InputError
from causal_sam.imaging.label_names import names_in_info, values_by_name
from causal_sam.site import accepted
from causal_sam.site.accepted import DATA_STORE, LOCK, AcceptedLabel, accepted_labels, frame_in_info, read_accepted
from causal_sam.site.label_files import CHECKSUM, checksum, pending_path


@pytest.fixture
def tiny(tmp_path: Path) -> TinySite:
    return TinySite(tmp_path)


def only(tiny: TinySite) -> AcceptedLabel:
    (label,) = accepted_labels(tiny.data)
    return label


def voxels(tiny: TinySite, values: dict[str, int] | None = None) -> dict[str, int]:
    """Names that were read of the only label, with the numbers of their voxels."""
    _, structures = read_accepted(only(tiny), values or {})
    return {name: int(mask.sum()) for name, mask in structures.items()}


def size(place: str) -> int:
    label_map = np.zeros(SHAPE, bool)
    label_map[PLACES[place]] = True
    return int(label_map.sum())


def label_map(**values: int) -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint8)
    for place, value in values.items():
        drawn[PLACES[f"{place} block"]] = value
    return drawn


def test_accepted_labels_are_listed_by_their_images(tiny: TinySite) -> None:
    ids = [tiny.accept(number) for number in (3, 1, 2)]
    labels = accepted_labels(tiny.data)
    assert [label.image_id for label in labels] == sorted(ids)
    assert labels[0].image == tiny.data / "case01.nii.gz"
    assert labels[0].label == tiny.labels / "case01.nii.gz"
    assert len({label.digest() for label in labels}) == 1  # the same was drawn in all of them
    volume, structures = read_accepted(labels[0], {})
    assert volume.shape == SHAPE
    assert {name: int(mask.sum()) for name, mask in structures.items()} == {LEFT: size(LEFT), RIGHT: size(RIGHT)}


def test_labels_of_tasks_are_not_accepted(tiny: TinySite) -> None:
    tiny.accept(1)
    path = tiny.data / DATA_STORE
    content = json.loads(path.read_text())
    (entry,) = content["objects"].values()
    entry["labels"] = {"original": entry["labels"]["final"]}
    path.write_text(json.dumps(content))
    assert accepted_labels(tiny.data) == []


@pytest.mark.parametrize(
    ("info", "study"),
    [
        ({"PatientID": "p1", "StudyInstanceUID": "1.2"}, "p1"),
        ({"PatientID": "UNK", "StudyInstanceUID": "1.2"}, "1.2"),
        ({"PatientID": "", "StudyInstanceUID": None}, "case01"),
        ({}, "case01"),
    ],
)
def test_images_belong_to_their_patients(tiny: TinySite, info: dict[str, Any], study: str) -> None:
    tiny.accept(1, **info)
    assert only(tiny).study == study


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({"label_info": [{"name": " liver ", "idx": 2}, {"name": "spleen", "id": 5}]}, {"liver": 2, "spleen": 5}),
        ({"label_info": [{"name": "liver", "idx": "2"}, {"name": "background"}]}, {"liver": 2}),
        ({"label_info": [{"idx": 1}, "liver", {"name": 7}, {"name": "spleen"}]}, {"spleen": 1}),
        ({"label_info": [], "label_names": {"liver": 3}}, {"liver": 3}),
        ({"label_names": ["liver", "spleen"]}, {"liver": 1, "spleen": 2}),
        ({"label_names": ["background", "liver"]}, {"liver": 1}),
        ({"label_names": [{"liver": 1}, ["spleen"], "aorta"]}, {"aorta": 3}),
        ({"params": {"label_names": {"liver": 1, "background": 0}}}, {"liver": 1}),
        ({"label_names": {"liver": "²", "spleen": -1, "aorta": 1.5, "pancreas": True, "colon": None}}, {}),
        ({"label_info": {"liver": 1}, "label_names": "liver", "params": [1]}, {}),
    ],
)
def test_names_in_all_forms_of_the_clients(info: dict[str, Any], names: dict[str, int]) -> None:
    assert names_in_info(info) == names


def test_values_are_taken_by_position_only_where_slicer_has_renumbered_them() -> None:
    named = {"liver": 2, "spleen": 3}
    assert values_by_name(named, [3]) == named
    assert values_by_name(named, iter([1, 2])) == {"liver": 1, "spleen": 2}
    assert values_by_name(named, [2, 3, 9]) == named  # 9 is something that nobody named


def test_frames_are_those_of_the_server_itself() -> None:
    assert frame_in_info({"params": {"frame": 2}}) == 2
    assert frame_in_info({"params": {"frame": "2"}}) is None
    assert frame_in_info({"params": None}) is None


def test_only_labels_with_voxels_count(tiny: TinySite) -> None:
    tiny.accept(1)
    info = {"label_info": [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]}
    tiny.save("case01", label_map(right=2), info)
    assert voxels(tiny) == {"spleen": size(RIGHT)}


def test_segments_of_one_name_are_one_structure(tiny: TinySite) -> None:
    tiny.accept(1)
    info = {"label_info": [{"name": "lesion", "idx": 1}, {"name": "lesion", "idx": 2}]}
    tiny.save("case01", label_map(left=1, right=2), info)
    assert voxels(tiny) == {"lesion": size(LEFT) + size(RIGHT)}


def test_a_label_with_a_value_without_a_name_is_not_learnt(tiny: TinySite) -> None:
    tiny.accept(1)
    for info, values in (
        ({}, "4, 6"),
        ({"label_names": {"liver": 4}}, "6"),
        ({"label_names": {"liver": 4, "spleen": 6, "aorta": 6}}, "6"),  # which of the two?
        ({"label_info": [{"name": "liver", "idx": 4}, {"name": "", "idx": 6}]}, "6"),
    ):
        tiny.save("case01", label_map(left=4, right=6), info)
        with pytest.raises(InputError, match=f"nothing says for certain which structures its values {values} are"):
            read_accepted(only(tiny))
    tiny.save("case01", label_map(left=4, right=6), {})
    assert voxels(tiny, {"liver": 4, "spleen": 6}) == {"liver": size(LEFT), "spleen": size(RIGHT)}  # it was told so


def test_a_label_whose_file_is_another_than_its_names_are_for_is_not_learnt(tiny: TinySite) -> None:
    tiny.accept(1)
    path = tiny.labels / "case01.nii.gz"
    saved = {"label_names": {"liver": 1, "spleen": 2}, CHECKSUM: checksum(path)}
    bytes_of_save = path.read_bytes()
    tiny.save("case01", label_map(left=2, right=1), saved)
    with pytest.raises(InputError, match="its file was changed or saved again since its names were written down"):
        read_accepted(only(tiny))
    assert only(tiny).digest() == saved[CHECKSUM].removeprefix("SHA256:")
    pending_path(path).write_bytes(bytes_of_save)  # of a server that was killed before it had put it in place
    assert voxels(tiny) == {"liver": size(LEFT), "spleen": size(RIGHT)}


def test_one_damaged_entry_does_not_take_the_others_down(tiny: TinySite) -> None:
    for number in (1, 2, 3):
        tiny.accept(number)
    path = tiny.data / DATA_STORE
    content = json.loads(path.read_text())
    for entry in (None, [], {}, {"image": 1, "labels": {"final": 1}}, {"image": {"ext": 7}, "labels": {"final": []}}):
        content["objects"]["case02"] = entry
        path.write_text(json.dumps(content))
        assert [label.image_id for label in accepted_labels(tiny.data)] == ["case01", "case03"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda tiny: (tiny.labels / "case01.nii.gz").unlink(), "The label of case01 was deleted."),
        (lambda tiny: (tiny.data / "case01.nii.gz").unlink(), "The image of case01 was deleted."),
        (lambda tiny: _cut(tiny.labels / "case01.nii.gz"), "case01.nii.gz is not a readable NIfTI file"),
        (lambda tiny: _cut(tiny.data / "case01.nii.gz"), "case01.nii.gz is not a readable NIfTI file"),
        (lambda tiny: tiny.save("case01", label_map(), {}), "The label of case01 is empty."),
        (
            lambda tiny: tiny.save("case01", label_map(left=1), {}, affine=AFFINE + np.eye(4, k=3)),
            "The label of case01 is not learned: case01.nii.gz is not on the grid of its image",
        ),
        (
            lambda tiny: tiny.save("case01", np.stack([label_map(left=1)] * 2, -1), {}),
            "The label of case01 is not learned: case01.nii.gz has 2 layers",
        ),
        (
            lambda tiny: tiny.save("case01", label_map(left=1), {"params": {"frame": 1}}),
            "case01.nii.gz has one frame: frame must be 0, not 1.",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tiny: TinySite, damage, sentence: str) -> None:
    tiny.accept(1)
    damage(tiny)
    with pytest.raises(InputError) as caught:
        read_accepted(only(tiny), {"liver": 1})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_damaged_anywhere_is_an_error_of_ours(tiny: TinySite) -> None:
    tiny.accept(1)
    path = tiny.labels / "case01.nii.gz"
    plain = tiny.labels / "plain.nii"
    nibabel.save(nibabel.load(path), plain)
    whole, rng = plain.read_bytes(), np.random.default_rng(0)
    label = AcceptedLabel("case01", "case01", tiny.data / "case01.nii.gz", plain, {})
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, 352, 3):
            damaged[place] = rng.integers(256)
        plain.write_bytes(damaged)
        try:
            read_accepted(label, {"liver": 1})
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 (it need not be one)


def test_a_digest_of_what_is_gone(tiny: TinySite) -> None:
    tiny.accept(1)
    label = only(tiny)
    label.label.unlink()
    with pytest.raises(InputError, match="The label of case01 cannot be read: No such file"):
        label.digest()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"objects": null}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_data_store_is_said_to_be_one(tiny: TinySite, content: str | bytes) -> None:
    (tiny.data / DATA_STORE).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"datastore_v2.json is damaged: restore it, or remove it"):
        accepted_labels(tiny.data)


def test_a_folder_that_is_no_data_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no data store of MONAI Label: it has no datastore_v2.json\."):
        accepted_labels(tmp_path)


def test_a_data_store_that_is_locked(tiny: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.accept(1)
    monkeypatch.setattr(accepted, "LOCK_SECONDS", 0.05)
    with FileLock(tiny.data / LOCK), pytest.raises(InputError, match="is locked: try again when nobody writes to it"):
        accepted_labels(tiny.data)


def test_it_waits_for_who_writes_to_the_data_store(tiny: TinySite) -> None:
    tiny.accept(1)
    lock, found = FileLock(tiny.data / LOCK), []
    lock.acquire()
    reader = threading.Thread(target=lambda: found.extend(accepted_labels(tiny.data)))
    reader.start()
    whole = (tiny.data / DATA_STORE).read_bytes()
    (tiny.data / DATA_STORE).write_bytes(whole[:20])  # as MONAI Label writes it
    reader.join(0.3)
    assert reader.is_alive()
    (tiny.data / DATA_STORE).write_bytes(whole)
    lock.release()
    reader.join()
    assert len(found) == 1
