"""The data store of a folder beside a naive model of it, for any sequence of what clients and operators do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from shared_store import SHAPE, named, opened, save

from causal_sam.site.accepted import accepted_labels
from serving.data.folder_store import FolderStore

IDS = st.sampled_from(["1.2.175", "1.2.176", "case", "case.nrrd", "with blank"])
TAGS = st.sampled_from(["final", "original"])
VALUES = st.integers(1, 200)


class StoreMachine(RuleBasedStateMachine):
    """Saves, sends again, deletes, restarts; two servers share the folder."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "studies"
        self.stores = [self._opened(), self._opened()]
        self.images: dict[str, int] = {}
        # The value that is in the file, and in the name; None for a label without a name.
        self.labels: dict[tuple[str, str], tuple[int, int | None]] = {}
        self.aside: dict[tuple[str, str], tuple[int, int | None]] = {}

    def _opened(self) -> FolderStore:
        return opened(self.folder)

    @rule(image_id=IDS, value=VALUES, server=st.integers(0, 1))
    def add_image(self, image_id: str, value: int, server: int) -> None:
        assert self.stores[server].add_image(image_id, str(save(self.root / "image.nii.gz", value)), {}) == image_id
        self.images[image_id] = value
        for key in [key for key in self.aside if key[0] == image_id]:
            del self.aside[key]

    @precondition(lambda self: self.images)
    @rule(data=st.data(), tag=TAGS, value=VALUES, server=st.integers(0, 1))
    def save_label(self, data: st.DataObject, tag: str, value: int, server: int) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.images)))
        self.stores[server].save_label(image_id, str(save(self.root / "label.nii.gz", value)), tag, named(value))
        self.labels[image_id, tag] = value, value
        self.aside.pop((image_id, tag), None)

    @precondition(lambda self: self.labels)
    @rule(data=st.data(), server=st.integers(0, 1))
    def remove_label(self, data: st.DataObject, server: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.labels)))
        self.stores[server].remove_label(*key)
        del self.labels[key]

    @precondition(lambda self: self.images)
    @rule(data=st.data(), server=st.integers(0, 1))
    def remove_image(self, data: st.DataObject, server: int) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.images)))
        self.stores[server].remove_image(image_id)
        del self.images[image_id]
        for labels in (self.labels, self.aside):
            for key in [key for key in labels if key[0] == image_id]:
                del labels[key]

    @precondition(lambda self: self.labels)
    @rule(data=st.data())
    def take_file_away(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.labels)))
        self._file(*key).unlink()
        self.aside[key] = self.labels.pop(key)
        self.stores[0].list_images()  # somebody looks, so it is noticed

    @precondition(lambda self: self.aside)
    @rule(data=st.data(), same=st.booleans())
    def put_file_back(self, data: st.DataObject, same: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.aside)))
        value, name = self.aside.pop(key)
        made = save(self.root / "back.nii.gz", value if same else 201)
        if same and name is not None:  # the very bytes: as the store writes them
            shutil.copy(self._written(value), self._file(*key))
        else:
            shutil.copy(made, self._file(*key))
            name = None
        self.labels[key] = (value if same else 201), name
        self.stores[1].list_images()

    @rule(server=st.integers(0, 1))
    def restart(self, server: int) -> None:
        self.stores[server] = self._opened()

    @rule()
    def lose_the_index(self) -> None:
        (self.folder / "datastore_v2.json").unlink()
        self.stores[0].list_images()  # a server that runs writes it again

    def _file(self, image_id: str, tag: str) -> Path:
        return self.folder / "labels" / tag / f"{image_id}.nii.gz"

    def _written(self, value: int) -> Path:
        """A label file as the store writes it."""
        with tempfile.TemporaryDirectory() as elsewhere:
            folder = Path(elsewhere) / "studies"
            folder.mkdir()
            save(folder / "x.nii.gz", 0)
            store = opened(folder)
            store.save_label("x", str(save(Path(elsewhere) / "label.nii.gz", value)), "final", named(value))
            return Path(shutil.copy(store.get_label_uri("x", "final"), self.root / "written.nii.gz"))

    @invariant()
    def everything_is_there(self) -> None:
        for store in self.stores:
            assert sorted(store.list_images()) == sorted(self.images)
            found = {(image_id, tag) for image_id, entry in store.objects().items() for tag in entry.labels}
            assert found == set(self.labels)
            for image_id, value in self.images.items():
                assert nibabel.load(store.get_image_uri(image_id)).dataobj[0, 0, 0] == value
            for (image_id, tag), (value, name) in self.labels.items():
                with store.open_label(image_id, tag) as (path, info):
                    array = np.asarray(nibabel.load(path).dataobj)
                assert array.shape == SHAPE
                assert (array == value).all()
                assert info.get("label_info") == (None if name is None else named(name)["label_info"])
        assert {label.image_id for label in accepted_labels(self.folder)} == {
            image_id for image_id, tag in self.labels if tag == "final"
        }

    def teardown(self) -> None:
        shutil.rmtree(self.root)


ANYTHING = list(HealthCheck)  # files take their time


def test_any_sequence_of_acts() -> None:
    steps = settings(max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=ANYTHING)
    run_state_machine_as_test(StoreMachine, settings=steps)


@pytest.mark.slow
def test_many_sequences_of_acts() -> None:
    steps = settings(max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=ANYTHING)
    run_state_machine_as_test(StoreMachine, settings=steps)
