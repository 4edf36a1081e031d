"""Sequences of requests of several clients: a request changes its own label, and of others only what that gains."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from kill_store import training, weights
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray
from untrained_labels import write_untrained_bundle

from causal_sam.correction.journal import Journal
from causal_sam.errors import InputError
from causal_sam.imaging import read_volume
from causal_sam.prompting import InteractiveSession
from causal_sam.prompting.label_state import LabelState, Source, is_unnamed
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.automatic_masks import AutomaticMasks
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Resources, take_over_saved
from infers.organs import OrgansInferTask
from infers.prompts import PromptableInferTask
from serving.conf import AppConf
from serving.data.folder_store import FolderStore
from serving.data.images import VolumeCache, volume_key
from serving.data.label_set import LabelSet
from serving.data.saved_labels import SavedLabels
from serving.models import PredictorPool
from serving.sessions.click_log import ClickLog
from serving.sessions.histories import HistoryStore

SHAPE = (48, 40, 5)
LABELS = ("liver", "spleen", "kidney")
OTHER = "cyst"  # a name of the client's own
CENTRES = {"liver": (14, 20), "spleen": (35, 12), "kidney": (35, 29), OTHER: (24, 20)}
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])


def bright_image() -> NDArray[np.float32]:
    i, j, _ = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    array = np.random.default_rng(0).normal(20, 6, SHAPE).astype(np.float32)
    for n, (x, y) in enumerate(CENTRES.values()):
        array[np.broadcast_to(np.hypot(i - x, j - y) < 7 - n, SHAPE)] += 90 + 30 * n
    return array


class App:
    """The promptable tasks on one image in a real data store, without the HTTP server."""

    def __init__(self, folder: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(bright_image(), AFFINE), folder / "image.nii.gz")
        self.folder, self.image = folder, folder / "image.nii.gz"
        self.labels = LabelSet(LABELS)
        write_untrained_bundle(folder.parent / "labels.safetensors", labels=LABELS)
        conf = AppConf.from_conf({"prefetch_slices": 0, "adapter_bundle": str(folder.parent / "labels.safetensors")})
        self.datastore = FolderStore(str(folder), auto_reload=False)
        self.resources = Resources(
            labels=self.labels,
            plane="axial",
            extent="slice",
            volumes=VolumeCache(2**24),
            predictors=PredictorPool(conf, AdapterStore(folder / "adapters")),
            saved=SavedLabels(self.datastore),
            histories=HistoryStore(folder.parent / "sessions", 2**26),
            click_log=ClickLog(folder / "journal"),
            journal=Journal(folder / "journal"),
            automatic=AutomaticMasks(folder / "journal" / "automatic"),
        )
        self.volume = self.resources.volumes.get(volume_key(self.image))
        self.restart()

    def restart(self) -> None:
        """Forget all that is in memory, as a restart of the server does."""
        self.resources = replace(self.resources, histories=HistoryStore(self.folder.parent / "sessions", 2**26))
        self.tasks = {
            "causal_sam_organs": OrgansInferTask(self.resources),
            "causal_sam": PromptableInferTask(InferType.DEEPGROW, self.resources),
            "causal_sam_multilabel": PromptableInferTask(InferType.DEEPEDIT, self.resources),
        }

    def start_afresh(self) -> None:
        """Forget all sessions and saved labels."""
        shutil.rmtree(self.folder.parent / "sessions", ignore_errors=True)
        self.restart()
        for tag in list(self.datastore.get_labels_by_image_id("image")):
            self.datastore.remove_label("image", tag)

    def post(self, model: str, client: str, request: dict[str, Any]) -> tuple[NDArray[np.int32], dict[str, Any]]:
        sent = json.loads(json.dumps(request))  # as it arrives over HTTP
        sent |= {"image": str(self.image), IMAGE_ID_KEY: "image", CLIENT_KEY: client, "result_extension": ".nii"}
        path, answer = self.tasks[model](sent)
        mask = read_volume(Path(path)).array.astype(np.int32)
        Path(path).unlink()
        return mask, answer

    def session(self, client: str) -> InteractiveSession:
        """The client's session as its next request finds them: what was saved since its last one is taken over."""
        with self.resources.histories.open((volume_key(self.image), client), SHAPE) as opened:
            predictor = self.resources.predictors.for_volume(self.volume, "axial")
            session = InteractiveSession(predictor, LABELS, history=opened.history)
            take_over_saved(session, self.resources.saved, "image", self.volume)
        return session

    def states(self, client: str) -> dict[str, LabelState]:
        return {name: state for name, state in self.session(client).states.items() if not state.is_empty}

    def masks(self, client: str) -> dict[str, NDArray[np.bool_]]:
        return {name: state.mask.unpack() for name, state in self.states(client).items()}

    def save(self, client: str) -> None:
        """Save what the client has segmented as Slicer's plug-in does, segments without voxels included."""
        mask, names = self.session(client).label_map()
        path = self.folder.parent / "saved.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, AFFINE), path)
        info = [{"name": name, "idx": value} for name, value in names.items()]
        self.datastore.save_label("image", str(path), "final", {"label_info": info, "client_id": client})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("requests") / "studies"
    folder.mkdir()
    return App(folder)


