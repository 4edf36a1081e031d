"""The data store over HTTP, as MONAI Label's client and careless ones use it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
from shared_store import IMAGES, SHAPE, make_images, named, save

from serving.data.label_set import refusal

from .server import Server, read_nifti, running_server

pytestmark = pytest.mark.integration

SECONDS = 120
FIRST, SECOND = "1.3.6.1.4.1.14519.175", "1.3.6.1.4.1.14519.176"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose index is cut off when it starts."""
    folder = make_images(tmp_path_factory.mktemp("own") / "studies")
    (folder / "datastore_v2.json").write_text('{"name": "n", "objects": {"case0": {"image": {"ext"')
    with running_server(folder, tmp_path_factory.mktemp("server"), {"labels": "liver,spleen"}) as started:
        yield started


def put_label(
    server: Server, image: str, value: int, folder: Path, info: object = None, **query: str
) -> requests.Response:
    params = json.dumps(named(value) if info is None else info) if not isinstance(info, str) else info
    with save(folder / f"label{value}.nii.gz", value).open("rb") as file:
        return requests.put(
            f"{server.url}/datastore/label",
            params={"image": image, **query},
            files={"label": file, "params": (None, params)},
            timeout=SECONDS,
        )


def get(server: Server, path: str, **query: str) -> requests.Response:
    return requests.get(f"{server.url}/datastore/{path}", params=query, timeout=SECONDS)


def pair(server: Server, image: str, tag: str = "final") -> tuple[int, str]:
    """The value in a label's file, and its name, both of the same save."""
    while True:
        file, info = get(server, "label", label=image, tag=tag), get(server, "label/info", label=image, tag=tag).json()
        if file.headers["ETag"] == f'"{info["checksum"]}"':
            (entry,) = info["label_info"]
            return int(np.asarray(read_nifti(file.content).dataobj).max()), entry["name"]


def test_a_damaged_index_is_kept_and_said_and_the_images_are_served(own: Server) -> None:
    assert len(get(own, "", output="all").json()["objects"]) >= IMAGES
    assert "datastore_v2.json is damaged" in own.log.read_text()
    assert len(list(own.studies.glob("datastore_v2.json.damaged-*"))) == 1


def test_uploads_whose_names_have_dots_are_images_of_their_own(own: Server, tmp_path: Path) -> None:
    client = own.client()
    for value, name in ((175, FIRST), (176, SECOND)):
        path = save(tmp_path / f"{name}.nii.gz", value)
        with path.open("rb") as file:
            answer = requests.put(f"{own.url}/datastore/image", files={"file": file}, timeout=SECONDS)
        assert answer.json() == {"image": name}
        assert read_nifti(get(own, "image", image=name).content).dataobj[0, 0, 0] == value
    assert client.upload_image(str(tmp_path / f"{FIRST}.nii.gz"), image_id=FIRST)["image"] == FIRST
    assert client.upload_image(str(tmp_path / f"{SECOND}.nii.gz"), image_id="other")["image"] == "other"
    ids = get(own, "", output="all").json()["objects"].keys()
    assert {FIRST, SECOND, "other"} <= ids


def test_an_image_that_is_sent_again_keeps_its_labels(own: Server, tmp_path: Path) -> None:
    info = {"label_info": [{"name": "pancreas", "idx": 1}, {"name": "left kidney", "idx": 2}]}
    array = np.zeros(SHAPE, np.uint8)
    array[:4], array[4:8] = 1, 2
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "label.nii.gz")
    own.client().save_label("case0", str(tmp_path / "label.nii.gz"), params=info)
    own.client().upload_image(str(save(tmp_path / "again.nii.gz", 7)), image_id="case0")
    assert "case0" in [key for key, each in get(own, "", output="all").json()["objects"].items() if each["labels"]]
    found = get(own, "label/info", label="case0", tag="final").json()["label_info"]
    assert [(entry["name"], entry["idx"]) for entry in found] == [("pancreas", 1), ("left kidney", 2)]


