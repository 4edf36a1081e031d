"""Sessions: steps of every kind, what they may change, and that undo, redo and the disk give them back to the bit."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.prompting import NamedPrediction, Prediction, Propagation, SlicePrediction
from causal_sam.prompting import history as history_module
from causal_sam.prompting.history import CHAIN_FILE, MAX_STEPS, STATE_SUFFIX, History
from causal_sam.prompting.label_state import Source, is_unnamed
from causal_sam.prompting.prompt_set import PromptSet, find_unnamed
from causal_sam.prompting.prompts import Lasso, Prompts, Strokes
from causal_sam.prompting.session import MAX_UNNAMED, InteractiveSession
from causal_sam.prompting.slices import VolumeSlices

SHAPE = (12, 10, 4)
LABELS = ("liver", "spleen", "cyst")
VOLUME = Volume(np.zeros(SHAPE, np.float32), np.diag([1.0, 1, 4, 1]), "CT")
MASK_SIZE = 8
RADIUS = 2.0


def disc(i: int, j: int) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - i, columns - j) <= RADIUS


def answer(foreground, background, box=None) -> NDArray[np.bool_]:
    """What the fake model says of a slice (I, J): discs around the points inside, and the box, but not the others."""
    mask = np.zeros(SHAPE[:2], bool)
    if box is not None:
        mask[box[0] : box[1] + 1, box[2] : box[3] + 1] = True
    for i, j, _ in foreground:
        mask |= disc(i, j)
    for i, j, _ in background:
        mask &= ~disc(i, j)
    return mask


class FakePredictor:
    """Answers through the interface of `Predictor` from the prompts alone."""

    context = None

    def __init__(self) -> None:
        self.slices = VolumeSlices(VOLUME, "axial", 64)
        self.named = np.zeros(SHAPE, np.uint8)

    def mask_prompt(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.zeros((MASK_SIZE, MASK_SIZE), np.float32)

    def predict(self, foreground=(), background=(), box=None, previous=None) -> Prediction:
        prompts = Prompts(tuple(foreground), tuple(background), box)
        found = {}
        for index in prompts.indices(2):
            here = prompts.on_slice(2, index)
            whole = np.zeros(SHAPE, bool)
            whole[..., index] = answer(here.foreground, here.background, here.box)
            mask = self.slices.frame.extract(whole, index)
            found[index] = SlicePrediction(mask, mask.astype(np.float32), np.zeros((MASK_SIZE, MASK_SIZE)), 0.5)
        return Prediction(found, 2, SHAPE, self.slices.frame)

    def propagate(self, anchors, *, before=None, changed=None, limits=None, on_slice, coarse) -> Propagation:
        """Copy the lowest mask to the slice below it."""
        on_slice(0)
        mask = np.zeros(SHAPE, bool)
        for index, anchor in anchors.items():
            self.slices.frame.insert(anchor, mask, index)
        first = min(index for index, anchor in anchors.items() if anchor.any())
        followed = {}
        if first and first - 1 not in anchors:
            mask[..., first - 1] = mask[..., first]
            followed[first - 1] = 0.5
        return Propagation(mask, followed, {})

    def predict_named(self, names, labels, on_slice, slot) -> NamedPrediction:
        on_slice(0)
        return NamedPrediction(self.named, dict.fromkeys(names, 0.5))


class FakeCorrector:
    """Shifts the masks of the labels that a plan is about by a voxel, but not into locked ones."""

    def carry_out(self, plan, slices, masks, check, *, locked, coarse, clicked, confirm):
        changed = {}
        for act in plan.interventions:
            mask = np.roll(masks[act.label], 1, axis=0)
            for name, theirs in masks.items():
                if name == act.label:
                    continue
                if name in locked:
                    mask &= ~theirs
                elif (mask & theirs).any():
                    changed[name] = changed.get(name, theirs) & ~mask
            changed[act.label] = mask
        return SimpleNamespace(masks=changed)


def plan(*labels: str, action: str = "expand") -> Any:
    return SimpleNamespace(interventions=[SimpleNamespace(label=label, action=action) for label in labels])


@pytest.fixture
def session() -> InteractiveSession:
    return InteractiveSession(FakePredictor(), LABELS)


def masks_of(session: InteractiveSession) -> dict[str, NDArray[np.bool_]]:
    return {name: session.mask(name) for name, state in session.states.items() if not state.is_empty}


def assert_same(one: dict[str, NDArray[np.bool_]], other: dict[str, NDArray[np.bool_]]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def steps_of_all_kinds(session: InteractiveSession) -> list[Any]:
    """Functions that each add one step."""
    drawn = np.zeros(SHAPE, bool)
    drawn[1:4, 1:4, 1:3] = True
    painted, beside = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    painted[6:10, 5, 2], beside[6:10, 8, 2] = True, True
    named = np.zeros(SHAPE, np.uint8)
    named[8:, 7:, 1] = 1
    session._predictor.named = named
    return [
        lambda: session.add_point("liver", (4, 4, 1)),
        lambda: session.add_point("liver", (5, 4, 1), positive=False),
        lambda: session.add_box("spleen", (6, 9, 2, 5, 1, 2)),
        lambda: session.add_lasso("cyst", [(1, 6, 3), (4, 6, 3), (4, 9, 3)], follow=False),
        lambda: session.set_mask("spleen", drawn),
        lambda: session.add_scribble("liver", Strokes(painted, beside)),
        lambda: session.segment_by_name(["cyst"], None, replace=True),
        lambda: session.apply_note("spleen is too small", plan("spleen"), FakeCorrector()),
        lambda: session.lock("liver"),
        lambda: session.reset(["cyst"]),
    ]


def test_every_kind_of_step_is_undone_and_redone_to_the_bit(session: InteractiveSession, tmp_path: Path) -> None:
    seen = [(masks_of(session), session.locked)]
    for number, step in enumerate(steps_of_all_kinds(session), start=1):
        step()
        assert session.history.position == number
        seen.append((masks_of(session), session.locked))
        session.save(tmp_path)
    session = InteractiveSession.load(tmp_path, session._predictor, LABELS)
    kinds = []
    for masks, locked in reversed(seen[:-1]):
        kinds.append(str(session.undo()))
        assert_same(masks_of(session), masks)
        assert session.locked == locked
    assert kinds[0] == "reset of cyst"
    assert kinds[2] == "'spleen is too small'"
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()
    for masks, locked in seen[1:]:
        session.redo()
        assert_same(masks_of(session), masks)
        assert session.locked == locked
    with pytest.raises(InputError, match="nothing to redo"):
        session.redo()


def test_a_new_step_forgets_those_that_were_undone(session: InteractiveSession) -> None:
    session.add_point("liver", (4, 4, 1))
    session.add_point("liver", (8, 4, 1))
    session.undo()
    session.add_point("spleen", (8, 8, 3))
    with pytest.raises(InputError, match="something else was done since"):
        session.redo()
    session.undo()
    np.testing.assert_array_equal(session.mask("liver")[..., 1], answer([(4, 4, 1)], []))


def test_the_same_prompts_again_are_no_step(session: InteractiveSession) -> None:
    prompts = PromptSet("liver", {"liver": Prompts(((4, 4, 1),))})
    session.set_prompts(prompts)
    before = session.history
    assert session.set_prompts(prompts)["liver"].decided == ()
    session.add_point("liver", (4, 4, 1))
    session.lock()
    assert session.history is before


def test_a_clients_whole_list_gives_the_new_points_alone(session: InteractiveSession) -> None:
    liver, spleen = (4, 4, 1), (8, 8, 1)
    session.set_prompts(PromptSet("liver", {"liver": Prompts((liver,)), "spleen": Prompts()}), follow=False)
    both = PromptSet("spleen", {"liver": Prompts((liver,)), "spleen": Prompts((spleen,))})
    assert {n: r.decided for n, r in session.set_prompts(both, follow=False).items()} == {"liver": (), "spleen": (1,)}
    # A point inside of another label is background of this one.
    np.testing.assert_array_equal(session.mask("spleen")[..., 1], answer([spleen], [liver]))
    one = session.history
    session.set_prompts(PromptSet("liver", {"liver": Prompts(background=((4, 5, 1),))}), follow=False, only_new=True)
    session.undo()
    assert session.history.head is one.head


def test_a_point_replaces_the_one_at_its_voxel(session: InteractiveSession) -> None:
    session.add_point("liver", (4, 4, 1), follow=False)
    session.add_point("liver", (8, 4, 1), follow=False)
    session.add_point("liver", (8, 4, 1), positive=False, follow=False)
    record = session.state("liver").slices[1]
    assert (record.foreground, record.background) == ({(4, 4, 1)}, {(8, 4, 1)})


def test_a_locked_label_is_not_changed_by_any_step(session: InteractiveSession) -> None:
    session.add_point("spleen", (4, 4, 1), follow=False)
    session.lock("spleen")
    spleen, before = session.mask("spleen"), session.history
    drawn = np.ones(SHAPE, bool)
    refused = [
        lambda: session.add_point("spleen", (5, 5, 1)),
        lambda: session.add_box("spleen", (0, 3, 0, 3, 1, 1)),
        lambda: session.add_scribble("spleen", Strokes(drawn, ~drawn)),
        lambda: session.set_mask("spleen", drawn),
        lambda: session.apply_note("", plan("spleen"), FakeCorrector()),
        lambda: session.reset(["spleen"]),
    ]
    for step in refused:
        with pytest.raises(InputError, match="spleen is locked"):
            step()
        assert session.history is before
    session._predictor.named = np.ones(SHAPE, np.uint8)
    assert session.segment_by_name(["spleen"], None, replace=True)[1] == ["spleen"]
    session.add_point("liver", (4, 4, 1), follow=False)  # also with a point inside of it
    assert session.spared == {"spleen"}
    session.set_mask("cyst", drawn)
    session.set_prompts(PromptSet("cyst", {"spleen": Prompts(((9, 9, 1),)), "cyst": Prompts(((4, 4, 1),))}))
    session.apply_note("", plan("cyst"), FakeCorrector())
    session.apply_note("", plan("spleen", action="keep"), SimpleNamespace(carry_out=lambda *a, **k: plan_of_nothing()))
    np.testing.assert_array_equal(session.mask("spleen"), spleen)
    session.lock(only=True)
    session.add_point("spleen", (9, 9, 1), follow=False)
    assert session.mask("spleen")[9, 9, 1]


def plan_of_nothing() -> Any:
    return SimpleNamespace(masks={})


def test_an_accepted_label_gives_way_to_a_point_inside_of_it(session: InteractiveSession) -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[2:6, 2:6, 1] = True
    session.history = session.history.with_saved({"liver": drawn}, "1", accepted=True, automatic=False)
    session.add_point("spleen", (7, 4, 1), follow=False)
    np.testing.assert_array_equal(session.mask("liver"), drawn)
    assert session.spared == {"liver"}
    session.add_point("spleen", (4, 4, 1), follow=False)
    assert session.spared == set()
    assert session.mask("spleen")[4, 4, 1]
    np.testing.assert_array_equal(session.mask("liver"), drawn & ~session.mask("spleen"))
    session.undo()
    np.testing.assert_array_equal(session.mask("liver"), drawn)


def test_what_was_saved_elsewhere_begins_the_chain_anew(session: InteractiveSession) -> None:
    session.add_point("liver", (4, 4, 1), follow=False)
    session.apply_note("shift", plan("liver"), FakeCorrector())
    same = session.masks()
    session.history = session.history.with_saved(same, "1", accepted=True, automatic=False)
    assert session.state("liver").source is Source.ACCEPTED
    assert session.history.position == 2
    assert session.history.last_note == "shift"
    session.history = session.history.with_saved({"cyst": np.zeros(SHAPE, bool)}, "2", accepted=False, automatic=False)
    assert session.states.keys() == {"liver"}
    changed = {"liver": np.zeros(SHAPE, bool), "spleen": same["liver"]}
    session.history = session.history.with_saved(changed, "3", accepted=False, automatic=True)
    assert masks_of(session).keys() == {"spleen"}
    assert session.state("spleen").source is Source.AUTOMATIC
    assert session.history.last_note is None
    assert session.history.saved_version == "3"
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()


def test_steps_in_a_block_are_one_and_none_if_it_fails(session: InteractiveSession) -> None:
    session.add_point("liver", (4, 4, 1))
    before = session.history
    with session.one_step():
        session.reset(["liver"])
        session.lock("spleen")
        session.add_point("liver", (8, 8, 2))
    assert session.history.position == before.position + 1
    session.undo()
    assert session.history.head is before.head

    def fail() -> None:
        with session.one_step():
            session.reset(["liver"])
            session.add_point("liver", (99, 0, 0))

    with pytest.raises(InputError, match="outside"):
        fail()
    assert session.history.head is before.head


def test_what_ends_the_work_ends_the_step(session: InteractiveSession) -> None:
    def gone(done: int) -> None:
        raise InputError("the client went away")

    session = InteractiveSession(session._predictor, LABELS, on_slice=gone)
    with pytest.raises(InputError, match="went away"):
        session.add_point("liver", (4, 4, 1))
    assert not session.states


def test_prompts_without_a_name_find_the_mask_that_they_made(session: InteractiveSession) -> None:
    liver, box = Prompts(((4, 4, 1),)), Prompts(box=(6, 9, 6, 8, 2, 2))

    def click(prompts: Prompts) -> str:
        name = find_unnamed(session.states, prompts)
        session.set_prompts(PromptSet(name, {name: prompts}), follow=False)
        return name

    first, second = click(liver), click(box)
    assert is_unnamed(first)
    assert first != second
    assert click(Prompts(((4, 4, 1), (2, 2, 2)))) == first
    assert click(Prompts(((8, 7, 2),), (), (6, 9, 6, 8, 2, 3))) == second  # the same box, through more slices
    assert click(Prompts(((9, 1, 0),), ((4, 4, 1),))) not in (first, second)
    assert session.masks() == {}
    assert not session.label_map()[0].any()
    session.history = session.history.renamed(first, "liver")
    assert session.masks().keys() == {"liver"}
    for n in range(2 * MAX_UNNAMED):
        click(Prompts(((n % 12, n // 12, 3),)))
    assert sum(map(is_unnamed, session.states)) == MAX_UNNAMED
    assert "liver" in session.states


def test_label_maps_have_names_of_the_clients_own_behind_the_labels(session: InteractiveSession) -> None:
    session.add_point("spleen", (4, 4, 1), follow=False)
    session.add_point("graft", (9, 9, 1), follow=False)
    values, names = session.label_map()
    assert names == {"liver": 1, "spleen": 2, "cyst": 3, "graft": 4}
    assert (values[4, 4, 1], values[9, 9, 1]) == (2, 4)


def test_points_may_change_any_slice_of_an_automatic_mask(session: InteractiveSession) -> None:
    given = np.zeros(SHAPE, bool)
    given[2:6, 2:6, 1:3] = True
    session.set_mask("liver", given, automatic=True)
    state = session.state("liver")
    assert (state.source, state.is_kept, state.is_automatic, state.followed) == (Source.AUTOMATIC, False, True, {1, 2})
    session.add_point("liver", (5, 5, 1), positive=False)
    assert session.state("liver").source is Source.USER
    assert session.state("liver").is_automatic


def test_a_lasso_is_the_mask_of_its_slice_once(session: InteractiveSession) -> None:
    lasso = Lasso(((2, 2, 1), (8, 2, 1), (8, 8, 1)))
    prompts = PromptSet("liver", {"liver": Prompts(box=lasso.box(2))})
    assert session.set_prompts(prompts, lasso=lasso, follow=False)["liver"].decided == (1,)
    before = session.history
    assert session.set_prompts(prompts, lasso=lasso, follow=False)["liver"].decided == ()
    assert session.history is before
    # Another curve with the same bounding box counts, and so does the first one when it is drawn again.
    other = Lasso(((2, 2, 1), (2, 8, 1), (8, 8, 1)))
    for curve in (other, lasso):
        assert session.set_prompts(prompts, lasso=curve, follow=False)["liver"].decided == (1,)
        assert session.set_prompts(prompts, lasso=curve, follow=False)["liver"].decided == ()


def test_the_chain_is_bounded(session: InteractiveSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for n in range(MAX_STEPS + 5):
        session.lock(f"label {n}")
    assert len(session.history.steps) == MAX_STEPS
    for n in range(4):
        session.add_point("liver", (3 * n, 4, 1), follow=False)
    monkeypatch.setattr(history_module, "MAX_BYTES", session.history.nbytes)
    session.add_point("liver", (1, 9, 1), follow=False)
    assert session.history.nbytes <= history_module.MAX_BYTES
    assert 2 <= len(session.history.steps) < MAX_STEPS
    session.save(tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {CHAIN_FILE, *(f"{s.key}{STATE_SUFFIX}" for t in session.history.steps for s in t.labels.values())}


def test_files_are_private_and_written_once(session: InteractiveSession, tmp_path: Path) -> None:
    folder = tmp_path / "beside" / "session"
    session.add_point("liver", (4, 4, 1))
    session.save(folder)
    (state,) = folder.glob(f"*{STATE_SUFFIX}")
    written = state.stat().st_mtime_ns
    session.add_point("spleen", (9, 9, 1))
    session.save(folder)
    assert state.stat().st_mtime_ns == written
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("damage", ["cut the chain", "cut a state", "lose a state", "other volume", "other format"])
def test_what_is_damaged_gives_a_new_session_and_one_line(
    session: InteractiveSession, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    session.add_point("liver", (4, 4, 1))
    session.save(tmp_path)
    chain, (state,) = tmp_path / CHAIN_FILE, list(tmp_path.glob(f"*{STATE_SUFFIX}"))
    shape = SHAPE
    if damage == "cut the chain":
        chain.write_bytes(chain.read_bytes()[:-20])
    elif damage == "cut a state":
        state.write_bytes(state.read_bytes()[:-20])
    elif damage == "lose a state":
        state.unlink()
    elif damage == "other format":
        chain.write_text(chain.read_text().replace('"format": 1', '"format": 99'))
    else:
        shape = (5, 5, 5)
    with caplog.at_level(logging.WARNING):
        history = History.load(tmp_path, shape)
    assert history.position == 0
    assert not history.head.labels
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    session = InteractiveSession(FakePredictor(), LABELS, history=history)
    session.add_point("liver", (4, 4, 1))
    session.save(tmp_path)
    assert_same(masks_of(InteractiveSession.load(tmp_path, FakePredictor(), LABELS)), masks_of(session))


@dataclass
class Model:
    """A naive model of a session: whole copies of everything, and the rules written out for slices of discs."""

    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    points: dict[tuple[str, int], tuple[tuple, tuple]] = field(default_factory=dict)  # label, slice -> inside, outside
    locked: frozenset[str] = frozenset()

    def copy(self) -> Model:
        return Model({name: mask.copy() for name, mask in self.masks.items()}, dict(self.points), self.locked)

    def mask(self, label: str) -> NDArray[np.bool_]:
        return self.masks.get(label, np.zeros(SHAPE, bool))

    def put(self, label: str, mask: NDArray[np.bool_]) -> None:
        gained = mask & ~self.mask(label)
        for name in self.locked - {label}:
            mask = mask & ~(gained & self.mask(name))
        for name in self.masks.keys() - {label}:
            self.masks[name] = self.masks[name] & ~(mask & gained)
        self.masks[label] = mask

    def point(self, label: str, voxel: tuple[int, int, int], positive: bool) -> bool:
        """Return whether anything is decided."""
        inside, outside = self.points.get((label, voxel[2]), ((), ()))
        if voxel in (inside if positive else outside):
            return False
        inside, outside = (tuple(v for v in part if v != voxel) for part in (inside, outside))
        inside, outside = ((*inside, voxel), outside) if positive else (inside, (*outside, voxel))
        mask = self.mask(label).copy()
        if not inside and not any(mask[v] for v in outside):
            return False
        mask[..., voxel[2]] = answer(inside, outside)
        self.points[label, voxel[2]] = inside, outside
        self.put(label, mask)
        return True


class Steps(RuleBasedStateMachine):
    """Random steps, undo, redo and restarts; after each the session is what the model says."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.session = InteractiveSession(FakePredictor(), LABELS)
        self.chain, self.position = [Model()], 0

    labels_ = st.sampled_from(LABELS)
    voxels_ = st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1), st.integers(0, 1))

    def then(self, model: Model) -> None:
        self.chain = [*self.chain[: self.position + 1], model]
        self.position += 1

    @rule(label=labels_, voxel=voxels_, positive=st.booleans())
    def point(self, label: str, voxel: tuple[int, int, int], positive: bool) -> None:
        model = self.chain[self.position].copy()
        if label in model.locked:
            with pytest.raises(InputError, match="locked"):
                self.session.add_point(label, voxel, positive=positive)
            return
        self.session.add_point(label, voxel, positive=positive, follow=False, local=False)
        if model.point(label, voxel, positive):
            self.then(model)

    @rule(label=labels_, corner=voxels_, size=st.integers(1, 5))
    def draw(self, label: str, corner: tuple[int, int, int], size: int) -> None:
        model = self.chain[self.position].copy()
        mask = model.mask(label).copy()
        i, j, k = corner
        mask[i : i + size, j : j + size, k] ^= True
        if label not in model.locked:
            self.session.set_mask(label, mask)
            model.put(label, mask)
            self.then(model)

    @rule(label=labels_)
    def lock(self, label: str) -> None:
        model = self.chain[self.position].copy()
        self.session.lock(label)
        if label not in model.locked:
            model.locked |= {label}
            self.then(model)

    @rule()
    def unlock(self) -> None:
        model = self.chain[self.position].copy()
        self.session.lock(only=True)
        if model.locked:
            model.locked = frozenset()
            self.then(model)

    @rule(label=labels_)
    def note(self, label: str) -> None:
        model = self.chain[self.position].copy()
        if label not in model.locked and model.mask(label).any():
            self.session.apply_note(f"shift {label}", plan(label), FakeCorrector())
            model.put(label, np.roll(model.mask(label), 1, axis=0))
            self.then(model)

    @rule(count=st.integers(1, 4))
    def undo(self, count: int) -> None:
        for _ in range(min(count, self.position)):
            self.session.undo()
            self.position -= 1

    @rule(count=st.integers(1, 4))
    def redo(self, count: int) -> None:
        for _ in range(min(count, len(self.chain) - 1 - self.position)):
            self.session.redo()
            self.position += 1

    @rule()
    def restart(self) -> None:
        self.session.save(self.folder)
        self.session = InteractiveSession.load(self.folder, FakePredictor(), LABELS)

    @invariant()
    def same(self) -> None:
        model = self.chain[self.position]
        assert (self.session.history.position, len(self.session.history.steps)) == (self.position, len(self.chain))
        assert self.session.locked == model.locked
        assert_same(masks_of(self.session), {name: mask for name, mask in model.masks.items() if mask.any()})

    def teardown(self) -> None:
        """Undo to the start, to the bit."""
        while self.position:
            self.session.undo()
            self.position -= 1
            self.same()
        assert not masks_of(self.session)


@pytest.mark.timeout(600)
def test_a_session_is_what_a_naive_model_says() -> None:
    run_state_machine_as_test(
        Steps,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
