"""Teaching label names: what a lesson holds, what is learnt from it, and that nothing else of the model changes."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

from causal_sam.imaging import Volume
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.label_prompt import LabelPrompt
from causal_sam.training.label_prompts import LabelTeacher, lessons_of

SIZE = 64
NAMES = ("left block", "right block")


@pytest.fixture(scope="module")
def model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


@pytest.fixture
def case() -> tuple[Volume, dict[str, np.ndarray]]:
    """Two equal blocks: only their place tells them apart."""
    structures = {name: np.zeros((32, 24, 3), bool) for name in NAMES}
    structures["left block"][20:28, 8:18] = True
    structures["right block"][4:12, 8:18] = True
    array = np.random.default_rng(0).normal(0, 5, (32, 24, 3)).astype(np.float32)
    array[structures["left block"] | structures["right block"]] += 100
    return Volume(array, np.diag([-3.0, -3.0, 6.0, 1.0])), structures


def vectors() -> torch.Tensor:
    return torch.eye(2, 8)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SRP", "AIL"])
def test_lessons_are_the_same_in_every_voxel_order(case, codes: str) -> None:
    volume, structures = case
    wanted = lessons_of(volume, structures, NAMES, SIZE, "axial")

    def turned(array: np.ndarray) -> nibabel.Nifti1Image:
        image = nibabel.Nifti1Image(array, volume.affine)
        target = nibabel.orientations.axcodes2ornt(codes)
        return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(volume.affine), target))

    image = turned(volume.array)
    masks = {name: np.asarray(turned(mask.astype(np.uint8)).dataobj) > 0 for name, mask in structures.items()}
    found = lessons_of(Volume(np.asarray(image.dataobj), image.affine), masks, NAMES, SIZE, "axial")
    axis = codes.index("S") if "S" in codes else codes.index("I")
    for one, other in zip(wanted, found if codes[axis] == "S" else found[::-1], strict=True):
        np.testing.assert_array_equal(one.label_map, other.label_map)
        np.testing.assert_allclose(one.image, other.image, atol=1e-6)


def test_lessons_hold_what_the_model_sees(case) -> None:
    volume, structures = case
    lessons = lessons_of(volume, {"left block": structures["left block"]}, NAMES, SIZE)
    assert len(lessons) == 3
    for lesson in lessons:
        assert lesson.image.shape == (3, SIZE, SIZE)
        assert lesson.label_map.shape == (1, SIZE, SIZE)
        assert lesson.known.tolist() == [True, False]
        assert not lesson.image[:, 48:].any()  # 24 of 32 voxels: padded below
        assert set(np.unique(lesson.label_map)) == {0, 1}
        # The block is bright in the image where the label map has it.
        assert lesson.image[1][lesson.label_map[0] == 1].mean() > 0.8
    assert int((lessons[0].label_map == 1).sum()) == 8 * 10 * 4


def test_names_are_learnt_and_the_model_stays_as_it_is(model: CausalSam, case) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    prompt = LabelPrompt(8, 128)
    teacher = LabelTeacher(model, prompt, vectors(), seed=0)
    lessons = lessons_of(*case, NAMES, SIZE)
    losses = [teacher.step(lessons) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.inference_mode():
        embedding = model.encode(torch.from_numpy(lessons[1].image)[None])
        position = model.sam.prompt_encoder.get_dense_pe()
        _, drafts = prompt.eval()(embedding, position, vectors(), model.mask_size)
    size = model.mask_size
    left, right = (drafts[0, n].sigmoid() for n in range(2))
    # The patient's left is on the right of the picture.
    assert left[:, size // 2 :].mean() > left[:, : size // 2].mean()
    assert right[:, : size // 2].mean() > right[:, size // 2 :].mean()


def test_labels_that_a_case_does_not_know_teach_nothing(model: CausalSam, case) -> None:
    volume, structures = case
    lessons = lessons_of(volume, {"left block": structures["left block"]}, NAMES, SIZE)
    torch.manual_seed(0)
    prompt = LabelPrompt(8, 128)
    teacher = LabelTeacher(model, prompt, vectors(), seed=0)
    images = torch.from_numpy(np.stack([lesson.image for lesson in lessons]))
    maps = torch.from_numpy(np.stack([lesson.label_map for lesson in lessons]))
    known = torch.from_numpy(np.stack([lesson.known for lesson in lessons]))
    unknown_too = maps.clone()
    unknown_too[maps == 0] = 2
    first = teacher.loss(images, maps, known)
    teacher = LabelTeacher(model, prompt, vectors(), seed=0)
    torch.testing.assert_close(teacher.loss(images, unknown_too, known), first)
