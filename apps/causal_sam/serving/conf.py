"""The app's configuration: the keys of ``--conf KEY VALUE`` and of the YAML file, checked before the server starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from monailabel.config import settings
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FilePath, ValidationError

from causal_sam.errors import InputError
from causal_sam.imaging import PLANES, Volume
from causal_sam.imaging.limits import MAX_VOXELS
from causal_sam.sam.checkpoints import checkpoint_dir
from causal_sam.sam.loading import checked_device
from causal_sam.sam.registry import MODELS
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

logger = logging.getLogger(__name__)

CONFIG_KEY = "config"
_MONAILABEL_KEYS = frozenset({"server_mode"})
_PATHS = frozenset({"adapter_bundle", "adapters", "cache_dir", "checkpoint", "film", "label_prompts"})
# Old key -> the key that replaces it.
_RENAMED = {"encode_ahead": "prefetch_slices", "label_prompts": "adapter_bundle", "film": "adapter_bundle"}
# These are the files of one list now, and both may be given.
_OLD_BUNDLES = ("label_prompts", "film")


def _key(default: Any, kind: str, meaning: str, **limits: int) -> Any:
    """Describe a key: ``kind`` completes the sentence "KEY must be ...", ``meaning`` is for the table of all keys."""
    return Field(default, title=kind, description=meaning, **limits)


def _count(default: int, meaning: str, minimum: int = 1) -> Any:
    return _key(default, f"a whole number of at least {minimum}", meaning, ge=minimum)


def _choice(default: str, allowed: tuple[str, ...], meaning: str) -> Any:
    return _key(default, f"one of {', '.join(allowed)}", meaning)


def _list(meaning: str) -> Any:
    return _key((), "a list, or names separated by commas", meaning)


def _text(value: Any) -> Any:
    """Numbers on the command line are text; ``true`` in a file is not the number 1."""
    return str(value) if isinstance(value, bool | float) else value


def _items(value: Any) -> Any:
    items = value.split(",") if isinstance(value, str) else value
    return [item.strip() for item in items if item.strip()] if _is_list_of_texts(items) else items


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _labels(value: Any) -> Any:
    return LabelSet.from_conf(value) if isinstance(value, str | list | dict) else value


def _is_switchable(name: str) -> str:
    if name not in OFF_BY_DEFAULT:
        raise InputError(f"unsafe_routes must be one of {', '.join(OFF_BY_DEFAULT)}, not {name!r}.")
    return name


Count = Annotated[int, BeforeValidator(_text)]
Folder = Annotated[Path, BeforeValidator(lambda value: Path(str(value)).expanduser())]
File = Annotated[FilePath, BeforeValidator(lambda value: Path(str(value)).expanduser())]
Device = Annotated[str, AfterValidator(checked_device)]
Consent = Literal["none", "remote"]


class AppConf(BaseModel):
    """The checked configuration; `configuration_table` lists its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, coerce_numbers_to_str=True)

    labels: Annotated[LabelSet, BeforeValidator(_labels)] | None = _key(
        None,
        "names or a JSON file",
        "structures that clients offer; by default those in the data store, else of the abdomen",
    )
    model: Literal[tuple(MODELS)] = _choice("compact", tuple(MODELS), "name in the model registry")
    checkpoint: File | None = _key(None, "an existing file", "weights to use instead of the model's own")
    adapter_bundle: Annotated[tuple[Folder, ...], BeforeValidator(_items)] = _key(
        (),
        "files with commas between them",
        "adapter bundles; a current version in the adapter store replaces their parts; read when they change",
    )
    adapters: Folder | None = _key(
        None,
        "a folder",
        "adapter store; by default beside the labels",
    )
    plane: Literal[PLANES] = _choice(
        "auto", PLANES, "plane to segment if a client names none; `auto` is the acquired one"
    )
    extent: Literal[EXTENTS] = _choice(
        VOLUME, EXTENTS, "`volume` follows a structure through the slices, `slice` changes the prompted slices only"
    )
    device: Device | None = _key(
        None, "auto, cpu, cuda, cuda:N or mps", "torch device; by default a GPU if there is one"
    )
    cache_mb: Count = _count(
        1024, "memory for encoded slices, in MiB; one takes about 2 MiB with `compact`, 4 MiB with the others"
    )
    cache_dir: Folder | None = _key(None, "a folder", "keeps encoded slices over restarts; servers may share it")
    context_mb: Count = _count(
        512,
        "memory for the contexts of volumes, in MiB; what was unused for longest is computed again; 0 turns them off",
        minimum=0,
    )
    volume_mb: Count = _count(2048, "memory for decoded images, in MiB")
    working_mask_mb: Count = _count(
        256, "memory for what clients are segmenting, in MiB; what was unused for longest is read from the disk again"
    )
    prefetch_slices: Count = _count(
        1, "slices on each side of a clicked one that are encoded in the background", minimum=0
    )
    parallel: Count = _count(
        min(4, max(2, (os.cpu_count() or 2) // 2)),
        "requests that use the model at a time; by default half of the processors, at least 2 and at most 4",
    )
    requests_per_client: Count = _count(16, "requests of one client at a time; more are refused with status 429")
    max_voxels: Count = _count(
        MAX_VOXELS, "voxels of one image with all its frames; larger ones are refused with status 413"
    )
    max_sessions: Count = _count(64, "sessions (uploads of clients) at a time")
    session_mb: Count = _count(2048, "size of one session, unpacked, in MiB")
    sessions_mb: Count = _count(16384, "size of all sessions together, in MiB")
    vlm: str | None = _key(
        None, "PROVIDER:MODEL", "vision-language model that describes the imaging style, such as `ollama:llava`"
    )
    vlm_consent: Consent = _choice(
        "none", ("none", "remote"), "`remote` allows slices to be sent to a remote vision model"
    )
    llm: str | None = _key(
        None,
        "PROVIDER:MODEL or embedded",
        "chat model that reads notes, such as `ollama:llama3.1`; by default the embedded interpreter",
    )
    llm_consent: Consent = _choice(
        "none", ("none", "remote"), "`remote` allows de-identified notes to be sent to a remote chat model"
    )
    hosts: Annotated[tuple[Annotated[str, AfterValidator(checked_host)], ...], BeforeValidator(_items)] = _list(
        "names and addresses under which other machines reach the server, without port"
    )
    origins: Annotated[tuple[Annotated[str, AfterValidator(checked_origin)], ...], BeforeValidator(_items)] = _list(
        "addresses of web pages on other servers that may use this one"
    )
    max_body_mb: Count = _count(1024, "size of one request with its files, in MiB")
    max_queued_trainings: Count = _count(
        4, "trainings that run or wait; the same number holds for batches and for scorings"
    )
    companion: bool = _key(
        True, "true or false", "messages, notes, undo and live answers in the pages of OHIF that the server sends"
    )
    unsafe_routes: Annotated[tuple[Annotated[str, AfterValidator(_is_switchable)], ...], BeforeValidator(_items)] = (
        _list(f"requests of MONAI Label to switch on: {', '.join(OFF_BY_DEFAULT)}")
    )

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> AppConf:
        """Check the pairs of ``--conf``, which win over the YAML file that ``config`` names.

        Raises:
            InputError: a key or value cannot be used.
        """
        given = {key: value for key, value in conf.items() if key not in _MONAILABEL_KEYS}
        path = given.pop(CONFIG_KEY, None)
        values = _with_new_names(_read_yaml(Path(path).expanduser()) if path else {}) | _with_new_names(given)
        if old := [str(path) for path in [values.pop(key, None) for key in _OLD_BUNDLES] if path]:
            values["adapter_bundle"] = [*_items(values.get("adapter_bundle") or []), *old]
        known = list(cls.model_fields)
        for key in values:
            if key not in known:
                raise InputError(f"There is no configuration {key!r}; known are {', '.join([CONFIG_KEY, *known])}.")
        try:
            return cls(**{key: value for key, value in values.items() if value is not None and value != ""})
        except ValidationError as error:
            problem = error.errors()[0]
            if own := problem.get("ctx", {}).get("error"):  # the message of one of our validators
                raise InputError(str(own)) from None
            key = str(problem["loc"][0])
            raise InputError(f"{key} must be {cls.model_fields[key].title}, not {values[key]!r}.") from None

    def border_rules(self) -> BorderRules:
        """Return the rules for incoming requests; MONAI Label's own setting of origins counts too."""
        origins = (*self.origins, *map(str, settings.MONAI_LABEL_CORS_ORIGINS))
        return BorderRules(AccessPolicy(self.hosts, origins), BodyLimits(self.max_body_mb * MIB), self.unsafe_routes)

    def style_describer(self) -> Callable[[Volume], StyleDescription]:
        """Make the function that describes the style of an image.

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
        """Make the interpreter of notes.

        Raises:
            InputError: the chat model cannot be used.
        """
        from causal_sam.notes import load_interpreter

        return load_interpreter(self.llm, consent=self.llm_consent == "remote")


def configuration_table() -> str:
    """Return a Markdown table of all keys with value, default and meaning, for the documentation."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in AppConf.model_fields.items():
        shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = "" if key == "parallel" or shown in (None, ()) else f"`{shown}`"
        rows.append(f"| `{key}` | {field.title} | {default} | {field.description} |")
    return "\n".join(rows)


def _with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {}
    for key, value in values.items():
        if key in _RENAMED:
            logger.warning("The configuration key %s is deprecated: use %s.", key, _RENAMED[key])
        renamed[key if key in _OLD_BUNDLES else _RENAMED.get(key, key)] = value
    return renamed


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
        if key == "adapter_bundle":
            values[key] = [str(path.parent / Path(item).expanduser()) for item in _items(values[key] or [])]
        elif values[key]:
            values[key] = str(path.parent / Path(str(values[key])).expanduser())
    if isinstance(values.get("labels"), str) and values["labels"].strip().endswith(".json"):
        values["labels"] = str(path.parent / values["labels"].strip())
    return values
