"""The terms of LAD: gradients against closed forms on small numbers, and that a constant feature wins none of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from causal_sam.errors import InputError
from causal_sam.style.lad import (
    MEASURED_BATCHES,
    LadConfig,
    LadLoss,
    anatomical_loss,
    consistency_loss,
    info_nce,
    pool_inside,
    reversal_ramp,
    reverse_gradient,
    spread,
    style_share,
)

CHANNELS, TEXT, LABELS, BATCH = 6, 8, 2, 4


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_reversed_gradient_is_the_gradient_times_minus_the_weight() -> None:
    x = randn(3).requires_grad_()
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (y**2).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * 2 * x.detach())


def test_the_ramp_begins_at_zero_and_ends_near_one() -> None:
    values = [reversal_ramp(p / 10) for p in range(11)]
    assert values[0] == 0
    assert values[-1] == pytest.approx(math.tanh(5))  # the same function, written differently
    assert values == sorted(values)


def test_info_nce_has_the_gradient_of_a_cross_entropy() -> None:
    """For unit vectors: d loss / d cos = (softmax - own) / temperature, and through the query's normalisation."""
    query, bank, own, temperature = randn(1, TEXT).requires_grad_(), F.normalize(randn(3, TEXT, seed=1)), 1, 0.5
    loss = info_nce(query, bank, torch.tensor([own]), temperature)
    cosine = bank @ F.normalize(query[0].detach(), dim=0)
    p = (cosine / temperature).softmax(0)
    torch.testing.assert_close(loss[0].detach(), -p[own].log())
    loss.sum().backward()
    to_cosine = (p - F.one_hot(torch.tensor(own), 3)) / temperature
    unit = F.normalize(query[0].detach(), dim=0)
    closed = ((bank - cosine[:, None] * unit) / query[0].detach().norm()).T @ to_cosine
    torch.testing.assert_close(query.grad[0], closed)


def test_a_query_that_says_nothing_scores_chance() -> None:
    bank = torch.eye(5, dtype=torch.float64)
    loss = info_nce(torch.ones(1, 5, dtype=torch.float64), bank, torch.tensor([3]), 0.1)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(5)))


def test_the_anatomical_term_is_the_papers_with_other_names_among_the_negatives() -> None:
    names, styles = F.normalize(randn(2, TEXT, seed=1)), F.normalize(randn(3, TEXT, seed=2))
    feature, tau = randn(1, TEXT, seed=3), 0.2
    cos = lambda t: torch.exp(F.cosine_similarity(feature, t) / tau)  # noqa: E731
    own, other = cos(names[:1]), cos(names[1:])
    expected = -torch.log(own / (own + other + cos(styles).sum()))
    torch.testing.assert_close(anatomical_loss(feature, names, torch.tensor([0]), styles, tau), expected)


def test_consistency_is_the_dice_of_intersection_and_union_with_the_truth() -> None:
    p, q, y = torch.tensor([0.5, 0.2]), torch.tensor([1.0, 0.4]), torch.tensor([1.0, 0.0])
    logits = [x.view(1, 1, 1, 2).logit(eps=1e-6) for x in (p, q)]
    both, either = torch.tensor([0.5, 0.08]), torch.tensor([1.0, 0.52])
    dice = [(2 * (m @ y) + 1) / (m @ m + y @ y + 1) for m in (both, either)]
    found = consistency_loss(*logits, y.view(1, 1, 1, 2))
    torch.testing.assert_close(found, (1 - sum(dice) / 2)[None], atol=1e-4, rtol=0)


def test_consistency_has_the_gradient_of_its_closed_form() -> None:
    """D = (2 m y + 1) / (m^2 + y^2 + 1) for one pixel, of m = p q and of m = p + q - p q."""
    x, z = randn(1, 1, 1, 1).requires_grad_(), randn(1, 1, 1, 1, seed=1)
    y = 0.7
    consistency_loss(x, z, torch.full((1, 1, 1, 1), y, dtype=torch.float64)).sum().backward()
    p, q = (float(t.detach().sigmoid()) for t in (x, z))
    slope = lambda m: 2 * y / (m * m + y * y + 1) - (2 * m * y + 1) * 2 * m / (m * m + y * y + 1) ** 2  # noqa: E731
    closed = -(slope(p * q) * q + slope(p + q - p * q) * (1 - q)) / 2 * p * (1 - p)
    assert float(x.grad) == pytest.approx(closed)


def test_spread_is_the_standard_deviation_over_the_batch() -> None:
    x = randn(5, 3)
    torch.testing.assert_close(spread(x), x.sub(x.mean(0)).square().mean(0).sum().sqrt())
    assert spread(torch.ones(4, 3)) < 1e-5


