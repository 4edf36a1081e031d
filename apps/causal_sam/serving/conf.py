"""The app's configuration: what ``--conf KEY VALUE`` and the YAML file mean, checked before the server starts.

All keys are documented in ``sample_configs/server.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from monailabel.config import settings

from causal_sam.errors import InputError
from causal_sam.imaging import PLANES, Volume
from causal_sam.imaging.limits import MAX_VOXELS
from causal_sam.sam.checkpoints import checkpoint_dir
from causal_sam.sam.registry import MODELS, checked_device
from causal_sam.style import StyleDescription, describe
from serving.data.label_set import LabelSet
from serving.requests.access import AccessPolicy, checked_host, checked_origin
from serving.requests.addresses import OFF_BY_DEFAULT
from serving.requests.bodies import MIB, BodyLimits
from serving.requests.border import BorderRules
from serving.requests.clicks import EXTENTS, VOLUME

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from causal_sam.notes import Interpretation, NoteRequest

CONFIG_KEY = "config"
_MONAILABEL_KEYS = frozenset({"server_mode"})
_PATHS = frozenset({"checkpoint", "cache_dir", "label_prompts", "adapters", "film"})

_LISTS: dict[str, Callable[[str], str]] = {
    "hosts": checked_host,
    "origins": checked_origin,
    "unsafe_routes": lambda name: _one_of("unsafe_routes", name, tuple(OFF_BY_DEFAULT)),
}


@dataclass(frozen=True)
class AppConf:
    """The checked configuration.

    Attributes:
        labels: label set; None to take it from the data store.
        model: name in the model registry.
        checkpoint: weights to load instead of the model's own; None for these.
        label_prompts: file of the labels that the model was taught; it may come later. None for none.
        adapters: folder of the adapter store, whose current version counts before ``label_prompts``; None for one
            beside the labels.
        film: weights that let notes modulate the mask decoder; None for those that come with the model.
        plane: the plane that is segmented when a request does not say.
        extent: "volume" if a structure is followed from the prompted slices through the volume when a request does not
            say, "slice" if not.
        device: torch device; None for a GPU if there is one.
        cache_mb: limit of the embeddings kept in memory, in MiB.
        cache_dir: folder where embeddings are kept across restarts; None for none.
        volume_mb: limit of the decoded images kept in memory, in MiB.
        working_mask_mb: limit of the working masks of all clients, in MiB.
        encode_ahead: how many slices on each side of a clicked one are encoded in the background; 0 for none.
        parallel: how many requests may use the model at a time.
        requests_per_client: how many requests of one client are answered or wait at a time.
        max_voxels: limit of one image, all its frames together; the headers of larger ones are all that is read.
        max_sessions: how many sessions there may be at a time.
        session_mb: limit of the image of one session, in MiB, also of what an archive unpacks to.
        sessions_mb: limit of all sessions together, in MiB.
        vlm: vision-language model that describes the style of images, as LangChain names it; None to measure it only.
        vlm_consent: "remote" if slices may be sent to a remote one, else "none".
        llm: chat model that reads notes, as LangChain names it; None or "embedded" for the interpreter that needs none.
        llm_consent: "remote" if notes, without what may say something of a person, may be sent to a remote one, else
            "none".
        hosts: names and addresses under which the server is reached beside those of the loopback interface.
        origins: addresses of web pages on other servers that may use this one.
        max_body_mb: limit of one request with its files, in MiB.
        max_queued_trainings: how many trainings may run or wait; the same for batches and scorings.
        unsafe_routes: what `OFF_BY_DEFAULT` switches off and the operator wants.
    """

    labels: LabelSet | None = None
    model: str = "compact"
    checkpoint: Path | None = None
    label_prompts: Path | None = None
    adapters: Path | None = None
    film: Path | None = None
    plane: str = "auto"
    extent: str = VOLUME
    device: str | None = None
    cache_mb: int = 1024
    cache_dir: Path | None = None
    volume_mb: int = 2048
    working_mask_mb: int = 256
    encode_ahead: int = 1
    parallel: int = min(4, max(2, (os.cpu_count() or 2) // 2))
    requests_per_client: int = 16
    max_voxels: int = MAX_VOXELS
    max_sessions: int = 64
    session_mb: int = 2048
    sessions_mb: int = 16384
    vlm: str | None = None
    vlm_consent: str = "none"
    llm: str | None = None
    llm_consent: str = "none"
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_mb: int = 1024
    max_queued_trainings: int = 4
    unsafe_routes: tuple[str, ...] = ()

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> AppConf:
        """Check the pairs of ``--conf``; a YAML file named by ``config`` speaks where the command line is silent.

        Raises:
            InputError: a key or value cannot be used.
        """
        given = {key: value for key, value in conf.items() if key not in _MONAILABEL_KEYS}
        path = given.pop(CONFIG_KEY, None)
        values = {**(_read_yaml(Path(path).expanduser()) if path else {}), **given}
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"There is no configuration {key!r}; known are {', '.join([CONFIG_KEY, *known])}.")
        checked = {key: _check(key, value) for key, value in values.items() if value is not None and value != ""}
        return cls(**checked)

    def border_rules(self) -> BorderRules:
        """What may pass the border; MONAI Label's own setting of origins counts too."""
        origins = (*self.origins, *map(str, settings.MONAI_LABEL_CORS_ORIGINS))
        return BorderRules(AccessPolicy(self.hosts, origins), BodyLimits(self.max_body_mb * MIB), self.unsafe_routes)

    def style_describer(self) -> Callable[[Volume], StyleDescription]:
        """Make what describes the style of images.

        Raises:
            InputError: the vision model cannot be used.
        """
        if self.vlm is None:
            return describe
        # LangChain takes a second to import, which nobody else should wait for.
        from causal_sam.style.vision import VisionDescriber, load_vision_model

        model = load_vision_model(self.vlm, consent=self.vlm_consent == "remote")
        return VisionDescriber(model, self.vlm, checkpoint_dir().parent / "styles").describe

    def interpreter(self) -> Runnable[NoteRequest, Interpretation]:
        """Make what reads notes.

        Raises:
            InputError: the chat model cannot be used.
        """
        from causal_sam.notes import load_interpreter

        return load_interpreter(self.llm, consent=self.llm_consent == "remote")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The configuration file {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"The configuration file {path} must hold lines of KEY: VALUE.")
    for key in _PATHS & values.keys():
        # A file is written to be moved with what it names, so its paths start at its own folder.
        if values[key]:
            values[key] = str(path.parent / Path(str(values[key])).expanduser())
    if isinstance(values.get("labels"), str) and values["labels"].strip().endswith(".json"):
        values["labels"] = str(path.parent / values["labels"].strip())
    return values


