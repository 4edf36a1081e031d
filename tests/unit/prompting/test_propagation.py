"""Following a structure through a volume: order, ends, blends, and how far a correction reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompting_volumes import make_volume, reorient

from causal_sam.errors import InputError
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import Predictor
from causal_sam.prompting.propagation import End, Followed, Propagator
from causal_sam.sam import CausalSam, load_model
from causal_sam.sam.compact import build_compact

SHAPE = (30, 24, 12)
FRAME = SliceFrame(np.diag([1.0, 1.0, 3.0, 1.0]), SHAPE, 2)


def disk(radius: float, row: float = 12, column: float = 15) -> np.ndarray:
    rows, columns = np.ogrid[: FRAME.shape_rc[0], : FRAME.shape_rc[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


class Scene:
    """Answers what is drawn on a slice, if the neighbour's mask touches it; keeps what it was asked."""

    def __init__(self, drawn: dict[int, np.ndarray], predicted_iou: float = 0.9) -> None:
        self.drawn, self.predicted_iou = drawn, predicted_iou
        self.asked: list[int] = []

    def __call__(self, index: int, mask: np.ndarray) -> Followed:
        self.asked.append(index)
        here = self.drawn.get(index, np.zeros_like(mask)) if mask.any() else np.zeros_like(mask)
        return Followed((slice(None), slice(None)), np.where(here, 5.0, -5.0).astype(np.float32), self.predicted_iou)

    def propagate(self, anchors, **options):
        self.asked.clear()
        return Propagator(FRAME, self).propagate(anchors, **options)


def areas(mask: np.ndarray) -> list[int]:
    return mask.sum(axis=(0, 1)).tolist()


def slices_of(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask.any(axis=(0, 1))).tolist()


def test_both_directions_until_the_structure_ends():
    scene = Scene({index: disk(6) for index in range(3, 9)})
    result = scene.propagate({5: disk(6)})
    assert slices_of(result.mask) == [3, 4, 5, 6, 7, 8]
    assert scene.asked == [4, 3, 2, 6, 7, 8, 9]
    assert set(result.followed) == {3, 4, 6, 7, 8}
    assert result.ends == {"before": End.EMPTY, "after": End.EMPTY}
    assert np.array_equal(FRAME.extract(result.mask, 5), disk(6))


def test_the_ends_of_the_volume():
    result = Scene({index: disk(6) for index in range(SHAPE[2])}).propagate({0: disk(6)})
    assert slices_of(result.mask) == list(range(SHAPE[2]))
    assert result.ends == {"after": End.BORDER}


@pytest.mark.parametrize(
    ("next_slice", "iou", "reason"),
    [
        (disk(11), 0.9, End.GREW),
        (disk(3, 20, 25), 0.9, End.JUMPED),
        (disk(5), 0.1, End.UNSURE),
        (np.zeros(FRAME.shape_rc, bool), 0.9, End.EMPTY),
    ],
)
def test_the_trail_is_given_up_where_the_next_slice_cannot_be_the_same_structure(next_slice, iou, reason):
    scene = Scene({index: next_slice for index in range(6, 12)}, iou)
    result = scene.propagate({5: disk(5)})
    assert slices_of(result.mask) == [5]
    assert scene.asked == [4, 6]
    assert result.ends["after"] is reason


def test_limits_hold():
    scene = Scene({index: disk(6) for index in range(SHAPE[2])})
    result = scene.propagate({5: disk(6)}, limits=(4, 7))
    assert slices_of(result.mask) == [4, 5, 6, 7]
    assert result.ends == {"before": End.BORDER, "after": End.BORDER}


def test_between_two_anchors_both_answers_are_blended_by_distance():
    near_low, near_high = disk(4, 12, 11), disk(4, 12, 17)

    def follow(index, mask):
        # From below the disk on the left is seen, from above the one on the right.
        logits = np.where(near_low if (mask & near_low).sum() > (mask & near_high).sum() else near_high, 5.0, -5.0)
        return Followed((slice(None), slice(None)), logits.astype(np.float32), 0.8)

    result = Propagator(FRAME, follow).propagate({2: near_low, 8: near_high}, limits=(2, 8))
    for index in (3, 4):
        assert np.array_equal(FRAME.extract(result.mask, index), near_low)
    for index in (6, 7):
        assert np.array_equal(FRAME.extract(result.mask, index), near_high)
    assert np.array_equal(FRAME.extract(result.mask, 5), near_low & near_high)  # as near to one as to the other
    assert result.followed == {index: pytest.approx(0.8) for index in (3, 4, 5, 6, 7)}


