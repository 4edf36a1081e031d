"""`causal-sam correct` on a small image: what is written, what is said, and when nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.cli.correct import put_back
from causal_sam.cli.options import name_values
from causal_sam.errors import InputError
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, FilmPart
from causal_sam.sam.film import Film, film_channels
from causal_sam.text import load_text_encoder

SHAPE = (40, 36, 8)
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
VOXEL_ML = 0.02
LIVER, SPLEEN, NAMELESS = 3, 9, 300


def box(*sides: slice) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[sides] = True
    return mask


ORGAN = box(slice(8, 24), slice(8, 28), slice(2, 6))
ISLAND = box(slice(33, 36), slice(30, 33), slice(6, 7))
HOLE = box(slice(14, 17), slice(15, 18), slice(3, 5))
BESIDE = box(slice(26, 30), slice(8, 28), slice(2, 6))
FAR = box(slice(1, 4), slice(1, 4), slice(0, 8))
MAP = LIVER * (ORGAN & ~HOLE | ISLAND) + SPLEEN * BESIDE + NAMELESS * FAR
NAMED = ("--label", f"{LIVER}=liver", "--label", f"{SPLEEN}=spleen")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that modulates nothing yet."""
    model, text = load_model("compact", device="cpu"), load_text_encoder()
    path = tmp_path_factory.mktemp("bundle") / "bundle.safetensors"
    untrained = Film(text.dimension, film_channels(model))
    AdapterBundle(film=FilmPart.from_training(untrained, model, text.fingerprint)).write(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    array = np.where(ORGAN, 120, 40) + np.random.default_rng(0).normal(0, 4, SHAPE)
    return saved(tmp_path / "image.nii.gz", array.astype(np.int16))


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return saved(tmp_path / "mask.nii.gz", MAP.astype(np.uint16))


def saved(path: Path, array: NDArray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return path


def voxels(path: Path) -> NDArray:
    return np.asarray(nibabel.load(path).dataobj)


@pytest.fixture
def run(image: Path, bundle: Path):
    """Run the command on the image; keyword ``code`` is the expected exit code."""

    def correct(mask: Path, note: str, *options: object, code: int = 0) -> str:
        arguments = ["correct", image, mask, "--note", note, "--adapter-bundle", bundle, *options]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == code, f"{result.output}{result.exception!r}"
        return result.output

    return correct


def report_of(said: str) -> dict:
    return json.loads(said.splitlines()[-1])


def test_a_stray_part_goes_and_all_else_stays(run, mask, image, tmp_path):
    output = tmp_path / "out.nii.gz"
    report = report_of(run(mask, "remove the stray part of the liver", *NAMED, "-o", output, "--json"))
    expected = MAP.copy()
    expected[ISLAND] = 0
    np.testing.assert_array_equal(voxels(output), expected)
    np.testing.assert_array_equal(nibabel.load(output).affine, nibabel.load(image).affine)
    (act,) = report["effects"]
    assert (act["sentence"], act["objection"]) == ("remove the stray part of the liver", None)
    assert act["lost_ml"] == pytest.approx(ISLAND.sum() * VOXEL_ML)
    assert act["gained_ml"] == 0
    assert report["interpreter"] == "embedded"
    assert report["output"] == str(output)
    assert 0 < report["seconds"]["correct"] <= report["seconds"]["total"]


def test_a_mask_of_one_value_needs_its_name_alone(run, tmp_path):
    mask = saved(tmp_path / "binary.nii.gz", (255 * (ORGAN | ISLAND)).astype(np.uint8))
    run(mask, "delete the island", "--label", "liver", "-o", tmp_path / "out.nrrd")
    run(mask, "delete the island", "--label", "liver", "-o", mask)  # the mask itself, if it is named
    np.testing.assert_array_equal(voxels(mask), 255 * ORGAN)


def test_what_the_guard_refuses_is_said_and_the_rest_is_done(run, mask, tmp_path):
    output = tmp_path / "out.nii.gz"
    said = run(mask, "Fill the holes in the liver. Fill the holes in the spleen.", *NAMED, "-o", output)
    first, effect, second, refused, reader, last = filter(None, said.splitlines())
    assert (first, second) == ("fill the holes of the liver", "fill the holes of the spleen")
    assert effect.startswith(f"  liver: +{HOLE.sum() * VOXEL_ML:.2f} ml")
    assert refused.startswith("  not done: ")
    assert reader.startswith("read by embedded; ")
    assert last == f"written to {output}"
    expected = MAP.copy()
    expected[HOLE] = LIVER
    np.testing.assert_array_equal(voxels(output), expected)


def test_nothing_is_written_if_every_act_was_refused(run, mask, tmp_path):
    output = tmp_path / "out.nii.gz"
    report = report_of(run(mask, "Fill the holes in the spleen", *NAMED, "-o", output, "--json", code=2))
    assert "nothing to change in spleen" in report["effects"][0]["objection"]
    assert report["output"] is None
    assert not output.exists()


def test_a_question_writes_nothing_and_loads_no_model(run, mask, tmp_path):
    output = tmp_path / "out.nii.gz"
    nowhere = ("--checkpoint", "nowhere.pth")
    assert run(mask, "too big", *NAMED, "-o", output, *nowhere, code=2).startswith("question: Which label is meant?")
    report = report_of(run(mask, "too big", *NAMED, "-o", output, "--json", *nowhere, code=2))
    assert report["plan"]["question"].startswith("Which label is meant?")
    assert not output.exists()


def test_the_current_label_and_its_side_are_used(run, tmp_path):
    part = ORGAN.copy()
    part[8:13] = False
    mask = saved(tmp_path / "map.nii.gz", (part + 2 * BESIDE).astype(np.uint8))
    options = ("--labels", "tumor,edema", "--current", "tumor", "--side", "tumor=right", "--preview", "--json")
    report = report_of(run(mask, "missed laterally", *options))
    assert report["effects"][0]["sentence"] == "expand the tumor on its right side"


def test_a_preview_says_what_would_change_and_writes_nothing(run, mask, tmp_path):
    before = sorted(tmp_path.iterdir())
    said = run(mask, "remove the stray part of the liver", *NAMED, "--preview")
    assert f"  liver: \N{MINUS SIGN}{ISLAND.sum() * VOXEL_ML:.2f} ml, mostly " in said
    assert said.endswith("nothing was written\n")
    assert sorted(tmp_path.iterdir()) == before


def test_the_model_decides_what_has_no_exact_operator(run, tmp_path):
    part = ORGAN.copy()
    part[8:13] = False
    mask = saved(tmp_path / "part.nii.gz", part.astype(np.uint8))
    report = report_of(run(mask, "the right part is missing", "--label", "liver", "-o", tmp_path / "o.nii", "--json"))
    found = voxels(tmp_path / "o.nii") > 0
    assert not (part & ~found).any()
    assert (found & ORGAN).sum() > part.sum()
    towards = report["effects"][0]["gained_towards_ml"]
    assert max(towards, key=towards.__getitem__) == "right"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-o", "{folder}/image.nii.gz", *NAMED], "would replace its image"),
        ([*NAMED], "Say with -o which file to write"),
        (["-o", "{out}"], "Say what the values of the mask are (3, 9, 300)"),
        (["-o", "{out}", "--label", "liver"], "The mask holds 3, 9, 300: say which is liver, as in --label 3=liver."),
        (["-o", "{out}", *NAMED, "--side", "spleen"], "--side is given as in spleen=left"),
        (["-o", "{out}", *NAMED, "--current", "colon"], "There is no label 'colon'"),
        (["-o", "{out}", "--adapter-bundle", "nowhere", *NAMED], "There is no adapter bundle nowhere"),
        (["-o", "{folder}/out.png", *NAMED], "A mask is written as"),
        (["-o", "{out}", "--plane", "oblique", *NAMED], "oblique"),
    ],
)
def test_mistakes_are_said_in_a_sentence(run, mask, tmp_path, options, sentence):
    places = {"folder": tmp_path, "out": tmp_path / "out.nii.gz"}
    said = run(mask, "remove the stray part of the liver", *(each.format(**places) for each in options), code=2)
    assert sentence in " ".join(said.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.nii.gz", "mask.nii.gz"]


def test_a_mask_on_another_grid_is_refused(run, tmp_path):
    mask = tmp_path / "thick.nii.gz"
    nibabel.save(nibabel.Nifti1Image(MAP.astype(np.uint16), AFFINE @ np.diag([1, 1, 2, 1])), mask)
    said = run(mask, "too big", *NAMED, "-o", tmp_path / "out.nii.gz", code=2)
    assert "is not on the grid of" in " ".join(said.split())


def test_a_flipped_part_of_the_grid_is_corrected_on_the_grid_of_the_image(run, image, tmp_path):
    part = nibabel.Nifti1Image((MAP + 0.004).astype(np.float32), AFFINE).slicer[:35, :, :7]
    nibabel.save(part.as_reoriented(np.array([[1, -1], [0, 1], [2, -1]])), tmp_path / "part.nii")
    run(tmp_path / "part.nii", "remove the stray part of the liver", *NAMED, "-o", tmp_path / "out.nii")
    expected = MAP.copy()
    expected[35:], expected[:, :, 7:], expected[ISLAND] = 0, 0, 0
    np.testing.assert_array_equal(voxels(tmp_path / "out.nii"), expected)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "out.nii").affine, nibabel.load(image).affine)


