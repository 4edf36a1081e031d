"""The next study: of a real data store, with the real model, which learned labels at random."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
from monailabel.interfaces.datastore import Datastore
from untrained_labels import write_untrained_bundle

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.scores import Score, Scores, Stamp
from causal_sam.style import describe
from causal_sam.text import TextEncoder, load_text_encoder
from serving.conf import AppConf
from serving.data.folder_store import FolderStore
from serving.data.images import ImageFinder, ImageRef
from serving.models import PredictorPool
from strategies.background import MAX_FETCHED, StudyScorer
from strategies.random_study import RandomStudy
from strategies.studies import Studies
from strategies.style_aware import HELD_SECONDS, StyleAware

SHAPE = (40, 36, 9)
AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
SLICER = {"strategy": "style_aware", "client_id": "user-xyz"}
OTHER = {"strategy": "style_aware", "client_id": "user-abc"}


def ct(seed: int) -> np.ndarray:
    array = np.full(SHAPE, -1000.0)
    array[5:35, 5:31] = np.random.default_rng(seed).normal(40, 10, (30, 26, 9))
    return array.astype(np.int16)


def mr(seed: int) -> np.ndarray:
    return np.where(ct(seed) > -500, 3 * ct(seed) + 500, 0).astype(np.int16)


def save(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder()


@pytest.fixture
def pool(tmp_path: Path) -> PredictorPool:
    conf = AppConf.from_conf({"adapter_bundle": str(tmp_path / "taught.safetensors"), "device": "cpu"})
    return PredictorPool(conf, AdapterStore(tmp_path / "adapters"))


@dataclass
class SitePaths:
    folder: Path
    store: Datastore
    scores: Scores
    scorer: StudyScorer
    strategy: StyleAware

    def ask(self, request: dict) -> dict:
        """Ask as the server does, which then writes down who got what."""
        answer = self.strategy(request, self.store)
        if answer:
            given = {"style_aware": {"ts": int(time.time()), "client_id": request.get("client_id")}}
            self.store.update_image_info(answer["id"], {"strategy": given})
        return answer

    def accept(self, image_id: str) -> None:
        path = self.folder.parent / "label.nii.gz"
        save(path, np.ones(SHAPE, np.uint8))
        self.store.save_label(image_id, str(path), "final", {"label_info": [{"name": "liver", "idx": 1}]})


@pytest.fixture
def site(tmp_path: Path, pool: PredictorPool, encoder: TextEncoder) -> Iterator[Callable[..., SitePaths]]:
    made: list[StudyScorer] = []

    def make(**images: np.ndarray) -> SitePaths:
        folder = tmp_path / "studies"
        folder.mkdir(exist_ok=True)
        for name, array in images.items():
            save(folder / f"{name}.nii.gz", array)
        store = FolderStore(str(folder), auto_reload=False)
        scores = Scores(folder / "scores.sqlite")
        studies = Studies(store, ImageFinder(store, str(folder)).find)
        scorer = StudyScorer(studies, scores, pool, lambda volume: describe(volume).sentence, lambda: encoder)
        made.append(scorer)
        strategy = StyleAware(studies, scores, scorer)
        # The thread would do at any time what these tests do at a certain one.
        scorer.start = lambda: None
        return SitePaths(folder, store, scores, scorer, strategy)

    yield make
    for scorer in made:
        scorer.stop()


def test_what_clients_say_of_images_stops_no_strategy(site) -> None:
    here = site(ct1=ct(1))
    for records in (5, "x", [1], {"random": 5}, {"random": None}):
        with pytest.raises(InputError, match="strategy"):
            here.store.update_image_info("ct1", {"strategy": records})
    for record in ({}, {"ts": "x"}, {"ts": None}, {"ts": -1}, {"ts": 10**15}, {"ts": time.time(), "client_id": [1]}):
        here.store.update_image_info("ct1", {"strategy": {"random": record, "style_aware": record}})
        # The only study that is left, given again in the same second.
        assert RandomStudy(here.strategy._studies)({}, here.store)["id"] == "ct1"
        assert here.strategy(SLICER, here.store).get("id", "ct1") == "ct1"


def test_styles_unlike_the_accepted_ones_come_first(site) -> None:
    here = site(ct1=ct(1), ct2=ct(2), ct3=ct(3), mr1=mr(4))
    here.accept("ct1")
    here.scorer.run_pass()
    first = here.ask(SLICER)
    assert first["id"] == "mr1"
    assert 0 < first["weight"] <= 1
    assert first["why"] in ("It looks least like the cases accepted so far.", "No accepted case looks like it.")
    here.accept("mr1")
    here.scorer.run_pass()
    assert here.ask(SLICER)["id"] == "ct2"


def test_uncertainty_decides_among_images_that_look_alike(site) -> None:
    here = site(a=ct(1), b=ct(1), c=ct(1))
    here.scorer.run_pass()
    for name, uncertainty in (("a", 0.2), ("b", 0.6), ("c", 0.4)):
        score = here.scores.get(name)
        here.scores.put(name, Score(score.stamp, score.style, "v1", uncertainty))
    answer = here.ask(SLICER)
    assert answer["id"] == "b"
    assert answer["why"] == "No accepted case looks like it, and the model is unsure of its labels in it."
    # What is being labelled by another counts as labelled already, so the distance to it is none.
    assert here.ask(OTHER)["id"] == "c"


def test_what_was_computed_is_found_again_and_done_again_when_the_model_or_the_image_changed(
    site, tmp_path: Path, pool: PredictorPool
) -> None:
    here = site(a=ct(1), b=mr(2))
    here.scorer.run_pass()
    assert {each.uncertainty for each in here.scores.all().values()} == {None}
    write_untrained_bundle(tmp_path / "taught.safetensors", seed=1)
    here.scorer.run_pass()
    first = here.scores.all()
    assert {each.taught for each in first.values()} == {pool.current_bundle().labels.digest}
    assert all(0 < each.uncertainty < 1 for each in first.values())
    again = site()
    again.scorer.run_pass()
    assert again.scores.all() == first
    write_untrained_bundle(tmp_path / "taught.safetensors", seed=2)
    again.scorer.run_pass()
    second = again.scores.all()
    assert {each.taught for each in second.values()} == {pool.current_bundle().labels.digest} != {first["a"].taught}
    save(here.folder / "a.nii.gz", mr(3))
    again.scorer.run_pass()
    assert again.scores.get("a").style != second["a"].style
    assert again.scores.get("b") == second["b"]


def test_what_was_taught_but_cannot_be_read_leaves_the_styles(site, tmp_path: Path, caplog) -> None:
    (tmp_path / "taught.safetensors").write_bytes(b"damaged")
    here = site(a=ct(1), b=mr(2))
    here.accept("a")
    for _ in range(2):
        here.scorer.run_pass()
    assert caplog.text.count("Studies are chosen by their styles alone") == 1
    answer = here.ask(SLICER)
    assert answer["id"] == "b"
    assert "the model is" not in answer["why"]


def test_accepted_images_get_a_style_and_no_uncertainty(site, tmp_path: Path) -> None:
    write_untrained_bundle(tmp_path / "taught.safetensors", seed=1)
    here = site(a=ct(1))
    here.accept("a")
    here.scorer.run_pass()
    score = here.scores.get("a")
    assert "CT image" in score.style
    assert (score.uncertainty, score.taught) == (None, None)


def test_nothing_left_is_an_empty_answer(site, caplog) -> None:
    caplog.set_level(logging.INFO)
    here = site(a=ct(1))
    here.accept("a")
    assert here.ask(SLICER) == {}
    assert "No study is left: 0 have no label" in caplog.text
    assert site().strategy(SLICER, here.store) == {}


def test_a_client_gets_its_study_again_until_it_is_accepted(site) -> None:
    here = site(a=ct(1), b=ct(2), c=mr(3))
    here.scorer.run_pass()
    first = here.ask(SLICER)["id"]
    again = here.ask(SLICER)
    assert again["id"] == first
    assert again["why"] == "It was given to you before, and has no accepted label yet."
    assert here.ask(OTHER)["id"] != first
    here.accept(first)
    assert here.ask(SLICER)["id"] != first


def test_what_comes_next_is_known_before_it_is_asked_for_and_given_to_nobody(site) -> None:
    here = site(a=ct(1), b=ct(2), c=mr(3))
    here.scorer.run_pass()
    first = here.ask(SLICER)["id"]
    following = here.strategy.next_after(first, SLICER["client_id"])
    assert following not in (None, first)
    here.accept(first)
    assert here.ask(OTHER)["id"] == following  # nobody holds it
    (left,) = {"a", "b", "c"} - {first, following}
    here.accept(following)
    assert here.strategy.next_after(left, None) is None


def test_what_others_label_is_given_only_if_nothing_else_is_left(site) -> None:
    here = site(a=ct(1), b=ct(2))
    here.scorer.run_pass()
    first, second = here.ask(SLICER)["id"], here.ask(OTHER)["id"]
    assert {first, second} == {"a", "b"}
    third = here.ask({**SLICER, "client_id": "third"})
    assert third["id"] == first  # that was given out first
    assert "being labelled" in third["why"]
    assert "user-xyz" in third["why"]


def test_other_strategies_hold_studies_too_and_half_an_hour_frees_them(site) -> None:
    here = site(a=ct(1), b=ct(1))
    here.scorer.run_pass()
    now = int(time.time())
    here.store.update_image_info("a", {"strategy": {"random": {"ts": now, "client_id": "user-abc"}}})
    assert here.ask(SLICER)["id"] == "b"
    old = now - HELD_SECONDS - 1
    for name in ("a", "b"):
        here.store.update_image_info(name, {"strategy": {"random": {"ts": old, "client_id": "user-abc"}}})
    assert here.strategy({**SLICER, "client_id": "third"}, here.store)["id"] == "a"


def test_two_who_ask_at_once_get_two_studies_though_nothing_was_written_down_yet(site) -> None:
    here = site(a=ct(1), b=ct(1))
    here.scorer.run_pass()
    assert here.strategy(SLICER, here.store)["id"] != here.strategy(OTHER, here.store)["id"]


def test_broken_studies_are_never_given_and_the_log_says_why(site, caplog) -> None:
    here = site(good=ct(1), aaa_broken=ct(2))
    path = here.folder / "aaa_broken.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    # Before anything is known, and after.
    assert here.ask(SLICER)["id"] == "good"
    assert "aaa_broken is not offered for labelling: aaa_broken.nii.gz is not a readable NIfTI file" in caplog.text
    here.scorer.run_pass()
    assert here.scores.get("aaa_broken").failure is not None
    here.accept("good")
    assert here.ask(SLICER) == {}
    save(path, ct(2))  # it was put right
    assert here.ask(SLICER)["id"] == "aaa_broken"


def test_a_file_that_vanished_is_not_given(site) -> None:
    here = site(a=ct(1), b=ct(2))
    here.scorer.run_pass()
    (here.folder / "a.nii.gz").unlink()
    assert here.ask(SLICER)["id"] == "b"


def test_what_is_not_known_comes_after_what_is(site) -> None:
    here = site(a=ct(1), b=ct(2), c=ct(3))
    known = here.folder / "c.nii.gz"
    here.scores.put("c", Score(Stamp.of(known), "A CT image."))
    assert here.ask(SLICER)["id"] == "c"
    assert here.ask(OTHER)["id"] == "a"


def test_an_image_that_cannot_be_described_is_given_last(site, caplog) -> None:
    here = site(a=ct(1), b=ct(2))

    def fails_for_a(volume: Volume) -> str:
        if volume.array[20, 20, 4] == ct(1)[20, 20, 4]:
            raise ZeroDivisionError
        return describe(volume).sentence

    here.scorer._describe = fails_for_a
    here.scorer.run_pass()
    assert here.scores.get("a") == Score(Stamp.of(here.folder / "a.nii.gz"))
    assert [here.ask(SLICER)["id"], here.ask(OTHER)["id"]] == ["b", "a"]


def test_the_thread_does_it_by_itself_and_ends_when_told(site) -> None:
    here = site(a=ct(1), b=mr(2))
    del here.scorer.start
    here.scorer.start()
    deadline = time.monotonic() + 120
    while len(here.scores.all()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(Scores(here.folder / "scores.sqlite").all()) == 2
    here.scorer.stop()
    assert not here.scorer._thread.is_alive()


class Archive:
    """In the place of a data store whose images are on a server, and are fetched one by one."""

    def __init__(self, folder: Path, images: list[str]) -> None:
        self.folder, self.images, self.fetched, self.is_down = folder, images, [], False

    def get_unlabeled_images(self, label_tag=None, labels=None) -> list[str]:
        if self.is_down:
            raise requests.ConnectionError("no route to host")
        return list(self.images)

    def get_image_info(self, image_id: str) -> dict:
        return {}

    def find(self, image_id: str) -> ImageRef:
        self.fetched.append(image_id)
        path = self.folder / f"{image_id}.nii.gz"
        save(path, ct(len(self.fetched)))
        return ImageRef(path, image_id)


def test_an_archive_is_not_fetched_as_a_whole(tmp_path: Path, pool: PredictorPool, encoder: TextEncoder) -> None:
    archive = Archive(tmp_path, [f"1.2.{n}" for n in range(MAX_FETCHED + 20)])
    scores, studies = Scores(tmp_path / "scores.sqlite"), Studies(archive, archive.find)
    scorer = StudyScorer(studies, scores, pool, lambda volume: "A CT image.", lambda: encoder)
    strategy = StyleAware(studies, scores, scorer)
    scorer.start = lambda: None
    for _ in range(2):
        scorer.run_pass()
        assert len(archive.fetched) == len(set(archive.fetched)) == MAX_FETCHED
    # What is here already is given, and nothing is fetched while a client waits.
    assert strategy(SLICER, archive)["id"] in archive.fetched
    assert len(archive.fetched) == MAX_FETCHED
    archive.is_down = True
    with pytest.raises(requests.ConnectionError):
        scorer.run_pass()
    assert len(scores.all()) == MAX_FETCHED