@pytest.fixture(autouse=True)
def _fresh(app: App) -> None:
    app.start_afresh()


def assert_same(one: dict[str, NDArray[np.bool_]], other: dict[str, NDArray[np.bool_]]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def on(label: str, k: int, di: int = 0, dj: int = 0) -> list[int]:
    i, j = CENTRES[label]
    return [i + di, j + dj, k]


def slicer(label: str, **points: list) -> dict[str, Any]:
    """A request for a label map, with the lists of all labels that the server offers."""
    return {**{name: points.get(name, []) for name in LABELS}, "label": label, "plane": "axial"}


def test_a_label_found_by_its_name_says_when_the_current_version_could_not_be_used(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "adapters")
    store.add(weights(1), training(None))  # of no model
    store.publish(1)
    conf = AppConf.from_conf({"prefetch_slices": 0, "adapter_bundle": str(app.folder.parent / "labels.safetensors")})
    monkeypatch.setattr(app, "resources", replace(app.resources, predictors=PredictorPool(conf, store)))
    app.restart()
    _, named = app.post("causal_sam", "somebody", {"label": "liver", "foreground": [], "background": []})
    assert named["version_problem"].startswith("v0001 cannot be loaded")
    assert named["message"].endswith(named["version_problem"])
    _, clicked = app.post("causal_sam", "somebody", {"label": "spleen", "foreground": [on("spleen", 2)]})
    assert "version_problem" not in clicked  # clicks are answered by the model as it came


class Person:
    """What a client remembers: its clicks, and whether it is Slicer or OHIF."""

    def __init__(self, name: str, is_ohif: bool) -> None:
        self.name, self.is_ohif = name, is_ohif
        self.points: dict[str, list[list[int]]] = {}
        self.background: dict[str, list[list[int]]] = {}

    def many(self, label: str) -> dict[str, Any]:
        if self.is_ohif:  # accumulates; no current label
            return {"background": self.background.get("", []), **{n: p for n, p in self.points.items() if p}}
        return slicer(label, **self.points)

    def one(self, label: str) -> dict[str, Any]:
        background = self.background.get(label, [])
        named = {"foreground": self.points.get(label, []), "background": background}
        return named if self.is_ohif else {"label": label, **named, "reset_state": True}


class Requests(RuleBasedStateMachine):
    """Two clients at one server, which may restart, while they may forget what they clicked."""

    app: App

    @initialize()
    def start(self) -> None:
        self.app.start_afresh()
        self.people = [Person("slicer", False), Person("ohif", True)]

    people_ = st.integers(0, 1)
    labels_ = st.sampled_from(LABELS)
    places_ = st.tuples(st.sampled_from(list(CENTRES)), st.integers(1, 3), st.integers(-6, 6), st.integers(-6, 6))

    def post(self, person: Person, model: str, label: str, request: dict[str, Any]) -> None:
        before = self.app.states(person.name)
        was = {name: state.mask.unpack() for name, state in before.items()}
        try:
            answered, answer = self.app.post(model, person.name, request)
        except InputError:  # nothing was clicked, or the same voxel inside and outside
            after = self.app.masks(person.name)
            assert after.keys() == was.keys()
            assert all((after[name] == was[name]).all() for name in was)
            return
        after = self.app.masks(person.name)
        named = {name: mask for name, mask in after.items() if not is_unnamed(name)}
        assert sum(mask.astype(int) for mask in named.values()).max(initial=0) <= 1 if named else True
        nothing = np.zeros(SHAPE, bool)
        gained = {name: mask & ~was.get(name, nothing) for name, mask in after.items()}
        own = (
            {name for name, points in request.items() if name in was and points}
            if "foreground" not in request
            else set()
        )
        for name, mask in was.items():
            is_own = name == label or (is_unnamed(name) and "foreground" in request and "label" not in request)
            if is_own or (person.is_ohif and name in own and request.get("background")):
                continue
            others = np.logical_or.reduce([nothing, *(gained[each] for each in gained if each != name)])
            lost = mask & ~after.get(name, nothing)
            assert not (lost & ~others).any(), f"{name} lost voxels that nobody gained"
            if name not in own:
                assert not gained.get(name, nothing).any(), f"{name} grew though nothing was said of it"
            inside = [
                p for each in (request.get("foreground", []), *(request.get(n, []) for n in LABELS)) for p in each
            ]
            if before[name].source is Source.ACCEPTED and not any(mask[tuple(point)] for point in inside):
                assert not lost.any(), f"accepted {name} lost voxels"
        if model.endswith("multilabel") and "foreground" not in request:
            names = answer["label_names"]
            assert set(np.unique(answered)) - {0} == {names[name] for name in named}
            for name, mask in named.items():
                np.testing.assert_array_equal(answered == names[name], mask)

    @rule(who=people_, label=labels_, k=st.integers(1, 3), many=st.booleans())
    def click_middle(self, who: int, label: str, k: int, many: bool) -> None:
        self.click(who, label, (label, k, 0, 0), many)

    @rule(who=people_, label=labels_, place=places_, many=st.booleans())
    def click(self, who: int, label: str, place: tuple, many: bool) -> None:
        person = self.people[who]
        points = person.points.setdefault(label, [])
        if (point := on(*place)) not in points:
            points.append(point)
        self.send(who, label, many)

    @rule(who=people_, label=labels_, other=labels_, k=st.integers(1, 3), save=st.booleans())
    def click_forget_and_click_another(self, who: int, label: str, other: str, k: int, save: bool) -> None:
        self.click_middle(who, label, k, many=True)
        if save:
            self.save(who)
        self.forget_clicks(who)
        self.click_middle(who, other, k, many=True)

    @rule(who=people_, label=labels_, place=places_, many=st.booleans())
    def click_outside(self, who: int, label: str, place: tuple, many: bool) -> None:
        person = self.people[who]
        key = "" if person.is_ohif and many else label
        if (point := on(*place)) not in person.background.setdefault(key, []):
            person.background[key].append(point)
        self.send(who, label, many)

    @rule(who=people_, label=labels_, many=st.booleans())
    def send(self, who: int, label: str, many: bool) -> None:
        person = self.people[who]
        request = person.many(label) if many else person.one(label)
        self.post(person, "causal_sam_multilabel" if many else "causal_sam", label, request)

    @rule(who=people_, label=labels_, many=st.booleans(), number=st.integers(0, 9))
    def take_back(self, who: int, label: str, many: bool, number: int) -> None:
        person = self.people[who]
        if points := person.points.get(label):
            del points[number % len(points)]
        self.send(who, label, many)

    @rule(who=people_, label=labels_, many=st.booleans())
    def reset(self, who: int, label: str, many: bool) -> None:
        person = self.people[who]
        request = {**(person.many(label) if many else person.one(label)), "reset": True}
        if not (many and person.is_ohif):  # which resets all of its labels
            self.post(person, "causal_sam_multilabel" if many else "causal_sam", label, request)

    @rule(who=people_)
    def forget_clicks(self, who: int) -> None:
        self.people[who].points, self.people[who].background = {}, {}

    @rule()
    def restart(self) -> None:
        before = [self.app.masks(person.name) for person in self.people]
        self.app.restart()
        for person, was in zip(self.people, before, strict=True):
            assert_same(self.app.masks(person.name), was)

    @rule(who=people_, label=labels_, many=st.booleans(), count=st.integers(1, 3))
    def undo_and_redo(self, who: int, label: str, many: bool, count: int) -> None:
        """Undo some steps, whatever the client's clicks are, and redo them, which gives the same masks again."""
        person = self.people[who]
        model = "causal_sam_multilabel" if many else "causal_sam"
        history = self.app.session(person.name).history
        shown = [self.app.masks(person.name)]
        for _ in range(min(count, history.position)):
            self.app.post(model, person.name, {**person.many(label), "label": label, "undo": True})
            shown.append(self.app.masks(person.name))
        for was in shown[-2::-1]:
            self.app.post(model, person.name, {**person.many(label), "label": label, "redo": True})
            assert_same(self.app.masks(person.name), was)

    @rule(who=people_)
    def save(self, who: int) -> None:
        name = self.people[who].name
        before = {label: mask for label, mask in self.app.masks(name).items() if not is_unnamed(label)}
        if not before:  # a label without a voxel is refused
            return
        self.app.save(name)
        saved = self.saved()
        assert {label for label, mask in saved.items() if mask.any()} == before.keys()
        for label, mask in before.items():
            np.testing.assert_array_equal(saved[label], mask)

    def saved(self) -> dict[str, NDArray[np.bool_]]:
        newest = self.app.resources.saved.newest("image")
        return {} if newest is None else self.app.resources.saved.masks(newest, self.app.volume)[0]


def test_a_saved_segment_without_voxels_erases_nothing_that_another_client_clicked(app: App) -> None:
    app.post("causal_sam", "mine", {"label": "liver", "foreground": [on("liver", 2)]})
    app.post("causal_sam", "theirs", {"label": "spleen", "foreground": [on("spleen", 2)]})
    app.save("theirs")  # names the liver too, without a voxel
    masks = app.masks("mine")
    assert masks.keys() == {"liver", "spleen"}
    # What was accepted and then brushed away is gone.
    app.save("mine")
    app.post("causal_sam", "mine", {"label": "liver", "foreground": [on("liver", 2)]})
    app.post("causal_sam", "theirs", {"label": "liver", "foreground": [], "reset": True})
    app.save("theirs")
    assert app.masks("mine").keys() == {"spleen"}


def test_organs_keeps_what_somebody_made_and_replaces_what_it_found(app: App) -> None:
    found, answer = app.post("causal_sam_organs", "me", {"organs": ""})
    assert answer["kept"] == []
    assert found.any()
    # Clicked, of a name of the client's own, and accepted.
    app.post("causal_sam", "me", {"label": "liver", "foreground": [on("liver", 2)], "reset": True})
    app.post("causal_sam", "me", {"label": OTHER, "foreground": [on(OTHER, 2)]})
    before = app.masks("me")
    mask, answer = app.post("causal_sam_organs", "me", {"organs": "liver, spleen, kidney", "replace": False})
    assert answer["kept"] == ["liver"]
    assert "kept as somebody made or corrected them: liver (the option replace" in answer["message"]
    names = answer["label_names"]
    assert names == {"liver": 1, "spleen": 2, "kidney": 3, OTHER: 4}
    for name in ("liver", OTHER):
        np.testing.assert_array_equal(mask == names[name], before[name])
    # The save that follows keeps all of them, and what was accepted is kept too, also for the next client.
    app.save("me")
    app.restart()
    again, answer = app.post("causal_sam_organs", "another", {})
    np.testing.assert_array_equal(again, mask)
    assert set(answer["kept"]) == {name for name in LABELS if (mask == names[name]).any()}
    replaced, answer = app.post("causal_sam_organs", "another", {"replace": True})
    assert answer["kept"] == []
    np.testing.assert_array_equal(replaced == names[OTHER], before[OTHER])
    np.testing.assert_array_equal(replaced == 1, (found == 1) & ~before[OTHER])
    # A name alone does not replace a mask that somebody made either.
    app.post("causal_sam", "me", {"label": "liver", "foreground": [on("liver", 3)]})
    with pytest.raises(InputError, match="liver has a mask already"):
        app.post("causal_sam", "me", {"label": "liver", "foreground": []})


def test_a_click_inside_of_an_accepted_label_takes_a_part_of_it_and_one_beside_does_not(app: App) -> None:
    app.post("causal_sam_multilabel", "me", slicer("liver", liver=[on("liver", 2)]))
    app.save("me")
    liver = app.masks("me")["liver"]
    _, answer = app.post("causal_sam_multilabel", "me", {**slicer("spleen", spleen=[on("spleen", 2)]), "roi": None})
    np.testing.assert_array_equal(app.masks("me")["liver"], liver)
    place = on("liver", 2, 4)
    mask, answer = app.post("causal_sam_multilabel", "me", slicer("spleen", spleen=[on("spleen", 2), place]))
    assert mask[tuple(place)] == answer["label_names"]["spleen"]
    np.testing.assert_array_equal(mask == 1, liver & (mask != 2))


def test_undo_and_redo_are_options_of_every_task(app: App) -> None:
    first, _ = app.post("causal_sam", "me", {"label": "liver", "foreground": [on("liver", 2)]})
    second, _ = app.post("causal_sam", "me", {"label": "liver", "foreground": [on("liver", 2), on("liver", 3)]})
    found, _ = app.post("causal_sam_organs", "me", {"organs": "spleen"})
    undone, answer = app.post("causal_sam_organs", "me", {"organs": "", "undo": True})
    assert answer["message"] == "Undone: automatic segmentation of spleen."
    np.testing.assert_array_equal(undone == 1, second > 0)
    app.restart()
    click = {"label": "liver", "foreground": [on("liver", 2), on("liver", 3)]}
    undone, answer = app.post("causal_sam", "me", {**click, "undo": True})
    np.testing.assert_array_equal(undone, first)
    assert (answer["undone"], answer["message"]) == ("liver", "Undone: prompts for liver.")
    assert answer["label_names"] == {"liver": 1}
    lists, answer = app.post("causal_sam_multilabel", "me", {**slicer("liver"), "undo": True})
    assert not lists.any()
    with pytest.raises(InputError, match="nothing to undo"):
        app.post("causal_sam", "me", {**click, "undo": True})
    for model, task in app.tasks.items():
        assert (task.config()["undo"], task.config()["redo"]) == (False, False), model
    for before in (first, second):
        redone, answer = app.post("causal_sam", "me", {"label": "liver", "redo": True})
        np.testing.assert_array_equal(redone, before)
        assert answer["message"] == "Redone: prompts for liver."
    redone, _ = app.post("causal_sam_organs", "me", {"redo": True})
    np.testing.assert_array_equal(redone, found)
    with pytest.raises(InputError, match="nothing to redo"):
        app.post("causal_sam", "me", {"label": "liver", "redo": True})


def test_undo_without_a_label_name_shows_the_mask_as_it_was(app: App) -> None:
    first, _ = app.post("causal_sam", "ohif", {"foreground": [on("liver", 2)]})
    clicks = {"foreground": [on("liver", 2), on("liver", 3)]}
    app.post("causal_sam", "ohif", clicks)
    undone, answer = app.post("causal_sam", "ohif", {**clicks, "undo": True})
    np.testing.assert_array_equal(undone, first)
    assert answer["message"] == "Undone: prompts for the structure."
    nothing, _ = app.post("causal_sam", "ohif", {**clicks, "undo": True})
    assert not nothing.any()


def test_locked_labels_stay_as_they_are_until_the_client_says_otherwise(app: App) -> None:
    app.post("causal_sam", "me", {"label": "liver", "foreground": [on("liver", 2)]})
    liver = app.masks("me")["liver"]
    inside = {"label": "spleen", "foreground": [on("liver", 2)]}
    _, answer = app.post("causal_sam", "me", inside)
    lost = np.count_nonzero(liver & app.masks("me")["spleen"]) * app.volume.voxel_ml
    assert f"took {lost:.1f} ml from liver: undo and lock it" in answer["message"]
    app.post("causal_sam", "me", {**inside, "undo": True})
    _, answer = app.post("causal_sam", "me", {**inside, "locked": ["Liver"]})
    assert "nothing of liver was taken, which is locked" in answer["message"]
    app.restart()
    app.post("causal_sam", "me", inside)  # it is remembered
    np.testing.assert_array_equal(app.masks("me")["liver"], liver)
    with pytest.raises(InputError, match="liver is locked"):
        app.post("causal_sam", "me", {"label": "liver", "foreground": [on("liver", 3)]})
    _, answer = app.post("causal_sam_organs", "me", {"replace": True})
    assert answer["kept"] == ["liver"]
    app.post("causal_sam", "me", {**inside, "reset": True, "locked": []})
    assert app.masks("me")["spleen"][tuple(on("liver", 2))]
    app.post("causal_sam", "me", {"label": "spleen", "undo": True})  # also the unlocking
    np.testing.assert_array_equal(app.masks("me")["liver"], liver)
    assert app.session("me").locked == {"liver"}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("examples", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_a_request_changes_its_label_and_of_others_what_that_gains(app: App, examples: int) -> None:
    Requests.app = app
    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
