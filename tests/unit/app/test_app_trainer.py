"""The trainer of the app: its options, what clients see of it, and that what it publishes is used at once."""

from __future__ import annotations

import fcntl
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from kill_store import training, weights
from pydicom import Dataset

from causal_sam.errors import CausalSamError, CheckpointError, InputError, NotFoundError
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import TRAINING, Progress, UpdateConfig
from causal_sam.site.update import Outcome
from serving import models, task_process
from serving.conf import AppConf
from serving.data.dicomweb_store import DicomWebStore
from serving.data.folder_store import FolderStore
from serving.models import PredictorPool, with_problem
from trainers import adapters
from trainers.adapters import AdaptersTrainTask, config_of

# What the server hands to the trainer after OHIF's "Update Model" and after Slicer's training tab: each client's own
# request, and what MONAI Label puts beside it.
OHIF = {
    "model": "adapters",
    "minutes": "0.5",
    "max_epochs": 0,
    "lad": True,
    "adapters": {"minutes": "0.5", "max_epochs": 0, "lad": True},
    "gpus": "all",
    "local_rank": 0,
}
SLICER = {
    "model": "adapters",
    "minutes": "20",
    "max_epochs": "3",
    "learning_rate": "0.001",
    "labels": "liver, spleen,",
    "replay": "0.25",
    "lad": False,
    "processes": "1",
    "name": "train_01",
    "pretrained": True,
    "train_batch_size": 1,
    "dataset": "SmartCacheDataset",
    "multi_gpu": True,
    "client_id": "user-xyz",
    "gpus": "all",
}


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "versions")


@pytest.fixture
def task(store: AdapterStore) -> AdaptersTrainTask:
    return AdaptersTrainTask(AppConf(device="cpu"), store)


@pytest.fixture
def datastore(tmp_path: Path) -> FolderStore:
    (tmp_path / "studies").mkdir()
    return FolderStore(str(tmp_path / "studies"), extensions=["*.nii.gz"], auto_reload=False)


def test_the_options_are_what_an_update_does_by_default(task: AdaptersTrainTask) -> None:
    assert config_of(task.config()) == config_of({}) == UpdateConfig()
    assert {type(value) for value in task.config().values()} == {int, float, bool, str}
    assert task.info()["config"]["minutes"] == 10.0