def test_lost_from_one_side_the_other_decides_and_the_end_of_a_part_is_believed():
    # The structure is there from 2 to 4 and from 7 to 9: two horns of one organ, joined elsewhere.
    scene = Scene({index: disk(6) for index in (2, 3, 4, 7, 8, 9)})
    result = scene.propagate({2: disk(6), 9: disk(6)}, limits=(2, 9))
    assert slices_of(result.mask) == [2, 3, 4, 7, 8, 9]
    # From below it would jump at 5; from above it is followed down to 3.
    scene = Scene({3: disk(6), 4: disk(6), 5: disk(3, 20, 26), 6: disk(6), 7: disk(6), 8: disk(6)})
    result = scene.propagate({2: disk(6), 9: disk(6)}, limits=(2, 9))
    assert slices_of(result.mask) == [2, 3, 4, 6, 7, 8, 9]


def test_an_empty_anchor_is_a_wall():
    scene = Scene({index: disk(6) for index in range(SHAPE[2])})
    result = scene.propagate({4: disk(6), 7: np.zeros(FRAME.shape_rc, bool)})
    assert slices_of(result.mask) == [0, 1, 2, 3, 4, 5, 6]
    assert 8 not in scene.asked


def test_a_correction_reaches_to_the_next_anchor_or_until_nothing_changes():
    scene = Scene({index: disk(6) for index in range(SHAPE[2])})
    first = scene.propagate({2: disk(6), 9: disk(6)})
    smaller = disk(5)
    scene.drawn[6] = smaller
    corrected = scene.propagate({2: disk(6), 6: smaller, 9: disk(6)}, before=first.mask, changed={6})
    assert set(scene.asked) == {3, 4, 5, 7, 8}
    assert np.array_equal(FRAME.extract(corrected.mask, 6), smaller)
    assert areas(corrected.mask)[10:] == areas(first.mask)[10:]
    # Beyond the last anchor it is followed until two slices come out as they were.
    again = scene.propagate({2: disk(6), 9: disk(6), 6: smaller}, before=corrected.mask, changed={2})
    assert scene.asked[:2] == [1, 0]
    assert set(scene.asked) == {0, 1, 3, 4, 5}
    assert again.ends == {"before": End.SAME}
    assert np.array_equal(again.mask, corrected.mask)


def test_a_correction_that_ends_the_structure_clears_what_lay_beyond():
    scene = Scene({index: disk(6) for index in range(SHAPE[2])})
    first = scene.propagate({5: disk(6)})
    scene.drawn = {index: disk(6) for index in range(8)}
    ended = scene.propagate({5: disk(6), 7: disk(5)}, before=first.mask, changed={7})
    assert slices_of(ended.mask) == list(range(8))


def test_an_anchor_taken_back_is_followed_over():
    scene = Scene({index: disk(6) for index in range(SHAPE[2])})
    both = scene.propagate({3: disk(6), 6: disk(2)}, limits=(3, 8))
    back = scene.propagate({3: disk(6)}, before=both.mask, changed={6}, limits=(3, 8))
    assert areas(back.mask)[3:9] == [disk(6).sum()] * 6


def test_islands_that_appear_on_the_way_are_dropped():
    island = disk(3, 4, 4)
    scene = Scene({index: disk(6, 14, 17) | island for index in range(4, 8)})
    result = scene.propagate({5: disk(6, 14, 17)})
    for index in (4, 6, 7):
        assert np.array_equal(FRAME.extract(result.mask, index), disk(6, 14, 17))


