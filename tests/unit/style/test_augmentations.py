"""Style augmentations change how an image looks, say so in its facts, and leave its anatomy where it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter

from causal_sam.errors import InputError, NotFoundError
from causal_sam.phantom.abdomen import LABELS
from causal_sam.phantom.studies import STYLES, render_study
from causal_sam.style.acquisition import Acquisition
from causal_sam.style.augmentations import (
    STYLE_AUGMENTATIONS,
    BiasField,
    ContrastPhase,
    Dose,
    FieldStrength,
    Gamma,
    Ghosts,
    Gibbs,
    InPlaneResolution,
    Kernel,
    Motion,
    OtherModality,
    Remap,
    SliceThickness,
    Streaks,
    augment_style,
)
from causal_sam.style.augmentations.curves import Curve, brightness_levels, noise_level
from causal_sam.style.slices import StyledSlices

FACTS = {
    "ct-portal-venous": {"kernel": "soft", "phase": "portal venous", "contrast_agent": True},
    "ct-low-dose": {"kernel": "sharp", "phase": "native", "contrast_agent": False},
    "mr-t1": {"sequence": "T1", "field_strength": 1.5},
    "mr-t2": {"sequence": "T2", "field_strength": 3.0},
}
SHARED = {"resolution", "thickness"}
CASES = [
    (study, kind)
    for study in STYLES
    for kind in STYLE_AUGMENTATIONS
    if not (modalities := STYLE_AUGMENTATIONS[kind].modalities) or STYLES[study].modality in modalities
]
SEEDS = range(3)


@pytest.fixture(scope="module")
def studies():
    """Three slices through the kidneys of every demo study on a coarse grid, and their label maps."""
    made = {}
    for name, style in STYLES.items():
        spacing = (3.0, 3.0, 4.8)
        volume, labels = render_study(replace(style, spacing=spacing), seed=0)
        middle = labels.shape[2] // 2
        cut = np.s_[:, :, middle - 1 : middle + 2]
        array = volume.array[cut].transpose(2, 1, 0).astype(np.float32)
        background = -1000.0 if style.modality == "CT" else 0.0
        facts = Acquisition(style.modality, slice_thickness=4.8, pixel_spacing=(3.0, 3.0), **FACTS[name])
        array.flags.writeable = False
        made[name] = StyledSlices(array, spacing[::-1], facts, background), labels[cut].transpose(2, 1, 0)
    return made


def styled(slices, kind, seed):
    rng = np.random.default_rng(seed)
    return STYLE_AUGMENTATIONS[kind].draw(slices, rng).apply(slices, rng)


def edges(array):
    """Strength of edges of the middle slice, as seen in the usual window."""
    rows, columns = np.gradient(array[1])
    return np.hypot(rows, columns)


def information(labels, image):
    """Share of what there is to know of the label map that the brightness tells, seen from where noise is a grain."""
    image = np.clip(gaussian_filter(image, (0, 1, 1)), 0, 1)
    joint = np.histogram2d(labels.ravel(), image.ravel(), bins=(len(LABELS) + 1, 48))[0] / image.size
    label, bright = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    known = joint > 0
    mutual = (joint[known] * np.log(joint[known] / (label * bright)[known])).sum()
    entropy = -(label[label > 0] * np.log(label[label > 0])).sum()
    return mutual / entropy


def organ(studies, study, name):
    """Return the mask of an organ without its border."""
    return binary_erosion(studies[study][1] == LABELS[name], np.ones((1, 3, 3)))


def spread(array, where):
    return float(array[where].std())


# All kinds


@pytest.mark.parametrize(("study", "kind"), CASES)
def test_the_grid_stays_and_the_style_changes(studies, study, kind):
    slices, _ = studies[study]
    for seed in SEEDS:
        # The array of the case is read-only: writing into it would raise.
        result = styled(slices, kind, seed)
        assert result.array.shape == slices.array.shape
        assert result.array.dtype == np.float32
        assert result.spacing == slices.spacing
        assert np.isfinite(result.array).all()
        assert np.abs(result.normalised() - slices.normalised()).mean() > 0.003
        again = styled(slices, kind, seed)
        assert np.array_equal(result.array, again.array)
        assert result.acquisition == again.acquisition


@pytest.mark.parametrize(("study", "kind"), CASES)
def test_the_anatomy_stays(studies, study, kind):
    slices, labels = studies[study]
    before = slices.normalised()
    inside = labels[1] > 0
    border = np.zeros_like(inside)
    border[:, 1:] |= labels[1, :, 1:] != labels[1, :, :-1]
    border[1:] |= labels[1, 1:] != labels[1, :-1]
    for seed in SEEDS:
        after = styled(slices, kind, seed).normalised()
        # Nothing has moved: the edges of both fit best without a shift.
        product = np.fft.rfft2(edges(before)) * np.conj(np.fft.rfft2(edges(after)))
        correlation = np.fft.irfft2(product, s=before.shape[1:])
        assert np.unravel_index(correlation.argmax(), correlation.shape) == (0, 0)
        # Edges lie at the borders of organs.
        strength = edges(after)
        assert strength[inside & border].mean() > 1.3 * strength[inside & ~border].mean()
        # Brightness tells organs apart nearly as well as it did.
        assert information(labels, after) > 0.6 * information(labels, before)


@pytest.mark.parametrize(("study", "kind"), CASES)
def test_background_stays_background(studies, study, kind):
    slices, labels = studies[study]
    outside = np.zeros(labels.shape, bool)
    outside[:, :6] = outside[:, -6:] = outside[:, :, :6] = outside[:, :, -6:] = True
    outside &= labels == 0
    for seed in SEEDS:
        result = styled(slices, kind, seed)
        tissue = result.array[labels > 0]
        range_ = np.percentile(tissue, 95) - result.background
        assert abs(np.median(result.array[outside]) - result.background) < 0.2 * range_
        assert np.median(result.array[outside]) < np.percentile(tissue, 5)


@pytest.mark.parametrize(("study", "kind"), CASES)
def test_what_was_cut_away_stays_cut_away(studies, study, kind):
    slices, labels = studies[study]
    masked = slices.with_array(np.where(labels > 0, np.maximum(slices.array, slices.background + 1), slices.background))
    result = styled(masked, kind, 0)
    assert (result.array[labels == 0] == result.background).all()


@pytest.mark.parametrize("kind", STYLE_AUGMENTATIONS)
@pytest.mark.parametrize("modality", ["CT", "MR", ""])
@pytest.mark.parametrize("count", [1, 3])
def test_slices_with_little_or_nothing_on_them(kind, modality, count):
    background = -1000.0 if modality == "CT" else 0.0
    dot = np.full((count, 8, 8), background)
    dot[:, 3, 4] = 100
    noise = np.random.default_rng(0).normal(100, 30, (count, 8, 8))
    for array in (np.full((count, 8, 8), background), np.full((count, 8, 8), 40.0), dot, noise):
        slices = StyledSlices(array.astype(np.float32), (5.0, 1.0, 1.0), Acquisition(modality), background)
        if STYLE_AUGMENTATIONS[kind].fits(slices):
            result = styled(slices, kind, 1)
            assert result.array.shape == array.shape
            assert np.isfinite(result.array).all()


def test_other_modalities_are_refused(studies):
    rng = np.random.default_rng(0)
    ct, mr = studies["ct-low-dose"][0], studies["mr-t2"][0]
    with pytest.raises(InputError, match=r"^The style augmentation 'kernel' does not fit 3 .* modality 'MR'\.$"):
        Kernel("soft", 0.2).apply(mr, rng)
    with pytest.raises(InputError, match=r"^The style augmentation 'gibbs' does not fit 3 .* modality 'CT'\.$"):
        Gibbs(0.6).apply(ct, rng)
    single = replace(ct, array=ct.array[:1])
    with pytest.raises(InputError, match=r"^The style augmentation 'thickness' does not fit 1 "):
        SliceThickness(8.0).apply(single, rng)


# CT


def test_kernels_change_fine_detail_and_noise(studies):
    slices, _ = studies["ct-portal-venous"]
    liver = organ(studies, "ct-portal-venous", "liver")
    rng = np.random.default_rng(0)
    kernels = [styled(slices, "kernel", seed).acquisition.kernel for seed in range(12)]
    assert set(kernels) == {"standard", "sharp"}  # never the one that it has
    sharp, soft = Kernel("sharp", 2.5).apply(slices, rng), Kernel("soft", 0.2).apply(slices, rng)
    assert spread(sharp.array, liver) > 1.2 * spread(slices.array, liver) > 1.2 * spread(soft.array, liver)
    for result in (sharp, soft):
        assert abs(result.array[liver].mean() - slices.array[liver].mean()) < 4


def test_a_lower_dose_is_noisiest_in_the_middle_of_the_body(studies):
    slices, labels = studies["ct-portal-venous"]
    noise = Dose(30.0).apply(slices, np.random.default_rng(0)).array - slices.array
    body = slices.tissue
    y, x = np.nonzero(body.any(axis=0))
    middle = np.zeros_like(body)
    middle[:, int(y.mean()) - 12 : int(y.mean()) + 12, int(x.mean()) - 12 : int(x.mean()) + 12] = True
    fat = labels == LABELS["fat"]
    assert 22 < spread(noise, middle) < 36
    assert spread(noise, middle) > 1.2 * spread(noise, fat & body) > 1.2 * spread(noise, ~body)


def test_the_grain_of_the_noise_is_that_of_the_kernel(studies):
    slices, _ = studies["ct-portal-venous"]
    likeness = {}
    for kernel in ("soft", "standard", "sharp"):
        given_ = replace(slices, acquisition=replace(slices.acquisition, kernel=kernel))
        noise = Dose(30.0).apply(given_, np.random.default_rng(0)).array - slices.array
        noise = noise[:, 30:60, 40:90]
        likeness[kernel] = np.corrcoef(noise[..., 1:].ravel(), noise[..., :-1].ravel())[0, 1]
    assert likeness["soft"] > likeness["standard"] > 0.2 > 0 > likeness["sharp"]


@pytest.mark.parametrize("study", ["ct-portal-venous", "ct-low-dose"])
def test_contrast_phases_change_soft_tissue_alone(studies, study):
    slices, _ = studies[study]
    phases = set()
    for seed in range(16):
        result = styled(slices, "phase", seed)
        phases.add(result.acquisition.phase)
        assert result.acquisition.contrast_agent == (result.acquisition.phase != "native")
        for name in ("fat", "bone"):
            where = organ(studies, study, name)
            assert abs(np.median(result.array[where]) - np.median(slices.array[where])) < 40
        liver = organ(studies, study, "liver")
        change = np.median(result.array[liver]) - np.median(slices.array[liver])
        assert change > 5 if study == "ct-low-dose" else change < 0
    assert phases == {"native", "arterial", "portal venous", "delayed"} - {slices.acquisition.phase}


def test_a_phase_without_facts_is_guessed_from_the_image(studies):
    bare = {name: replace(slices, acquisition=Acquisition("CT")) for name, (slices, _) in studies.items()}
    rng = np.random.default_rng(0)
    assert "native" in {ContrastPhase.draw(bare["ct-portal-venous"], rng).phase for _ in range(20)}
    assert "native" not in {ContrastPhase.draw(bare["ct-low-dose"], rng).phase for _ in range(20)}


def test_streaks_leave_their_place_and_fade(studies):
    slices, _ = studies["ct-portal-venous"]
    change = Streaks(0.5, 0.5, 100.0, 0.2).apply(slices, np.random.default_rng(0)).array - slices.array
    _, height, width = change.shape
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    near, far = np.broadcast_to(distance < 10, change.shape), np.broadcast_to(distance > 35, change.shape)
    assert spread(change, near) > 40
    assert spread(change, far) < 0.4 * spread(change, near)
    assert change[near].max() > 30 > -30 > change[near].min()
    # Draws begin at bone.
    drawn = Streaks.draw(slices, np.random.default_rng(1))
    assert slices.array[1, int(drawn.row * height), int(drawn.column * width)] > 250


# MR


def test_a_bias_field_has_its_strength_and_is_smooth(studies):
    slices, labels = studies["mr-t1"]
    result = BiasField(1.0).apply(slices, np.random.default_rng(0))
    seen = slices.array > 100
    field = np.log(np.where(seen, result.array, 1) / np.where(seen, slices.array, 1))
    assert 0.9 < np.ptp(field[seen]) < 1.6
    assert abs(field[labels > 0].mean()) < 0.1
    neighbours = seen[..., 1:] & seen[..., :-1]
    assert np.abs(np.diff(field))[neighbours].max() < 0.1


def test_a_weaker_magnet_is_noisier(studies):
    slices, _ = studies["mr-t2"]
    liver = organ(studies, "mr-t2", "liver")
    for seed in SEEDS:
        result = styled(slices, "field strength", seed)
        assert result.acquisition.field_strength < 3.0
        assert spread(result.array, liver) > spread(slices.array, liver)
        assert result.array.min() >= 0
    weakest = replace(slices, acquisition=replace(slices.acquisition, field_strength=0.2))
    assert FieldStrength.draw(weakest, np.random.default_rng(0)).tesla == 0.35
    noise = [FieldStrength(1.5, share).apply(slices, np.random.default_rng(0)) for share in (0.05, 0.16)]
    assert spread(noise[1].array, liver) > 1.7 * spread(noise[0].array, liver)


def test_gibbs_leaves_nothing_in_the_outer_k_space(studies):
    slices, _ = studies["mr-t1"]
    result = Gibbs(0.6).apply(slices, np.random.default_rng(0))
    y, x = (np.fft.fftfreq(n) for n in slices.array.shape[1:])
    outer = np.hypot(y[:, None] * slices.array.shape[1], x * slices.array.shape[2]) > 0.42 * 128

    def energy(array):
        return np.abs(np.fft.fft2(array[1])[outer]).mean()

    assert energy(result.array) < 0.05 * energy(slices.array)


def test_motion_doubles_edges(studies):
    slices, labels = studies["mr-t1"]
    bright = labels == LABELS["fat"]
    edge = bright ^ binary_erosion(bright, np.ones((1, 3, 3)))
    even = organ(studies, "mr-t1", "liver")
    for along_rows in (True, False):
        moved = Motion(0.2, 2.0, (2.0, -2.0), along_rows).apply(slices, np.random.default_rng(0))
        change = np.abs(moved.array - slices.array)
        assert change[edge].mean() > 2 * change[even].mean() > 5


def test_ghosts_lie_beside_the_body(studies):
    slices, labels = studies["mr-t1"]
    for rows in (True, False):
        ghosts = Ghosts(3, 0.6, rows).apply(slices, np.random.default_rng(0))
        assert ghosts.array[labels == 0].mean() > 1.3 * slices.array[labels == 0].mean()


def test_gamma_darkens_or_brightens_middle_tones(studies):
    slices, labels = studies["mr-t1"]
    dark, bright = (Gamma(gamma).apply(slices, np.random.default_rng(0)).array for gamma in (1.8, 0.6))
    tissue = labels > 0
    assert np.median(dark[tissue]) < np.median(slices.array[tissue]) < np.median(bright[tissue])
    assert dark.max() == pytest.approx(slices.array.max(), rel=1e-4)


def test_t2_swaps_the_order_that_tissues_have_in_t1(studies):
    slices, _ = studies["mr-t1"]
    sequences = set()
    for seed in range(30):
        result = styled(slices, "remap", seed)
        sequences.add(result.acquisition.sequence)
        bile, liver = (np.median(result.array[organ(studies, "mr-t1", name)]) for name in ("gallbladder", "liver"))
        if result.acquisition.sequence in ("T2", "PD"):
            assert bile > liver
        elif result.acquisition.sequence == "FLAIR":
            assert bile < liver
    assert sequences == {"T2", "FLAIR", "PD", None}


def test_remaps_of_unknown_sequences_come_in_both_orders(studies):
    slices = replace(studies["mr-t2"][0], acquisition=Acquisition("MR"))
    kidney, liver = organ(studies, "mr-t2", "left kidney"), organ(studies, "mr-t2", "liver")
    brighter = []
    for seed in range(20):
        result = styled(slices, "remap", seed)
        assert result.acquisition.sequence is None
        brighter.append(np.median(result.array[kidney]) > np.median(result.array[liver]))
    assert 0 < sum(brighter) < 20


@pytest.mark.parametrize(("study", "kind"), [case for case in CASES if case[1] in ("remap", "phase", "modality")])
def test_organs_that_differ_differ_after_another_contrast(studies, study, kind):
    slices, _ = studies[study]
    before = slices.normalised()
    levels = brightness_levels(before[(before > 0.02) & (before < 0.98)], 0, 1)
    organs = {name: where for name in LABELS if np.any(where := organ(studies, study, name))}
    old = {name: np.median(before[where]) for name, where in organs.items()}
    # One organ for each of the main levels of brightness: the one closest to it.
    nearest = [min(old, key=lambda name, level=level: abs(old[name] - level)) for level in levels]
    main = {name for name, level in zip(nearest, levels, strict=True) if abs(old[name] - level) < 0.05}
    assert len(main) > 1
    for seed in SEEDS:
        after = styled(slices, kind, seed).normalised()
        new = {name: np.median(after[organs[name]]) for name in main}
        for one, other in combinations(sorted(main), 2):
            if abs(old[one] - old[other]) > 0.08:
                assert abs(new[one] - new[other]) > 0.025, (one, other, seed)


def test_another_modality_has_its_units_and_none_of_the_old_facts(studies):
    ct, _ = studies["ct-portal-venous"]
    as_mr = styled(ct, "modality", 0)
    assert as_mr.acquisition == Acquisition("MR", slice_thickness=4.8, pixel_spacing=(3.0, 3.0))
    assert as_mr.background == 0
    assert as_mr.array.min() >= 0
    bone, fat = (np.median(as_mr.array[organ(studies, "ct-portal-venous", name)]) for name in ("bone", "fat"))
    assert bone < fat
    mr, _ = studies["mr-t1"]
    as_ct = styled(mr, "modality", 0)
    assert as_ct.acquisition == Acquisition("CT", slice_thickness=4.8, pixel_spacing=(3.0, 3.0))
    assert as_ct.background == -1000
    for name in ("liver", "fat", "left kidney"):
        assert -200 < np.median(as_ct.array[organ(studies, "mr-t1", name)]) < 300


# The grid


def test_coarser_pixels(studies):
    slices, _ = studies["mr-t1"]
    result = InPlaneResolution(2.0, 1.0).apply(slices, np.random.default_rng(0))
    assert result.acquisition.pixel_spacing == (6.0, 3.0)
    (rows, columns), (old_rows, old_columns) = (
        [np.abs(step).mean() for step in np.gradient(array[1])] for array in (result.array, slices.array)
    )
    assert rows < 0.85 * old_rows
    assert columns > 0.8 * old_columns
    bare = replace(slices, acquisition=Acquisition("MR"))
    assert InPlaneResolution(2.0, 2.0).apply(bare, np.random.default_rng(0)).acquisition.pixel_spacing == (6.0, 6.0)


def test_thicker_slices_share_with_their_neighbours():
    array = np.zeros((3, 8, 8), np.float32)
    array[0], array[1], array[2] = 10, 20, 60
    slices = StyledSlices(array, (4.0, 1.0, 1.0), Acquisition("MR", slice_thickness=4.0), 0.0)
    result = SliceThickness(8.0).apply(slices, np.random.default_rng(0))
    assert result.acquisition.slice_thickness == 8.0
    # Profiles of 4 and of 6.93 mm make one of 8 mm; the second reaches 1.46 mm into both neighbours.
    shares = np.array([1.464, 4.0, 1.464]) / 6.928
    np.testing.assert_allclose(result.array[1], shares @ (10, 20, 60), rtol=1e-3)
    assert not SliceThickness.fits(replace(slices, spacing=(5.0, 1.0, 1.0)))
    for seed in range(20):
        drawn = SliceThickness.draw(slices, np.random.default_rng(seed)).thickness
        assert 6.4 <= drawn <= 8
        thin = replace(slices, spacing=(1.0, 1.0, 1.0), acquisition=Acquisition("MR"))
        assert 2.5 <= SliceThickness.draw(thin, np.random.default_rng(seed)).thickness <= 3.2
    with pytest.raises(InputError, match=r"^Slices of 4 mm cannot be shown as ones of 3 mm, only as thicker\.$"):
        SliceThickness(3.0).apply(slices, np.random.default_rng(0))


# Curves


def test_edges_of_recoloured_tissues_have_no_rims():
    """Between a dark and a bright tissue lie voxels as bright as a third one, which the curve makes brightest."""
    array = np.full((1, 32, 32), 0.2, np.float32)
    array[:, :, 16:] = 0.8
    array[:, :, 16] = 0.5
    curve = Curve((0.0, 0.2, 0.5, 0.8, 1.0), (0.0, 0.3, 1.0, 0.4, 0.5))
    result = curve.recolour(array, noise=0.01)[0]
    np.testing.assert_allclose(result[:, 16], 0.35, atol=0.02)
    np.testing.assert_allclose(result[:, [2, 30]], [[0.3, 0.4]] * 32, atol=0.01)
    assert array[0, 0, 16] == 0.5


def test_recolouring_does_not_amplify_noise():
    noisy = np.random.default_rng(0).normal(0.5, 0.03, (1, 64, 64)).astype(np.float32)
    curve = Curve((0.0, 0.4, 0.6, 1.0), (0.0, 0.1, 0.9, 1.0))
    assert curve.recolour(noisy, noise=0.03).std() < 0.7 * np.interp(noisy, curve.old, curve.new).std()
    assert curve.with_even_slopes(np.array([0.5]), 0.05, 1.0).recolour(noisy, noise=0.03).std() < 1.2 * 0.03


def test_air_beside_a_dark_tissue_stays_air():
    curve = Curve((0.0, 0.1, 0.14, 1.0), (0.0, 0.1, 0.9, 0.5)).with_even_slopes(np.array([0.14]), 0.025, 1.0)
    values = np.full((1, 8, 8), 0.05, np.float32)
    assert (curve.recolour(values, noise=0.01) < 0.1).all()


def test_levels_are_where_the_tissues_are():
    rng = np.random.default_rng(0)
    tissues = np.concatenate([rng.normal(mean, 0.02, 3000) for mean in (0.2, 0.5, 0.9)]).astype(np.float32)
    np.testing.assert_allclose(brightness_levels(tissues, 0.05, 1.0), [0.2, 0.5, 0.9], atol=0.03)
    assert brightness_levels(np.zeros(0, np.float32), 0, 1).size == 0


def test_noise_is_measured_beside_edges():
    image = np.random.default_rng(0).normal(0, 5, (64, 64)).astype(np.float32)
    image[:, 32:] += 500
    assert noise_level(image, np.ones_like(image, bool)) == pytest.approx(5, rel=0.1)
    assert noise_level(image, np.zeros_like(image, bool)) == 0


# Several at once


def test_those_that_fit_a_modality(studies):
    def fitting(slices):
        return {name for name, kind in STYLE_AUGMENTATIONS.items() if kind.fits(slices)}

    ct, mr = (fitting(studies[name][0]) for name in ("ct-low-dose", "mr-t2"))
    assert ct == {"modality", "phase", "kernel", "dose", "streaks"} | SHARED
    assert mr == {"modality", "remap", "gamma", "bias", "field strength", "gibbs", "ghosts", "motion"} | SHARED
    unknown = replace(studies["mr-t2"][0], acquisition=Acquisition())
    assert fitting(unknown) == {"remap", "gamma"} | SHARED


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), study=st.sampled_from(sorted(STYLES)), most=st.integers(1, 4))
def test_chains_of_interventions(studies, seed, study, most):
    slices, labels = studies[study]
    result, done = augment_style(slices, np.random.default_rng(seed), most)
    assert 1 <= len(done) <= most
    assert len({step.name for step in done}) == len(done)
    assert [step.stage for step in done] == sorted(step.stage for step in done)
    assert result.array.shape == slices.array.shape
    assert result.array.dtype == np.float32
    assert np.isfinite(result.array).all()
    assert information(labels, result.normalised()) > 0.4 * information(labels, slices.normalised())
    # The steps are all there is to know, but for the noise.
    assert np.array_equal(augment_style(slices, np.random.default_rng(seed), most)[0].array, result.array)


def test_every_kind_is_chosen_and_a_changed_modality_goes_on_as_itself(studies):
    kinds, after_modality = set(), set()
    small = {name: replace(studies[name][0], array=studies[name][0].array[:, 20:60, 20:60]) for name in STYLES}
    for seed in range(120):
        study = ("ct-portal-venous", "mr-t1")[seed % 2]
        result, done = augment_style(small[study], np.random.default_rng(seed))
        names = [step.name for step in done]
        kinds.update(names)
        if isinstance(done[0], OtherModality):
            assert result.acquisition.modality == done[0].modality != STYLES[study].modality
            after_modality.update(names[1:])
    assert kinds == set(STYLE_AUGMENTATIONS)
    assert after_modality > {"dose"} or after_modality > {"bias"}


def test_named_interventions_only(studies):
    slices, _ = studies["mr-t1"]
    for seed in range(6):
        _, done = augment_style(slices, np.random.default_rng(seed), names=("kernel", "remap", "bias"))
        assert {type(step) for step in done} <= {Remap, BiasField}
    with pytest.raises(InputError, match=r"^None of the style augmentations kernel, dose fits 3 .* modality 'MR'\.$"):
        augment_style(slices, np.random.default_rng(0), names=("kernel", "dose"))
    with pytest.raises(NotFoundError, match=r"^There is no style augmentation 'sepia'; there are modality, remap, "):
        augment_style(slices, np.random.default_rng(0), names=("sepia",))
