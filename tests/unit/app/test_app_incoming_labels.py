"""Labels on their way into a data store: put on the grid of their image and named, or refused in a sentence."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from unit.imaging.grids import ORIENTATIONS, SHAPE, make_affine, reorient, to_itk

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.label_names import named_values
from serving.data.incoming_labels import IncomingLabel, check_label

TILT = np.linalg.qr(np.array([[9.0, 1, 2], [-1, 9, 1], [-2, 0, 9]]))[0]
IMAGE = Volume(np.zeros(SHAPE, np.int16), make_affine((0.7, 1.3, 4.1), TILT))
LABEL = np.random.default_rng(0).integers(0, 4, SHAPE, dtype=np.uint8)
EXTENSIONS = (".nii", ".nii.gz", ".nrrd", ".mha")


def check(path: Path, tag: str = "final", **info: Any) -> IncomingLabel:
    return check_label(path, IMAGE, info, tag)


def write(path: Path, label: Volume) -> Path:
    sitk.WriteImage(to_itk(label), str(path))
    return path


def write_segmentation(path: Path, layers: NDArray[np.uint8], segments: list[dict[str, Any]], affine: NDArray) -> Path:
    """Write what 3D Slicer saves as a segmentation.

    Args:
        path: ends in ``.seg.nrrd``.
        layers: (I, J, K), or (L, I, J, K) of segments that overlap.
        segments: for each of them what the header says.
        affine: voxel index -> RAS+ millimetre.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    directions = lps[:3, :3].T.tolist()
    header: dict[str, Any] = {
        "type": "unsigned char",
        "space": "left-posterior-superior",
        "space origin": lps[:3, 3],
        "space directions": np.array(([[np.nan] * 3] if layers.ndim == 4 else []) + directions),
        "kinds": (["list"] if layers.ndim == 4 else []) + ["domain"] * 3,
    }
    nrrd.write(str(path), layers, header)
    said = "".join(
        f"Segment{number}_{key}:={value}\n" for number, segment in enumerate(segments) for key, value in segment.items()
    )
    # pynrrd writes ASCII alone, Slicer UTF-8.
    fields, voxels = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(fields + b"\n" + said.encode() + b"\n" + voxels)
    return path