@pytest.mark.parametrize(
    ("label", "labels", "values", "sentence"),
    [
        (["1=liver"], "liver", [1], "either by --label"),
        (["1=liver", "2=liver"], None, [1, 2], "given twice"),
        (["1=liver", "1=spleen"], None, [1], "given twice"),
        (["0=liver"], None, [1], "a whole number from 1, not '0'"),
        (["liver", "spleen"], None, [1, 2], "--label is given as in 1=liver"),
        (["liver"], None, [], "The mask is empty"),
    ],
)
def test_values_need_clear_names(label, labels, values, sentence):
    with pytest.raises(InputError, match=sentence):
        name_values(label, labels, values)


def test_names_in_the_order_of_the_values():
    assert name_values([], "liver, , spleen", [1, 2, 3]) == {"liver": 1, "spleen": 3}


def test_a_label_that_grows_takes_from_others_and_what_is_lost_is_background():
    values = np.array([[[1, 1, 2, 2, 7, 0, 3]]])
    masks = {"a": np.isin(np.arange(7), [1, 2, 4])[None, None], "b": np.isin(np.arange(7), [3, 5])[None, None]}
    after, taken = put_back(values, {"a": 1, "b": 2, "c": 3}, masks)
    assert after.tolist() == [[[0, 1, 1, 2, 1, 2, 3]]]
    assert taken == {"a": {"b": 1, "value 7": 1}}
    assert values.tolist() == [[[1, 1, 2, 2, 7, 0, 3]]]
