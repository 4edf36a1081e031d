"""Checks of rules on masks of generated organs, and what carrying them out leaves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from causal_sam.correction.corrector import Corrector, load_corrector
from causal_sam.imaging import Volume
from causal_sam.notes import load_interpreter
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.protocol.checks import ProtocolReport, RuleCheck, check_protocol
from causal_sam.protocol.reading import RuleReader
from causal_sam.protocol.rules import parse_protocol
from causal_sam.sam import load_model

SHAPE = (48, 44, 12)
GRID = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
SPACING = (2.0, 2.0, 4.0)


def ball(centre: tuple[int, int, int], radius_mm: float) -> NDArray[np.bool_]:
    offsets = (GRID - np.reshape(centre, (3, 1, 1, 1))) * np.reshape(SPACING, (3, 1, 1, 1))
    return (offsets**2).sum(0) <= radius_mm**2


LIVER = ball((20, 22, 6), 22)
GALLBLADDER = ball((37, 22, 6), 12) & ~LIVER
IMAGE = 40 + 80.0 * LIVER - 60.0 * GALLBLADDER + np.random.default_rng(0).normal(0, 5, SHAPE)
VOLUME = Volume(IMAGE.astype(np.float32), np.diag([*SPACING, 1.0]), "CT")
READER = RuleReader(load_interpreter())


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_model("compact", device="cpu"), prefetch_slices=0).for_volume(VOLUME, "axial")


@pytest.fixture(scope="module")
def corrector(predictor: Predictor) -> Corrector:
    return load_corrector(predictor.encoder)


@pytest.fixture
def session(predictor: Predictor) -> InteractiveSession:
    session = InteractiveSession(predictor, ["liver", "gallbladder"])
    session.set_mask("liver", LIVER)
    session.set_mask("gallbladder", GALLBLADDER)
    return session


@pytest.fixture
def check(session: InteractiveSession, corrector: Corrector):
    def check(*rules: str, names: tuple[str, ...] = ()) -> ProtocolReport:
        protocol = parse_protocol("\n".join(f"- {rule}" for rule in rules))
        before = session.history
        report = check_protocol(protocol, READER, session, VOLUME, corrector, names)
        assert session.history is before
        return report

    return check


def only(report: ProtocolReport) -> RuleCheck:
    (found,) = report.checks
    return found


def test_masks_that_keep_the_rules_are_said_to(check) -> None:
    report = check("Liver without gallbladder", "No holes in the liver", "The liver is one piece", "Smooth all labels")
    assert [each.status for each in report.checks] == ["holds"] * 4
    assert [each.repair for each in report.checks] == [None] * 4
    assert str(report) == f"Protocol {report.version}: 4 of 4 rules that concern these masks hold."


@pytest.mark.parametrize(
    ("rule", "wrong", "gained", "lost"),
    [
        ("No holes in the liver", LIVER & ~ball((20, 22, 6), 6), True, False),
        ("The liver is one piece", LIVER | ball((4, 4, 2), 5), False, True),
        ("No islands in the liver", LIVER | ball((4, 4, 2), 5), False, True),
    ],
)
def test_exact_rules_count_every_voxel_and_carrying_them_out_is_exact(
    check, session: InteractiveSession, corrector: Corrector, rule: str, wrong: NDArray, gained: bool, lost: bool
) -> None:
    session.set_mask("liver", wrong)
    found = only(check(rule))
    assert found.status == "fails"
    (act,) = found.acts
    assert act.is_exact
    assert (act.gained_ml > 0, act.lost_ml > 0) == (gained, lost)
    assert act.gained_ml + act.lost_ml == pytest.approx((wrong ^ LIVER).sum() * VOLUME.voxel_ml)
    session.apply_note(rule, found.repair, corrector)
    np.testing.assert_array_equal(session.mask("liver"), LIVER)
    assert only(check(rule)).status == "holds"


def test_a_structure_inside_of_another_is_no_hole(check, session: InteractiveSession) -> None:
    lesion = ball((20, 22, 6), 6)
    session.set_mask("liver", LIVER & ~lesion)
    session.set_mask("lesion", lesion)
    assert only(check("No holes in the liver")).status == "holds"


def test_vessels_are_filled_up_to_their_width(check, session: InteractiveSession, corrector: Corrector) -> None:
    block = np.zeros(SHAPE, bool)
    block[8:34, 6:38, 1:11] = True
    block[28, :, 6] = False  # a channel through the block, 2 mm wide, and one of 8 mm
    block[14:18, :, 4:8] = False
    session.reset(["gallbladder"])
    session.set_mask("liver", block)
    found = only(check("Fill vessels of the liver up to 3 mm"))
    assert found.status == "fails"
    session.apply_note("fill", found.repair, corrector)
    filled = session.mask("liver")
    assert filled[28, 10:34, 6].all()
    assert not filled[15:17, :, 5:7].any()
    assert not (block & ~filled).any()
    assert only(check("Fill vessels of the liver up to 3 mm")).status == "holds"


def test_a_leak_into_a_neighbour_is_seen_by_the_model(check, session: InteractiveSession, corrector: Corrector) -> None:
    leak = LIVER | ball((31, 22, 6), 10)
    session.set_mask("liver", leak)
    found = only(check("Liver without gallbladder"))
    assert found.status == "fails"
    (act,) = found.acts
    assert not act.is_exact
    assert "as the model sees it" in str(found)
    session.apply_note("exclude", found.repair, corrector)
    after = session.mask("liver")
    assert (after & ~LIVER).sum() < 0.5 * (leak & ~LIVER).sum()


def test_a_rough_border_is_seen(check, session: InteractiveSession) -> None:
    rng = np.random.default_rng(1)
    rough = LIVER ^ ((rng.random(SHAPE) < 0.4) & (np.abs(np.gradient(LIVER.astype(float))).sum(0) > 0))
    session.set_mask("liver", rough)
    assert only(check("Smooth the liver")).status == "fails"


def test_rules_without_masks_or_meaning_are_reported_and_locks_do_not_matter(
    check, session: InteractiveSession
) -> None:
    session.lock("liver")
    report = check(
        "No holes in the spleen",
        "No holes in the liver",
        "Aorta down to the bifurcation",
        "No holes in the pancreas",
        names=("spleen", "aorta"),
    )
    assert [each.status for each in report.checks] == ["no mask", "holds", "question", "question"]
    assert report.checks[0].missing == ("spleen",)
    assert str(report).endswith("1 of 1 rule that concerns these masks holds. Not understood: line 3, 4.")
    assert str(report.checks[2]).startswith('Line 3, "Aorta down to the bifurcation": How can')
    assert [each["status"] for each in report.to_dict()["rules"]] == [each.status for each in report.checks]


def test_without_any_mask_a_rule_is_a_question(predictor: Predictor, corrector: Corrector) -> None:
    protocol = parse_protocol("- No holes in the liver")
    report = check_protocol(protocol, READER, InteractiveSession(predictor), VOLUME, corrector)
    assert only(report).question == "There is no label yet that it could be about."


def test_a_model_that_was_not_trained_by_notes_says_so(session: InteractiveSession, predictor: Predictor) -> None:
    corrector = Corrector(predictor.encoder, None, None)
    protocol = parse_protocol("- Liver without gallbladder\n- No holes in the liver")
    report = check_protocol(protocol, READER, session, VOLUME, corrector)
    assert [each.status for each in report.checks] == ["fails", "holds"]
    assert report.checks[0].repair is None
    assert "not trained to exclude" in str(report)