def test_the_share_of_the_style_is_that_of_an_analysis_of_variance() -> None:
    first, second = randn(5, 3), randn(5, 3, seed=1)
    both = torch.stack([first, second])
    by_anatomy = both.mean(0).var(0, unbiased=False)
    by_style = both.var(0, unbiased=False).mean(0)
    torch.testing.assert_close(by_style + by_anatomy, both.flatten(0, 1).var(0, unbiased=False))
    torch.testing.assert_close(
        style_share(first, second), (by_style / (by_style + by_anatomy)).mean(), atol=1e-5, rtol=0
    )


def test_the_share_of_the_style_has_the_gradient_of_its_closed_form() -> None:
    """Of two anatomies and one channel, a and b under the first style: S / (S + A), with both variances as written."""
    first = torch.tensor([[1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([[1.5], [2.0]], dtype=torch.float64)
    style_share(first, second).backward()
    (a, b), (c, d) = first.detach()[:, 0].tolist(), second[:, 0].tolist()
    s, m = ((a - c) ** 2 + (b - d) ** 2) / 8, ((a + c) - (b + d)) ** 2 / 16
    by_a = ((a - c) / 4 * m - s * ((a + c) - (b + d)) / 8) / (s + m) ** 2
    by_b = ((b - d) / 4 * m + s * ((a + c) - (b + d)) / 8) / (s + m) ** 2
    torch.testing.assert_close(first.grad[:, 0], torch.tensor([by_a, by_b], dtype=torch.float64), atol=1e-4, rtol=0)


def test_pooling_averages_inside_and_leaves_out_what_is_not_there() -> None:
    features = randn(1, CHANNELS, 4, 4)
    masks = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    masks[0, 0, :2, :2] = 1
    masks[0, 1, 0, 0] = 0.5
    pooled, present = pool_inside(features, masks)
    torch.testing.assert_close(pooled[0, 0], features[0, :, :2, :2].mean((-2, -1)))
    assert present.tolist() == [[True, False, False]]


def batch(seed: int = 0) -> dict[str, Tensor]:
    """B anatomies under two styles; each image has a description of its own."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.zeros(BATCH, LABELS, 16, 16)
    truth[:, 0, :8], truth[:, 1, 10:] = 1, 1
    return {
        "styles": F.normalize(torch.randn(2 * BATCH, TEXT, generator=rng), dim=1),
        "truth": truth,
        "names": F.normalize(torch.randn(LABELS, TEXT, generator=rng), dim=1),
        "logits": torch.randn(BATCH, LABELS, 16, 16, generator=rng).mul(4).repeat(2, 1, 1, 1),
    }


def style_free(seed: int = 0) -> Tensor:
    """Features of B anatomies, equal under both styles, that tell anatomies and structures apart."""
    rng = torch.Generator().manual_seed(seed)
    features = 0.5 * torch.randn(BATCH, CHANNELS, 1, 1, generator=rng).expand(-1, -1, 8, 8).clone()
    features[:, 0, :4] += 3
    features[:, 1, 5:] += 3
    return features.repeat(2, 1, 1, 1)


def calibrated(config: LadConfig) -> LadLoss:
    """Return a loss that has seen what frozen features are like."""
    torch.manual_seed(0)
    loss = LadLoss(CHANNELS, TEXT, config)
    for _ in range(MEASURED_BATCHES):
        loss(style_free(), **batch(), ramp=0.0)
    return loss


def best(loss: LadLoss, features: Tensor, term: str) -> float:
    """Return the term for these features once the heads have done their best, as the features would have it."""
    optimizer = torch.optim.Adam(loss.parameters(), 0.03)
    for _ in range(150):
        optimizer.zero_grad()
        terms = loss(features, **batch(), ramp=0.0)
        (terms.adversary + terms.anatomy).backward()
        optimizer.step()
    return float(getattr(loss(features, **batch(), ramp=0.0), term).detach())


def test_a_constant_feature_does_not_win_the_anatomical_term() -> None:
    constant = torch.ones(2 * BATCH, CHANNELS, 8, 8)
    useful, idle = (best(calibrated(LadConfig()), f, "anatomy") for f in (style_free(), constant))
    assert useful < 0.1
    assert idle > math.log(LABELS) - 0.02  # it cannot tell the names apart


def test_a_constant_feature_does_not_win_against_the_adversary() -> None:
    """It hides the style, as features without style do, but pays for being the same for every anatomy."""
    config = LadConfig()
    constant = torch.ones(2 * BATCH, CHANNELS, 8, 8)
    scores = {}
    for name, features in (("style free", style_free()), ("constant", constant)):
        loss = calibrated(config)
        terms = loss(features, **batch(), ramp=1.0)
        scores[name] = float(terms.spread)
        # Both views have the same feature, so the adversary can do no better than to guess between two descriptions.
        assert best(loss, features, "adversary") > math.log(2) - 0.02
    assert scores["style free"] == 0
    assert scores["constant"] > 0.99


def test_a_constant_feature_does_not_win_the_invariance() -> None:
    loss = calibrated(LadConfig())
    share = lambda features: float(loss(features, **batch(), ramp=1.0).invariance)  # noqa: E731
    assert share(style_free()) < 1e-3
    assert share(torch.ones(2 * BATCH, CHANNELS, 8, 8)) == pytest.approx(0.5)


def test_a_constant_mask_does_not_win_the_consistency() -> None:
    values = torch.randint(LABELS + 1, (BATCH, 16, 16), generator=torch.Generator().manual_seed(0))
    truth = torch.nn.functional.one_hot(values, LABELS + 1).movedim(-1, 1)[:, 1:].float()  # labels exclude each other
    right = 12 * (truth - 0.5)
    assert consistency_loss(right, right, truth).mean() < 0.01
    for logit in (-8.0, -1.0, 0.0, 8.0):
        constant = torch.full_like(truth, logit)
        assert consistency_loss(constant, constant, truth).mean() > 0.4
    # Nor do masks that are right under one style alone.
    assert consistency_loss(right, -right, truth).mean() > 0.4


def test_the_adversary_learns_and_the_features_unlearn() -> None:
    """Features that carry the style are found; the reversed gradient points to where they are not."""
    config = LadConfig(invariance=0, anatomy=0, consistency=0, spread=0)
    given = batch()
    carried = given["styles"][:, :CHANNELS][..., None, None].expand(-1, -1, 8, 8).clone()
    loss = LadLoss(CHANNELS, TEXT, config)
    optimizer = torch.optim.Adam(loss.parameters(), 0.01)
    first = float(loss(carried, **given, ramp=0.0).adversary)
    for _ in range(200):
        optimizer.zero_grad()
        loss(carried, **given, ramp=0.0).adversary.backward()
        optimizer.step()
    found = float(loss(carried, **given, ramp=0.0).adversary)
    assert found < 0.2 < first
    features = carried.clone().requires_grad_()
    loss.weighted(loss(features, **given, ramp=1.0), 1.0).backward()
    moved = carried - 0.5 * features.grad / features.grad.abs().max()  # a step that lowers the features' own loss
    assert float(loss(moved, **given, ramp=0.0).adversary) > found


OFF = {"adversary": 0.0, "spread": 0.0, "invariance": 0.0, "anatomy": 0.0, "consistency": 0.0}


@pytest.mark.parametrize("term", ["adversary", "invariance", "anatomy"])
def test_the_ramp_scales_what_the_features_get(term: str) -> None:
    gradients = []
    for ramp in (0.0, 0.5, 1.0):
        loss = calibrated(LadConfig(**(OFF | {term: 1.0})))
        features = (style_free(1) + randn(2 * BATCH, CHANNELS, 8, 8).float()).requires_grad_()
        loss.weighted(loss(features, **batch(), ramp=ramp), ramp).backward()
        gradients.append(features.grad.clone())
    assert not gradients[0].any()
    torch.testing.assert_close(2 * gradients[1], gradients[2])


@pytest.mark.parametrize("term", ["adversary", "invariance", "anatomy", "consistency"])
def test_each_term_can_be_switched_off_alone(term: str) -> None:
    loss = LadLoss(CHANNELS, TEXT, LadConfig(**{term: 0.0}))
    terms = loss(style_free() + randn(2 * BATCH, CHANNELS, 8, 8).float(), **batch(), ramp=1.0)
    assert getattr(terms, term) == 0
    others = {"adversary", "invariance", "anatomy", "consistency"} - {term}
    assert all(getattr(terms, other) > 0 for other in others)
    assert loss.config.is_enabled


def test_with_all_terms_off_there_is_nothing() -> None:
    loss = LadLoss(CHANNELS, TEXT, LadConfig(adversary=0, invariance=0, anatomy=0, consistency=0, spread=0))
    assert not loss.config.is_enabled
    assert list(loss.parameters()) == []
    assert loss.weighted(loss(style_free(), **batch(), ramp=1.0), 1.0) == 0


def test_equal_descriptions_are_one_entry_of_the_bank() -> None:
    """Two scans made alike are no mistake of the adversary."""
    given = batch() | {"styles": torch.eye(2, TEXT).repeat_interleave(BATCH, 0)}
    loss = LadLoss(CHANNELS, TEXT, LadConfig(anatomy=0, consistency=0))
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.zero_()
    assert float(loss(style_free(), **given, ramp=0.0).adversary) == pytest.approx(math.log(2))


@pytest.mark.parametrize("wrong", [{"adversary": -1.0}, {"temperature": 0.0}, {"adversary_steps": -1}])
def test_weights_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} of the LAD loss must"):
        LadConfig(**wrong)
