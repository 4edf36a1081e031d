"""Notes that recur as rules, measured on held-out accepted labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from accepted_studies import AFFINE, accept

from causal_sam.correction.corrector import load_corrector
from causal_sam.notes import Plan, load_interpreter
from causal_sam.prompting import Predictor
from causal_sam.protocol.cases import ProtocolTools
from causal_sam.protocol.proposals import MAX_LOSS, notes_carried_out, propose
from causal_sam.protocol.reading import RuleReader
from causal_sam.protocol.rules import Protocol, parse_protocol
from causal_sam.sam import load_model
from causal_sam.site.accepted import accepted_labels

HELD_OUT = [2, 5]  # as `is_held_out` decides by their names
NO_RULES = Protocol()
HOLES, PIECES = "fill the holes of the liver", "keep only the largest component of the liver"


def two_pieces(number: int) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A liver in two pieces without holes, as this site accepts it, and a spleen."""
    label = np.zeros((40, 36, 5), np.uint8)
    label[4:20, 6:26, 1:4] = 1
    label[22:26, 6:26, 1:4] = 1
    label[30:36, 6:20, 1:4] = 2
    image = np.random.default_rng(number).normal(300, 8, label.shape) + 200 * label
    return nibabel.Nifti1Image(image.astype(np.float32), AFFINE), nibabel.Nifti1Image(label, AFFINE)


def note(image: str, act: str = "note", text: str = "as said", **fields: Any) -> dict[str, Any]:
    """Entry of the journal about one act."""
    interventions = [{"label": "liver", **fields}]
    return {
        "act": act,
        "image": image,
        "frame": 0,
        "user": "me",
        "note": text,
        "plan": {"interventions": interventions},
    }


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return accept(tmp_path_factory.mktemp("site") / "studies", [0, *HELD_OUT], two_pieces, ("liver", "spleen"))


@pytest.fixture(scope="module")
def tools() -> ProtocolTools:
    predictor = Predictor(load_model("compact", device="cpu"), prefetch_slices=0)
    return ProtocolTools(RuleReader(load_interpreter()), predictor, load_corrector(predictor.encoder))


def proposals(studies: Path, tools: ProtocolTools, entries: list[dict[str, Any]], protocol: Protocol = NO_RULES):
    found, unusable = propose(protocol, entries, accepted_labels(studies), tools)
    assert unusable == {}
    return found


def test_what_recurs_on_three_images_is_measured_and_taken_unless_it_contradicts_what_was_accepted(
    studies: Path, tools: ProtocolTools
) -> None:
    entries = [
        *(note(f"a{n}", action="fill", slices=[n, n + 1]) for n in range(4)),
        *(note(f"b{n}", action="keep_largest", strength="strong") for n in range(3)),
        *(note("c0", text=f"note {n}", action="smooth") for n in range(5)),  # one image only
        *(note(f"d{n}", action="expand", direction="superior") for n in range(3)),
    ]
    holes, pieces, pole = proposals(studies, tools, entries)
    assert holes.rule.text.casefold() == f"{HOLES}."
    assert (holes.images, holes.reason) == (("a0", "a1", "a2", "a3"), None)
    assert holes.dice == {f"case{n}": 1.0 for n in HELD_OUT}
    assert pieces.rule.text.casefold() == f"{PIECES}."
    # A fifth of the liver lies in the smaller piece.
    assert pieces.loss == pytest.approx(1 - 2 * 0.8 / 1.8)
    assert pieces.loss > MAX_LOSS
    assert "It changes what people accepted" in pieces.reason
    assert "no state" in pole.reason
    assert pole.to_dict()["taken"] is False


def test_rules_of_the_protocol_are_measured_too_and_not_proposed_again(studies: Path, tools: ProtocolTools) -> None:
    entries = [note(f"a{n}", action="fill") for n in range(3)]
    protocol = parse_protocol("- The liver has no holes\n- Liver: one piece\n- Smooth the spleen\n- Be careful")
    holes, pieces, spleen, careful = proposals(studies, tools, entries, protocol)
    assert [each.rule.line for each in (holes, pieces, spleen, careful)] == [1, 2, 3, 4]
    assert (holes.reason, spleen.reason) == (None, None)
    assert "It changes what people accepted" in pieces.reason
    assert careful.reason.startswith('How can "Be careful" be seen on a mask?')


def test_a_label_that_nobody_accepted_cannot_be_measured(studies: Path, tools: ProtocolTools) -> None:
    entries = [note(f"a{n}", action="fill", label="pancreas") for n in range(3)]
    (found,) = proposals(studies, tools, entries)
    assert found.reason == "No held-out accepted label has its labels, so it could not be measured."


def test_an_image_that_was_deleted_is_reported(studies: Path, tools: ProtocolTools, tmp_path: Path) -> None:
    folder = accept(tmp_path / "studies", HELD_OUT, two_pieces, ("liver", "spleen"))
    (folder / "case2.nii.gz").unlink()
    found, unusable = propose(parse_protocol("- No holes in the liver"), [], accepted_labels(folder), tools)
    assert found[0].dice == {"case5": 1.0}
    assert unusable == {"case2": "The image of case2 was deleted."}


def test_undone_notes_rules_and_damaged_entries_do_not_count() -> None:
    entries = [
        note("a", action="fill"),
        note("a", act="undo"),
        note("b", action="fill"),
        note("b", act="undo"),
        note("b", act="redo"),
        note("c", act="refused", action="fill"),
        note("d", action="fill") | {"rule": "0123"},
        note("e", action="fill") | {"plan": None},
        note("f", action="nonsense"),
        {"act": "undo"},
    ]
    ((image, acts),) = notes_carried_out(entries)
    assert (image, Plan(interventions=acts).sentence) == ("b", HOLES)