def _check(key: str, value: Any) -> Any:
    if key == "labels":
        if not isinstance(value, str | list | dict):
            raise InputError(f"labels must be names or a JSON file, not {value!r}.")
        return LabelSet.from_conf(value)
    if key == "model":
        return _one_of(key, value, tuple(MODELS))
    if key == "plane":
        return _one_of(key, value, tuple(PLANES))
    if key in ("vlm", "llm"):
        return str(value)
    if key in ("vlm_consent", "llm_consent"):
        return _one_of(key, value, ("none", "remote"))
    if key == "extent":
        return _one_of(key, value, EXTENTS)
    if key in _LISTS:
        return tuple(_LISTS[key](item) for item in _items(key, value))
    if key in _PATHS:
        path = Path(str(value)).expanduser()
        if key in ("checkpoint", "film") and not path.is_file():
            raise InputError(f"{key} must be an existing file, and {path} is none.")
        return path
    if key == "device":
        return checked_device(str(value))
    return _number(key, value, minimum=0 if key == "encode_ahead" else 1)


def _items(key: str, value: Any) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InputError(f"{key} must be a list, or names separated by commas, not {value!r}.")
    return [item.strip() for item in items if item.strip()]


def _one_of(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{key} must be one of {', '.join(allowed)}, not {value!r}.")
    return value


def _number(key: str, value: Any, minimum: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = minimum - 1
    if number < minimum:
        raise InputError(f"{key} must be a whole number of at least {minimum}, not {value!r}.")
    return number
