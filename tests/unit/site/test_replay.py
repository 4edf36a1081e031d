"""Replay: how many earlier cases are shown again, and that rare ones are shown as often as others."""

from __future__ import annotations

from collections import Counter

import pytest

from causal_sam.site.replay import MIN_REPLAYED, ReplayCase, choose_replay

DRAWS = 400


def cases(count: int, *names: str, style: str = "MR", first: int = 0) -> list[ReplayCase]:
    return [ReplayCase(f"{names[0]}-{style}-{first + n}", names, style) for n in range(count)]


def shares(earlier: list[ReplayCase], new: int) -> Counter[str]:
    """Return how often each case is drawn, over many draws."""
    counts: Counter[str] = Counter()
    for seed in range(DRAWS):
        counts.update(case.image_id for case in choose_replay(earlier, new, 0.5, seed))
    return counts


@pytest.mark.parametrize(
    ("earlier", "new", "share", "count"),
    [(100, 20, 0.5, 20), (100, 30, 0.25, 10), (100, 20, 0.75, 60), (100, 1, 0.5, MIN_REPLAYED), (3, 20, 0.5, 3)],
)
def test_as_many_are_shown_again_as_the_share_says(earlier: int, new: int, share: float, count: int) -> None:
    drawn = choose_replay(cases(earlier, "liver"), new, share, 0)
    assert len(drawn) == len({case.image_id for case in drawn}) == count


def test_nothing_is_shown_again_where_nothing_is_to_be_or_can_be() -> None:
    assert choose_replay(cases(10, "liver"), 5, 0.0, 0) == []
    assert choose_replay([], 5, 0.5, 0) == []


def test_a_draw_depends_on_its_seed_alone() -> None:
    earlier = cases(50, "liver")
    assert choose_replay(earlier, 5, 0.5, 3) == choose_replay(earlier, 5, 0.5, 3)
    assert choose_replay(earlier, 5, 0.5, 3) != choose_replay(earlier, 5, 0.5, 4)


def test_a_rare_label_is_shown_as_often_as_a_frequent_one() -> None:
    counts = shares([*cases(90, "liver"), *cases(10, "spleen")], 10)
    spleen = sum(count for image_id, count in counts.items() if image_id.startswith("spleen"))
    # Of 10 drawn about half, not one; fewer than half since they run out.
    assert 3.3 < spleen / DRAWS < 5.5


def test_the_rarest_label_of_a_case_counts() -> None:
    counts = shares([*cases(90, "liver"), *cases(10, "spleen", "liver")], 10)
    spleen = sum(count for image_id, count in counts.items() if image_id.startswith("spleen"))
    assert 3.3 < spleen / DRAWS < 5.5


def test_a_rare_style_is_shown_as_often_as_a_frequent_one() -> None:
    counts = shares([*cases(90, "liver", style="MR"), *cases(10, "liver", style="CT")], 10)
    ct = sum(count for image_id, count in counts.items() if "-CT-" in image_id)
    assert 3.3 < ct / DRAWS < 5.5


def test_cases_alike_are_shown_alike() -> None:
    counts = shares(cases(20, "liver"), 10)
    assert len(counts) == 20
    assert min(counts.values()) > 0.35 * DRAWS
    assert max(counts.values()) < 0.65 * DRAWS
