"""The trainer: labels that people accepted in, a new version of the adapters out, if it is better."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from causal_sam.errors import CausalSamError, InputError
from causal_sam.sam.loading import checked_device
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import JOURNAL_FOLDER, SitePaths, UpdateConfig, is_running, processes_for, progress_of
from causal_sam.site.update import update
from causal_sam.site.versions import StoreError
from serving.conf import AppConf
from serving.data.archive import describe_failure
from serving.data.dicomweb_store import DicomWebStore
from serving.requests.options import chosen_options

logger = logging.getLogger(__name__)

# Clients show the progress of the whole update as this many epochs.
EPOCHS = 100
# Options as clients render them, with their defaults; whole numbers are those of which the default is one.
OPTIONS: dict[str, int | float | bool | str] = {
    "minutes": 10.0,
    "max_epochs": 0,
    "learning_rate": 0.003,
    "adapter_rate": 0.001,
    "labels": "",
    "replay": 0.5,
    "validation": 0.2,
    "tolerance": 0.02,
    "min_dice": 0.5,
    "min_label_dice": 0.2,
    "lad": True,
    "processes": 0,
}


class AdaptersTrainTask(TrainTask):
    """Learns from the labels that were accepted since the current version, and publishes what is better.

    Args:
        conf: says which model.
        store: store of the versions.
    """

    def __init__(self, conf: AppConf, store: AdapterStore) -> None:
        super().__init__("Learn from accepted labels, and use what was learned if it is better")
        self._conf, self._store = conf, store

    def config(self) -> dict[str, Any]:
        """Options, which clients render by their kinds."""
        return dict(OPTIONS)

    def checked(self, request: Mapping[str, Any]) -> tuple[UpdateConfig, str | None, int]:
        """Read the options of a request, before or in the process that learns.

        Args:
            request: see `__call__`.

        Returns:
            How to learn, on which device, and in how many processes.

        Raises:
            InputError: an option cannot be used.
        """
        device = checked_device(str(request["device"])) if request.get("device") else self._conf.device
        wanted = chosen_options(request, {"processes": OPTIONS["processes"]}).get("processes", 0)
        return config_of(request), device, processes_for(wanted, device)

    def stats(self) -> dict[str, Any]:
        """Progress of the update, under the names that clients read: they show a training without a time as running."""
        state, running = progress_of(self._store.folder), is_running(self._store.folder)
        phase, message = state.get("phase"), state.get("message", "")
        if not running and phase in ("reading", "training", "measuring"):
            phase, message = "stopped", "The update was stopped: the next one goes on, if it would learn the same."
        stats = {
            "epoch": round(EPOCHS * state.get("share", 0.0)),
            "total_epochs": EPOCHS,
            "phase": phase,
            "message": message,
            **self._current(),
        }
        if not running:
            seconds = state.get("now", 0.0) - state.get("began", 0.0)
            stats["total_time"] = str(timedelta(seconds=round(seconds)))
        return stats

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Learn.

        Args:
            request: the options as clients send them, numbers perhaps as texts; and ``device``. Others are left alone.
            datastore: data store with the labels.

        Returns:
            What has become of it, as an `Outcome`.

        Raises:
            InputError: an option, a label or the data store cannot be used, or another update runs.
            CausalSamError: the update failed. The version in use is as it was.
        """
        config, device, processes = self.checked(request)
        if not isinstance(datastore, LocalDatastore):
            raise InputError("Labels can be learned from a local folder of studies or a DICOMweb server only.")
        if isinstance(datastore, DicomWebStore):
            _take_accepted(datastore)
        conf, folder = self._conf, Path(datastore._datastore_path)
        site = SitePaths(
            folder,
            self._store.folder,
            conf.model,
            conf.checkpoint,
            device=device,
            journal=folder / JOURNAL_FOLDER,
        )
        outcome = update(site, config, processes, lambda line: print(line, flush=True))
        return asdict(outcome)

    def _current(self) -> dict[str, Any]:
        """The version in use, and how good it is."""
        try:
            number = self._store.current()
            if number is None:
                return {"version": None}
            metrics = self._store.version(number).manifest.training.metrics
        except (StoreError, InputError) as error:
            logger.warning("%s", error)
            return {}
        return {"version": number, "best_metric": round(sum(metrics.values()) / max(1, len(metrics)), 4)}


def config_of(request: Mapping[str, Any]) -> UpdateConfig:
    """Read how to learn from a request.

    Raises:
        InputError: an option cannot be used.
    """
    chosen = OPTIONS | chosen_options(request, OPTIONS)
    labels, epochs, _ = (chosen.pop(key) for key in ("labels", "max_epochs", "processes"))
    names = (name.strip() for name in (labels.split(",") if isinstance(labels, str) else labels))
    return UpdateConfig(epochs=epochs, labels=tuple(filter(None, names)), **chosen)


def _take_accepted(store: DicomWebStore) -> None:
    try:
        store.take_accepted()
    except requests.RequestException as error:
        raise CausalSamError(describe_failure(error)[1]) from error
