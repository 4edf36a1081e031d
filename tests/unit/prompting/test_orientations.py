"""The same anatomy in any of the 48 voxel orders gives the same model input and the same mask, to the bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation
from prompting_volumes import make_volume, reorient, reorient_voxel
from scipy.spatial.transform import Rotation

from causal_sam.prompting import EmbeddingCache, Predictor
from causal_sam.prompting.slices import VolumeSlices

ORIENTATIONS = [
    np.array(list(zip(order, flips, strict=True)), dtype=float)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
PLANES = ("auto", "axial", "coronal", "sagittal")


def test_there_are_48():
    assert len({tuple(map(tuple, ornt)) for ornt in ORIENTATIONS}) == 48


@pytest.mark.parametrize("plane", PLANES)
def test_all_orientations_give_the_same_input(plane):
    volume = make_volume()
    slices = VolumeSlices(volume, plane, 64)
    voxel = (3, 4, 2)
    expected = slices.image(voxel[slices.axis])
    assert len(torch.unique(expected)) > 100
    geometries = set()
    for ornt in ORIENTATIONS:
        turned = VolumeSlices(reorient(volume, ornt), plane, 64)
        index = reorient_voxel(voxel, volume.shape, ornt)[turned.axis]
        assert torch.equal(turned.image(index), expected)
        geometries.add((turned.axis, turned.geometry))
    # Equal voxels with different affines are different images: their cache keys must differ.
    assert len(geometries) == 48


def inverse(ornt):
    undone = np.empty_like(ornt)
    for axis, (new_axis, flip) in enumerate(ornt):
        undone[int(new_axis)] = axis, flip
    return undone


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would run the model for minutes
)
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    turn=st.floats(-25.0, 25.0),
    about=st.sampled_from([(1, 0, 0), (0, 1, 0), (1, 1, 1)]),
    ornt=st.sampled_from(ORIENTATIONS),
    plane=st.sampled_from(PLANES),
    data=st.data(),
)
def test_prediction_does_not_depend_on_the_orientation(model, shape, spacing, turn, about, ornt, plane, data):
    axis = np.asarray(about) / np.linalg.norm(about)
    volume = make_volume(shape, spacing, Rotation.from_rotvec(np.radians(turn) * axis).as_matrix())
    voxels = [tuple(data.draw(st.integers(0, size - 1)) for size in shape) for _ in range(2)]
    box = [bound for voxel_pair in zip(*voxels, strict=True) for bound in sorted(voxel_pair)]
    turned = reorient(volume, ornt)
    turned_voxels = [reorient_voxel(voxel, shape, ornt) for voxel in voxels]
    turned_box = [bound for voxel_pair in zip(*turned_voxels, strict=True) for bound in sorted(voxel_pair)]

    predictor = Predictor(model, EmbeddingCache(0), prefetch_slices=0)
    predictor.set_volume(volume, plane)
    expected = [predictor.predict([voxels[0]]), predictor.predict([voxels[0]], box=box)]
    predictor.set_volume(turned, plane)
    found = [predictor.predict([turned_voxels[0]]), predictor.predict([turned_voxels[0]], box=turned_box)]

    for here, there in zip(expected, found, strict=True):
        assert len(here.slices) == len(there.slices)
        assert here.predicted_iou == pytest.approx(there.predicted_iou, abs=1e-12)
        assert np.array_equal(apply_orientation(there.mask, inverse(ornt)), here.mask)
        index, turned_index = voxels[0][here.axis], turned_voxels[0][there.axis]
        assert np.array_equal(here.slices[index].logits, there.slices[turned_index].logits)