def test_what_check_raises_ends_the_work():
    class StopError(Exception):
        pass

    def check(done: int) -> None:
        if done == 3:
            raise StopError

    scene = Scene({index: disk(6) for index in range(SHAPE[2])})
    with pytest.raises(StopError):
        Propagator(FRAME, scene, check).propagate({5: disk(6)})
    assert len(scene.asked) == 3


def test_nothing_to_follow_is_said():
    scene = Scene({})
    for anchors in ({}, {3: np.zeros(FRAME.shape_rc, bool)}):
        with pytest.raises(InputError, match="nothing to follow"):
            scene.propagate(anchors)
    with pytest.raises(InputError, match="slices 0 to 11"):
        scene.propagate({12: disk(3)})
    with pytest.raises(InputError, match="shape"):
        scene.propagate({3: disk(3).T})


def ellipsoid(shape=(64, 56, 20), spacing=(1.5, 1.5, 4.0)) -> tuple[Volume, np.ndarray]:
    """A bright ellipsoid in a darker body."""
    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    truth = ((i - 36) / 15) ** 2 + ((j - 26) / 12) ** 2 + ((k - 9) / 6.5) ** 2 < 1
    body = ((i - 32) / 30) ** 2 + ((j - 28) / 26) ** 2 < 1
    array = np.where(body, 20, -1000) + 110 * truth + rng.normal(0, 12, shape) * body
    return Volume(array.astype(np.int16), np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), "CT"), truth


@pytest.fixture(scope="module")
def compact() -> Predictor:
    return Predictor(load_model("compact", device="cpu"), prefetch_slices=0)


def test_one_click_gives_the_structure_in_3d(compact):
    volume, truth = ellipsoid()
    predictor = compact.for_volume(volume)
    anchors = {9: predictor.predict([(36, 26, 9)]).slices[9].mask}
    mask = predictor.propagate(anchors).mask
    assert dice(mask, truth) > 0.85
    # Another plane, the same structure.
    sagittal = compact.for_volume(volume, "sagittal")
    across = sagittal.predict([(36, 26, 9)])
    side = sagittal.propagate({36: across.slices[36].mask}).mask
    assert dice(side, truth) > 0.7


def test_the_same_mask_in_every_orientation(compact):
    volume, _ = ellipsoid()
    reference = None
    for ornt in ([[0, 1], [1, 1], [2, 1]], [[2, -1], [0, 1], [1, -1]], [[1, 1], [2, 1], [0, -1]]):
        turned = reorient(volume, np.array(ornt, float))
        predictor = compact.for_volume(turned, "axial")
        back = np.linalg.inv(turned.affine) @ volume.affine
        click = tuple(round(float(n)) for n in (back @ (36, 26, 9, 1))[:3])
        prediction = predictor.predict([click])
        mask = predictor.propagate({i: answer.mask for i, answer in prediction.slices.items()}).mask
        # Voxel by voxel where the same place is in the first one.
        where = np.argwhere(mask)
        forth = np.linalg.inv(back)
        voxels = np.rint(where @ forth[:3, :3].T + forth[:3, 3]).astype(int)
        here = np.zeros(volume.shape, bool)
        here[tuple(voxels.T)] = True
        assert here.sum() == mask.sum() > 0
        if reference is None:
            reference = here
        assert np.array_equal(here, reference)


def test_a_model_that_needs_a_box_gets_one(monkeypatch):
    torch.manual_seed(0)
    model = CausalSam(build_compact(), "vit_b").eval()
    assert not model.spec.mask_alone
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *args, **prompts: asked.append(prompts) or decode(*args, **prompts))
    volume = make_volume()
    predictor = Predictor(model, prefetch_slices=0, zoom=False)
    predictor.set_volume(volume)
    mask = np.zeros(predictor.slices.frame.shape_rc, bool)
    mask[2:7, 3:9] = True
    predictor.propagate({3: mask}, limits=(3, 4))
    (prompts,) = asked
    assert prompts["points"] is None
    assert prompts["mask_logits"] is not None
    x0, y0, x1, y1 = prompts["boxes"][0].tolist()
    scale = model.image_size / 12
    assert (x0, y0, x1, y1) == pytest.approx((3 * scale, 2 * scale, 9 * scale - 1, 7 * scale - 1), abs=1)