def part_of(whole: Volume, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Volume:
    """Cut a part out of a label map on its grid."""
    affine = whole.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return Volume(whole.array[tuple(map(slice, start, stop))], affine)


def test_every_order_of_the_axes_in_every_format(tmp_path: Path) -> None:
    for number, orientation in enumerate(ORIENTATIONS):
        extension = EXTENSIONS[number % len(EXTENSIONS)]
        path = write(tmp_path / f"{number}{extension}", reorient(Volume(LABEL, IMAGE.affine), orientation))
        found = check(path)
        np.testing.assert_array_equal(found.label_map, LABEL, err_msg=f"{orientation} {extension}")
        np.testing.assert_array_equal(found.image.affine, IMAGE.affine)


def test_every_type_of_numbers(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64):
        label = LABEL.astype(dtype)
        if label.dtype.kind == "f":
            label += np.random.default_rng(1).uniform(-0.004, 0.004, SHAPE).astype(dtype)
        path = write(tmp_path / f"{np.dtype(dtype)}.nii.gz", Volume(label, IMAGE.affine))
        np.testing.assert_array_equal(check(path).label_map, LABEL, err_msg=str(dtype))


def test_a_crop_of_slicer_is_pasted_into_place_with_the_names_in_its_header(tmp_path: Path) -> None:
    start, stop = (1, 0, 2), (4, 6, 5)
    part = part_of(Volume(LABEL, IMAGE.affine), start, stop)
    segments = [
        {"Name": "Läsion (肝臓)", "LabelValue": 3, "Layer": 0, "Extent": "0 2 0 5 0 2"},
        {"Name": "liver", "LabelValue": 1, "Layer": 0},
        {"Name": "spleen", "LabelValue": 2, "Layer": 0},
        {"Name": "never drawn", "LabelValue": 9, "Layer": 0},
    ]
    path = write_segmentation(tmp_path / "a.seg.nrrd", part.array, segments, part.affine)
    found = check(path)
    expected = np.zeros_like(LABEL)
    expected[tuple(map(slice, start, stop))] = part.array
    np.testing.assert_array_equal(found.label_map, expected)
    assert named_values(found.info) == [("liver", 1), ("spleen", 2), ("Läsion (肝臓)", 3), ("never drawn", 9)]
    # What the client says counts before the file.
    named = check(path, label_info=[{"name": "a", "idx": 1}, {"name": "b", "idx": 2}, {"name": "c", "idx": 3}])
    assert named_values(named.info) == [("a", 1), ("b", 2), ("c", 3)]


def test_names_in_the_file_are_names_that_a_label_can_have(tmp_path: Path) -> None:
    for name in ("plane", "result_1", "causal_sam_x"):
        path = write_segmentation(tmp_path / "a.seg.nrrd", LABEL, [{"Name": name, "LabelValue": 1}], IMAGE.affine)
        with pytest.raises(InputError, match="No label can be called"):
            check(path)


def test_layers_are_refused(tmp_path: Path) -> None:
    layers = np.stack([LABEL == 1, LABEL >= 1]).astype(np.uint8)
    segments = [{"Name": name, "LabelValue": 1, "Layer": layer} for layer, name in enumerate("ab")]
    path = write_segmentation(tmp_path / "two.seg.nrrd", layers, segments, IMAGE.affine)
    with pytest.raises(InputError, match=r"The label has 2 layers, as of segments that overlap"):
        check(path)


def test_raw_bytes_of_ohif(tmp_path: Path) -> None:
    path = tmp_path / "label.bin"
    path.write_bytes(LABEL.tobytes(order="F"))
    np.testing.assert_array_equal(check(path).label_map, LABEL)
    for content in (b"", LABEL.tobytes()[:-1], LABEL.astype(np.uint16).tobytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"one byte for each of the {LABEL.size} voxels"):
            check(path)


def test_what_is_no_label_of_the_image_is_refused_in_one_sentence(tmp_path: Path) -> None:
    good = write(tmp_path / "good.nii.gz", Volume(LABEL, IMAGE.affine)).read_bytes()
    shifted, larger, sheared = IMAGE.affine.copy(), IMAGE.affine.copy(), IMAGE.affine.copy()
    shifted[0, 3] += 0.5
    larger[:3, 0] *= 1.1
    sheared[:3, 1] += 0.2 * sheared[:3, 0]
    refused: dict[str, bytes | Volume] = {
        "five bytes.nii.gz": b"junk!",
        "empty.nii.gz": b"",
        "cut off.nii.gz": good[: len(good) // 2],
        "truncated.nii": gzip.decompress(good)[:400],
        "not compressed.nii.gz": gzip.decompress(good)[:200],
        "empty.nrrd": b"",
        "junk.nrrd": b"NRRD0004\ntype: uchar\n\n",
        "junk.mha": b"ObjectType = Image\n",
        "junk": b"anything",
        "junk.dcm": b"\0" * 128 + b"DICM",
        "negative.nii.gz": Volume(LABEL.astype(np.int16) - 1, IMAGE.affine),
        "huge.nii.gz": Volume(LABEL.astype(np.int32) * 70_000, IMAGE.affine),
        "between.nii.gz": Volume(LABEL * np.float32(0.5), IMAGE.affine),
        "nan.nii.gz": Volume(np.where(LABEL > 2, np.nan, LABEL).astype(np.float32), IMAGE.affine),
        "shifted.nii.gz": Volume(LABEL, shifted),
        "larger.nii.gz": Volume(LABEL, larger),
        "outside.nrrd": Volume(np.ones((9, 9, 9), np.uint8), IMAGE.affine),
        "foreign.nii.gz": Volume(np.ones((4, 4, 4), np.uint8), np.eye(4)),
        "nothing.nii.gz": Volume(np.zeros(SHAPE, np.uint8), IMAGE.affine),
    }
    for name, content in refused.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write(path, content)
        with pytest.raises(InputError) as caught:
            check(path)
        sentence = str(caught.value)
        assert sentence.endswith("."), name
        assert "\n" not in sentence, name
        assert str(tmp_path) not in sentence, name


def test_an_empty_label_is_refused_only_as_an_accepted_one(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.nii.gz", Volume(np.zeros(SHAPE, np.uint8), IMAGE.affine))
    assert not check(path, tag="original").label_map.any()
    with pytest.raises(InputError, match="no voxel"):
        check(path)


@pytest.mark.parametrize(
    ("info", "present", "named"),
    [
        # By value, not by position; names without a voxel come last.
        (
            {"label_info": [{"name": "a", "idx": 1}, {"name": "b", "idx": 2}, {"name": "c", "idx": 4}]},
            [2, 4],
            [("b", 2), ("c", 4), ("a", 1)],
        ),
        # Slicer has counted a segment that it did not export.
        ({"label_info": [{"name": "b", "idx": 2}, {"name": "c", "idx": 3}]}, [1, 2], [("b", 1), ("c", 2)]),
        # The server's own result, of a batch for example.
        ({"params": {"label_names": {"c": 5, "a": 1}}}, [5], [("c", 5), ("a", 1)]),
        # By position, with the background or without.
        ({"label_info": [{"name": "background"}, {"name": "a"}]}, [1], [("a", 1)]),
        ({"label_names": ["background", "a", "b"]}, [1, 2], [("a", 1), ("b", 2)]),
        ({"label_names": ["a", "b"]}, [1, 2], [("a", 1), ("b", 2)]),
        # Several segments have one name.
        ({"label_info": [{"name": "a", "idx": 1}, {"name": "a", "idx": 2}]}, [1, 2], [("a", 1), ("a", 2)]),
        # Nothing is guessed.
        ({}, [1, 2], []),
        ({"label_info": "liver"}, [1], []),
        ({"label_info": [None, 3, {"idx": 1}, {"name": None, "idx": 1}]}, [1], []),
        ({"label_info": [{"name": "a", "idx": 1}]}, [1, 9], [("a", 1)]),
        ({"label_info": [{"name": "a", "idx": "9" * 5000}, {"name": "b", "idx": -1}]}, [1], []),
    ],
)
def test_names_are_decided_once(tmp_path: Path, info: dict, present: list[int], named: list) -> None:
    label = np.random.default_rng(0).choice([0, *present], SHAPE).astype(np.uint8)
    found = check(write(tmp_path / "label.nii.gz", Volume(label, IMAGE.affine)), client_id="me", **info)
    assert [(entry["name"], entry["idx"]) for entry in found.info["label_info"]] == named
    assert found.info["client_id"] == "me"
    names = {value: name for name, value in named}
    expected = [(names.get(value, f"label {value}"), value) for value in present]
    assert [(segment.name, segment.value) for segment in found.segmented().segments] == expected
    # Saved, read and saved again, it says the same.
    again = check(found.write(tmp_path), **found.info)
    assert again.info == found.info
    np.testing.assert_array_equal(again.label_map, found.label_map)


def test_what_else_the_client_said_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "label.nii.gz", Volume((LABEL > 1).astype(np.uint8), IMAGE.affine))
    found = check(path, label_info=[{"name": " cyst ", "idx": 1, "color": [1, 2, 3]}, None], params={"frame": 2})
    assert found.info == {"label_info": [{"name": "cyst", "idx": 1, "color": [1, 2, 3]}], "params": {"frame": 2}}


def test_unfit_names_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "label.nii.gz", Volume((LABEL > 1).astype(np.uint8), IMAGE.affine))
    for names in ["\ud800"], ["x" * 5000], ["a\nb"], ["a", "b"]:
        with pytest.raises(InputError):
            check(path, label_info=[{"name": name, "idx": 1} for name in names])
