"""One click on a real CT and on a real MR gives a mask there; run with ``-s`` to see the Dice of each structure.

The images are not part of the project: CAUSAL_SAM_DATA names their folder, else ``../shared/data`` is looked for.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import Predictor
from causal_sam.sam import load_model
from causal_sam.simulation.annotator import deepest_point

pytestmark = pytest.mark.integration

DATA = Path(os.environ.get("CAUSAL_SAM_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
CASES = ("abdomen/ct01", "abdomen/mr01")
STRUCTURES = {"liver": "liver", "spleen": "spleen", "kidney": "kidney_right"}


@pytest.fixture(scope="module")
def predictor():
    return Predictor(load_model("compact", device="cpu"), prefetch_slices=0)


def read_case(case: str) -> tuple[Volume, Volume, dict[str, int]]:
    folder = DATA / case
    if not folder.is_dir():
        pytest.skip(f"the real images are not there: {folder}")
    entry = next(c for c in json.loads((DATA / "cases.json").read_text()) if Path(c["image"]).parent == Path(case))
    labels = {name: int(value) for value, name in entry["labels"].items()}
    return read_volume(DATA / entry["image"]), read_volume(DATA / entry["label"]), labels


def middle_click(predictor: Predictor, truth: np.ndarray) -> tuple[int, int, int]:
    """The deepest point of a structure in its largest slice, as a voxel."""
    axis, frame = predictor.slices.axis, predictor.slices.frame
    others = tuple(a for a in range(3) if a != axis)
    index = int(truth.sum(axis=others).argmax())
    return frame.to_voxel(index, *deepest_point(frame.extract(truth, index)))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("case", CASES)
def test_one_click_gives_a_mask_there(predictor, case, structure):
    image, label, labels = read_case(case)
    predictor = predictor.for_volume(image)
    value = next(v for name, v in labels.items() if STRUCTURES[structure] in (name, "_".join(name.split()[::-1])))
    truth = label.array == value
    click = middle_click(predictor, truth)
    prediction = predictor.predict(foreground=[click])
    axis = prediction.axis
    here, there = np.take(prediction.mask, click[axis], axis), np.take(truth, click[axis], axis)
    overlap = dice(here, there)
    print(f"\n{case} {structure}: click {click}, Dice {overlap:.3f}, predicted IoU {prediction.predicted_iou:.3f}")
    assert prediction.mask[click]
    assert here.sum() == prediction.mask.sum()
    assert here.mean() < 0.5
    assert overlap > 0.3


@pytest.mark.parametrize("case", CASES)
def test_three_orientations_of_a_real_image_give_the_same_mask(predictor, case):
    image, label, labels = read_case(case)
    value = next(v for name, v in labels.items() if "liver" in name)
    reference = None
    for codes in ("RAS", "LPS", "SLA"):
        transform = ornt_transform(nibabel.io_orientation(image.affine), axcodes2ornt(codes))
        affine = image.affine @ nibabel.orientations.inv_ornt_aff(transform, image.shape)
        turned = Volume(nibabel.apply_orientation(image.array, transform), affine, image.modality)
        truth = nibabel.apply_orientation(label.array == value, transform)
        own = predictor.for_volume(turned, "axial")
        if reference is None:
            click = middle_click(own, truth)
            where = affine @ (*click, 1)
        click = tuple(round(float(n)) for n in (np.linalg.inv(affine) @ where)[:3])
        mask = own.predict(foreground=[click]).mask
        back = ornt_transform(axcodes2ornt(codes), axcodes2ornt("RAS"))
        mask = nibabel.apply_orientation(mask, back)
        if reference is None:
            reference = mask
        assert mask.any()
        assert np.array_equal(mask, reference)
