"""Generated images are reproducible, in range, and worth training on."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from causal_sam.phantom.anatomy import AnatomySampler
from causal_sam.phantom.samples import MIN_AREA, samples, scans


def test_same_seed_same_samples_other_seed_others():
    first, again, other = (list(islice(samples(64, 2, seed), 3)) for seed in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.masks, b.masks)
    assert not np.array_equal(first[0].image, other[0].image)


def test_images_are_normalised_and_structures_are_there():
    smallest = MIN_AREA * (64 / 128) ** 2
    for sample in islice(samples(64, 3, 0), 20):
        assert sample.image.shape == (3, 64, 64)
        assert sample.image.dtype == np.float32
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        assert sample.masks.shape == (3, 64, 64)
        assert set(np.unique(sample.masks)) <= {0, 1}
        assert (sample.masks.sum((1, 2)) >= smallest).all()


@pytest.mark.parametrize("kind", ["body", "head", "partition", "scatter"])
def test_anatomies_have_several_labels_and_lesions_know_their_organ(kind):
    sampler = AnatomySampler(64, np.random.default_rng(0))
    with_parent = 0
    for _ in range(10):
        anatomy = getattr(sampler, kind)()
        assert anatomy.labels.shape == (3, 64, 64)
        for label, parent in enumerate(anatomy.parents):
            if parent:
                with_parent += 1
                assert label in anatomy.with_descendants(int(parent))
                assert int(parent) not in anatomy.with_descendants(label)
    assert with_parent > 0
    assert anatomy.labels.max() >= 2


def test_slices_differ_but_belong_together():
    sampler = AnatomySampler(96, np.random.default_rng(3))
    for _ in range(5):
        before, here, after = sampler.body().labels
        assert not np.array_equal(before, after)
        assert (before == here).mean() > 0.7


def test_structures_go_on_or_end_on_the_neighbouring_slice():
    drawn = list(islice(samples(96, 2, 11), 60))
    pairs = [(m, n) for s in drawn for m, n in zip(s.masks, s.neighbours, strict=True)]
    overlap = [2 * (m & n).sum() / (m.sum() + n.sum()) for m, n in pairs if n.any()]
    assert np.median(overlap) > 0.7
    assert any(not n.any() for _, n in pairs)  # not there yet
    ended = [s.ended for s in drawn if s.ended.any()]
    assert 5 <= len(ended) <= 55
    for sample in drawn:
        assert sample.neighbours.shape == sample.masks.shape
        assert sample.ended.shape == sample.image.shape[1:]
        assert set(np.unique(sample.ended)) <= {0, 1}


def test_where_a_structure_ends_another_region_begins():
    for scan in islice(scans(96, 2, 12), 10):
        assert scan.regions.shape == scan.image.shape[1:]
        for mask in scan.masks:
            ends = np.diff(mask.astype(int), axis=1) != 0
            assert ends.any()
            assert (np.diff(scan.regions.astype(int), axis=1)[ends] != 0).all()
    for scan, sample in islice(zip(scans(96, 2, 13), samples(96, 2, 13), strict=True), 5):
        assert sample.regions.shape == (96, 96)
        assert set(np.unique(sample.regions)) <= {0, *np.unique(scan.regions)}


def test_tapering_shapes_have_other_sizes_on_each_slice():
    sampler = AnatomySampler(96, np.random.default_rng(0))
    y, x = sampler.warped_grid(0, 3)
    areas = np.array([sampler._superellipse(y, x, 0, 0, 0.5, 0.4, 0, 2, ends=True).sum((1, 2)) for _ in range(40)])
    assert (areas == 0).any()
    assert (areas > 0).all(axis=1).any()
    assert (areas[:, 0] != areas[:, 2]).any()
    same = sampler._superellipse(y, x, 0, 0, 0.5, 0.4, 0, 2).sum((1, 2))
    assert (areas <= same.max()).all()