def test_saves_at_once_lose_nothing_and_readers_get_pairs(own: Server, tmp_path: Path) -> None:
    def accept(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        for value in (number, number + 20):
            assert put_label(own, f"case{number}", value, folder).status_code == 200
            assert pair(own, f"case{number}") == (value, f"structure {value}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(accept, range(1, IMAGES)))
    objects = get(own, "", output="all").json()["objects"]
    for number in range(1, IMAGES):
        assert "final" in objects[f"case{number}"]["labels"]
        assert pair(own, f"case{number}") == (number + 20, f"structure {number + 20}")


def test_what_cannot_be_kept_is_refused_and_nothing_changes(own: Server, tmp_path: Path) -> None:
    assert put_label(own, "case1", 3, tmp_path).status_code == 200
    before = get(own, "", output="all").json()
    outside = {path.name for path in own.studies.parent.iterdir()}
    infos = ['{"a": "\\ud800"}', "[1]", "{", '{"label_info": [{"name": "liver", "idx": ' + "9" * 5000 + "}]}"]
    infos += [{"label_info": [{"name": name, "idx": 3}]} for name in ("result_1", "label", "a\u0000b", "\u202ex")]
    infos += [{"label_info": [{"name": "liver", "idx": "9" * 5000}]}, {"label_info": [{"name": "liver", "idx": -1}]}]
    for info in infos:
        answer = put_label(own, "case1", 3, tmp_path, info)
        assert 400 <= answer.status_code < 500, info
        assert answer.json()["detail"].endswith((".", ")"))
    for query in ({"tag": "../../x"}, {"tag": "/tmp/x"}, {"tag": "a\0b"}, {"image": "../x"}, {"image": "nobody"}):
        answer = put_label(own, **{"image": "case1", "value": 3, "folder": tmp_path, **query})
        assert 400 <= answer.status_code < 500, query
    for query in ({"image": "../x"}, {"image": "/tmp/x"}, {"image": "a/b"}, {"image": ".x"}, {"image": "x" * 5000}):
        with save(tmp_path / "image.nii.gz", 1).open("rb") as file:
            answer = requests.put(f"{own.url}/datastore/image", params=query, files={"file": file}, timeout=SECONDS)
        assert 400 <= answer.status_code < 500, query
    for image in ("case1", "new"):
        file = ("image.nii.gz", b"junk" * 100)
        answer = requests.put(
            f"{own.url}/datastore/image", params={"image": image}, files={"file": file}, timeout=SECONDS
        )
        assert answer.status_code == 422, image
        assert answer.json()["detail"].startswith("The image is not a readable NIfTI file")
    for path, query in (("image", {"id": "nobody"}), ("label", {"id": "case1", "tag": "nobody"})):
        answer = requests.delete(f"{own.url}/datastore/{path}", params=query, timeout=SECONDS)
        assert answer.status_code == 404
    assert get(own, "label", label="case1", tag="nobody").status_code == 404
    assert get(own, "", output="all").json() == before
    assert {path.name for path in own.studies.parent.iterdir()} == outside


def test_no_label_can_be_called_as_an_option_of_a_task(own: Server) -> None:
    for name, task in own.info()["models"].items():
        assert task["config"]
        assert [option for option in task["config"] if refusal(option) is None] == [], name
    assert refusal("liver") is None


def test_the_data_set_is_sent_with_the_names_of_its_labels(own: Server, tmp_path: Path) -> None:
    assert put_label(own, "case2", 9, tmp_path).status_code == 200
    with zipfile.ZipFile(io.BytesIO(get(own, "dataset").content)) as archive:
        content = json.loads(archive.read("metadata.json"))["objects"]
        assert read_nifti(archive.read("label/case2.nii.gz")).dataobj[0, 0, 0] == 9
        assert "image/case2.nii.gz" in archive.namelist()
    assert content["case2"]["labels"]["final"]["info"]["label_info"] == named(9)["label_info"]
