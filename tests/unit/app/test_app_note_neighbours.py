"""What the answer to a note says of neighbours that have no mask."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from causal_sam.notes import Intervention
from infers.note import _unseen_neighbours


def outcome(action: str, near: str, objection: str | None = None) -> SimpleNamespace:
    act = Intervention(label="liver", action=action, near=near)
    return SimpleNamespace(corrections=[SimpleNamespace(intervention=act, objection=objection)])


@pytest.mark.parametrize(
    ("action", "consequence"), [("exclude", "looks unlike the rest is removed"), ("expand", "may grow elsewhere")]
)
def test_acts_beside_what_has_no_mask_are_to_be_checked(action: str, consequence: str) -> None:
    (remark,) = _unseen_neighbours(outcome(action, "colon"), ["liver"], True)
    assert consequence in remark
    assert "segment colon first" in remark
    assert _unseen_neighbours(outcome(action, "colon"), ["liver", "colon"], True) == []
    assert _unseen_neighbours(outcome(action, "colon", "nothing was done"), ["liver"], True) == []


def test_fat_is_seen_in_ct_by_its_hounsfield_units() -> None:
    assert _unseen_neighbours(outcome("exclude", "fat"), ["liver"], True) == []
    assert _unseen_neighbours(outcome("exclude", "fat"), ["liver"], False) != []