def test_requests_of_both_clients_are_understood() -> None:
    assert config_of(OHIF) == UpdateConfig(minutes=0.5)
    changed = {"minutes": 20.0, "epochs": 3, "learning_rate": 0.001, "labels": ("liver", "spleen"), "replay": 0.25}
    assert config_of(SLICER) == UpdateConfig(lad=False, **changed)
    assert config_of({"labels": ["liver"], "minutes": None, "lad": ""}) == UpdateConfig(labels=("liver",))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"minutes": "soon"}, "minutes must be a number, not 'soon'."),
        ({"minutes": "nan"}, "minutes must be a number, not 'nan'."),
        ({"minutes": True}, "minutes must be a number, not true."),
        ({"minutes": [1]}, "minutes must be a number"),
        ({"minutes": -1}, "An update needs minutes above 0 and at most 10080, not"),
        ({"max_epochs": "1.5"}, "max_epochs must be a whole number, not '1.5'."),
        ({"replay": 1}, "replay must be at least 0 and below 1"),
        ({"learning_rate": 0}, "learning_rate and adapter_rate must be above 0 and at most 1, not 0.0"),
        ({"lad": "perhaps"}, "lad must be true or false"),
        ({"labels": {"liver": 1}}, "labels must be text of at most 1000 printable characters, not an object."),
        ({"device": "gpu"}, "device must be auto, cpu, cuda, cuda:N or mps, not 'gpu'."),
        ({"processes": 1000}, "processes must be 0 to"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    task: AdaptersTrainTask, datastore: FolderStore, request_: dict, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        task(request_, datastore)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_data_stores_are_refused(task: AdaptersTrainTask) -> None:
    with pytest.raises(InputError, match="a local folder of studies or a DICOMweb server only"):
        task({}, SimpleNamespace())


def test_it_learns_from_the_folder_of_the_data_store(
    task: AdaptersTrainTask, datastore: FolderStore, store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def update(*arguments) -> Outcome:
        asked.append(arguments)
        return Outcome("nothing", "There is nothing to learn.")

    monkeypatch.setattr(adapters, "update", update)
    assert task(SLICER, datastore)["message"] == "There is nothing to learn."
    ((site, config, processes, _),) = asked
    assert (site.data, site.store) == (Path(datastore._datastore_path), store.folder)
    assert (site.model, site.device, site.values) == ("compact", "cpu", {})  # names are not guessed
    assert (config, processes) == (config_of(SLICER), 1)


def test_what_clients_see_of_an_update(task: AdaptersTrainTask, store: AdapterStore) -> None:
    # OHIF and Slicer show what has no total_time as running.
    assert task.stats() == {
        "epoch": 0,
        "total_epochs": 100,
        "phase": None,
        "message": "",
        "version": None,
        "total_time": "0:00:00",
    }
    store.add(weights(1), training(None, metrics={"liver": 0.8, "spleen": 0.5}))
    store.publish(1)
    folder = store.folder / TRAINING
    folder.mkdir()
    progress = Progress(folder, lambda line: None)
    progress("training", 0.42, "Training: 42% done.")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = task.stats()
    assert (running["epoch"], running["phase"], running["message"]) == (42, "training", "Training: 42% done.")
    assert (running["best_metric"], running["version"]) == (0.65, 1)
    assert "total_time" not in running
    stopped = task.stats()  # its process was killed, which is all that ends the lock
    assert (stopped["phase"], stopped["total_time"]) == ("stopped", "0:00:00")
    assert "was stopped" in stopped["message"]
    progress("published", 1.0, "v0001 was published.")
    done = task.stats()
    assert (done["epoch"], done["phase"], done["message"]) == (100, "published", "v0001 was published.")
    assert "total_time" in done


def test_a_damaged_store_does_not_hide_the_rest(task: AdaptersTrainTask, store: AdapterStore) -> None:
    store.add(weights(1), training(None))
    store.publish(1)
    (store.folder / "v0001" / "manifest.json").chmod(0o644)
    (store.folder / "v0001" / "manifest.json").write_text("{")
    assert "best_metric" not in task.stats()
    assert task.stats()["total_epochs"] == 100


class Loader:
    """Stands in for what loads adapter bundles, which would need weights of a real model."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.fails: set[str] = set()

    def read(self, path: Path) -> SimpleNamespace:
        labels = SimpleNamespace(path=path, metadata=SimpleNamespace(names=("liver",)))
        return SimpleNamespace(labels=labels, film=None)

    def from_bundle(self, bundle: SimpleNamespace, model: object) -> SimpleNamespace:
        folder = bundle.labels.path.parent.name
        self.loaded.append(folder)
        if folder in self.fails:
            raise CheckpointError("These weights belong to another model.")
        return bundle.labels


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    loader = Loader()
    monkeypatch.setattr(models, "LabelPrompter", loader)
    monkeypatch.setattr(models.AdapterBundle, "read", loader.read)
    monkeypatch.setattr(PredictorPool, "base", lambda self: SimpleNamespace(model=None))
    return loader


@pytest.fixture
def publish(store: AdapterStore) -> Callable[[], int]:
    def published() -> int:
        parent = store.current()
        number = store.add(weights(1), training(parent)).number
        store.publish(number)
        return number

    return published


def damage(store: AdapterStore, number: int) -> None:
    path = store.version(number).adapter
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:50])


def test_a_version_is_used_once_it_is_published(
    store: AdapterStore, loader: Loader, publish: Callable[[], int]
) -> None:
    pool = PredictorPool(AppConf(), store)
    assert pool.current_bundle() is None
    publish()
    first = pool.current_bundle()
    assert (first.version, loader.loaded) == (1, ["v0001"])
    assert pool.current_bundle() is first
    publish()
    second = pool.current_bundle()
    assert (second.version, loader.loaded) == (2, ["v0001", "v0002"])
    assert first.version == 1  # a request that has begun keeps what it has
    store.roll_back(1)
    assert pool.current_bundle().version == 1


def test_a_version_counts_before_the_file_of_the_configuration(
    store: AdapterStore, loader: Loader, publish: Callable[[], int], tmp_path: Path
) -> None:
    file = tmp_path / "by hand" / "labels.safetensors"
    pool = PredictorPool(AppConf(adapter_bundle=(file,)), store)
    assert pool.current_bundle() is None
    file.parent.mkdir()
    file.write_bytes(b"one")
    assert pool.current_bundle().version is None
    assert pool.current_bundle().labels.path == file
    file.write_bytes(b"another")
    pool.current_bundle()
    pool.current_bundle()
    assert loader.loaded == ["by hand", "by hand"]
    publish()
    assert pool.current_bundle().version == 1


def test_while_the_current_version_is_damaged_its_parent_stands_in(
    store: AdapterStore, loader: Loader, publish: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    damage(store, publish())
    pool = PredictorPool(AppConf(), store)
    first = pool.current_bundle()
    assert first.version == 1
    assert pool.current_bundle() is first
    assert loader.loaded == ["v0001"]
    assert "v0002 is damaged" in caplog.text
    assert "Until then v0001 is used" in caplog.text
    assert "v0002 is damaged" in pool.problem
    assert with_problem({"message": "liver: 5.0 ml."}, pool.problem)["message"].endswith("which it was trained from.")


def test_what_was_loaded_stays_when_the_next_cannot_be(
    store: AdapterStore, loader: Loader, publish: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    pool = PredictorPool(AppConf(), store)
    publish()
    first = pool.current_bundle()
    loader.fails.add("v0002")
    publish()
    for _ in range(4):
        assert pool.current_bundle() is first
    # Once more with the next request, then after a pause.
    assert loader.loaded == ["v0001", "v0002", "v0002"]
    said = "v0002 cannot be loaded (These weights belong to another model). v0001 stays in use."
    assert pool.problem == said
    assert caplog.text.count(said) == 1
    publish()
    assert pool.current_bundle().version == 3
    assert pool.problem is None


def test_a_failure_to_load_that_passes_is_over_with_a_later_request(
    store: AdapterStore,
    loader: Loader,
    publish: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = PredictorPool(AppConf(), store)
    publish()
    loader.fails.add("v0001")
    assert pool.current_bundle() is None
    assert pool.problem == "v0001 cannot be loaded (These weights belong to another model). No version is in use."
    loader.fails.clear()
    assert pool.current_bundle().version == 1
    assert pool.problem is None
    loader.fails.add("v0002")
    publish()
    now = 0.0
    monkeypatch.setattr(models, "time", SimpleNamespace(monotonic=lambda: now))
    tries = []
    for second in range(300):
        now += 1
        before = len(loader.loaded)
        assert pool.current_bundle().version == 1
        tries.extend([second] * (len(loader.loaded) - before))
    assert tries[:5] == [0, 1, 2, 5, 12]
    assert max(later - earlier for earlier, later in itertools.pairwise(tries)) <= models.MAX_PAUSE_SECONDS + 1
    loader.fails.clear()
    now += models.MAX_PAUSE_SECONDS
    assert pool.current_bundle().version == 2
    assert pool.problem is None


def test_a_store_that_cannot_be_read_is_as_if_it_had_not_changed(
    store: AdapterStore, loader: Loader, publish: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    pool = PredictorPool(AppConf(), store)
    publish()
    first = pool.current_bundle()
    (store.folder / "current").unlink()
    (store.folder / "current").mkdir()
    assert pool.current_bundle() is first
    assert pool.current_bundle() is first
    assert caplog.text.count("cannot be read") == 1
    assert "v0001 stays in use" in pool.problem
    (store.folder / "current").rmdir()
    assert pool.current_bundle() is first
    assert pool.problem is not None  # lost, so that history counts


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(task_process, "READING_SECONDS", 0)
    logger = logging.getLogger("__main__")
    before = logger.level
    yield
    logger.setLevel(before)


def test_an_error_is_the_last_line_of_a_process_that_failed(
    own_process: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def train() -> dict[str, str]:
        print("Reading accepted labels.")
        raise InputError("Another update runs.")

    with pytest.raises(SystemExit) as caught:
        task_process.train_as_own_process(train)
    assert caught.value.code == 1
    printed = capfd.readouterr()
    assert printed.out.splitlines() == ["Reading accepted labels.", "Another update runs."]
    assert "Traceback" not in printed.err


def test_what_became_of_an_update_is_the_last_line(own_process: None, capfd: pytest.CaptureFixture[str]) -> None:
    def train() -> dict[str, str]:
        print("v0001 was published.")
        print("Something about scoring.")
        return {"message": "v0001 was published."}

    task_process.train_as_own_process(train)
    assert capfd.readouterr().out.splitlines()[-1] == "v0001 was published."
    assert not logging.getLogger("__main__").isEnabledFor(logging.INFO)  # it would say "Result: {...}"


class Archive:
    """A DICOMweb server with DICOM SEG of three series, one of which is not listed and one not there."""

    base_url = "http://archive/dicom-web"
    segmentations: dict[str, str] = {"2.1": "1.1", "2.2": "1.2", "2.3": "1.3", "2.4": ""}  # noqa: RUF012

    def __init__(self) -> None:
        self._session = requests.Session()

    def set_http_retry_params(self, *, retry: bool) -> None:
        assert not retry

    def search_for_series(self, search_filters: dict[str, str]) -> list[dict]:
        series = self.segmentations if search_filters["Modality"] == "SEG" else ("1.1", "1.2")
        found = []
        for uid in series:
            dataset = Dataset()
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "3.1", uid
            found.append(dataset.to_json_dict())
        return found

    def retrieve_series_metadata(self, study: str, series: str) -> list[dict]:
        assert study == "3.1"
        dataset, referenced = Dataset(), Dataset()
        referenced.SeriesInstanceUID = self.segmentations[series]
        if self.segmentations[series]:
            dataset.ReferencedSeriesSequence = [referenced]
        return [dataset.to_json_dict()]


def test_labels_and_images_of_an_archive_are_fetched_and_what_is_gone_is_left_out(
    tmp_path: Path, task: AdaptersTrainTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = DicomWebStore(Archive(), {"Modality": "CT"}, str(tmp_path / "cache"))
    taken, learned = [], []

    def fetch(image_id: str) -> str:
        if image_id == "1.1":
            raise NotFoundError("The DICOMweb server has no series 1.1.")
        return str(tmp_path)

    monkeypatch.setattr(store, "get_image_uri", fetch)
    monkeypatch.setattr(store, "get_label_uri", lambda *arguments: taken.append(arguments))
    monkeypatch.setattr(adapters, "update", lambda site, *rest: learned.append(site) or Outcome("nothing", ""))
    task({}, store)
    assert taken == [("2.2", "final", "1.2")]
    assert "The label of series 1.1 is left out: The DICOMweb server has no series 1.1." in caplog.text
    assert learned[0].data == Path(store._datastore_path)


def test_an_archive_that_does_not_answer_is_said(
    tmp_path: Path, task: AdaptersTrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self, search_filters: dict[str, str]) -> list[dict]:
        raise requests.Timeout("timed out")

    monkeypatch.setattr(Archive, "search_for_series", silent)
    store = DicomWebStore(Archive(), {"Modality": "CT"}, str(tmp_path / "cache"))
    with pytest.raises(CausalSamError, match="The server that holds the images does not answer in time"):
        task({}, store)
