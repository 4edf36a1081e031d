"""The one template of a request: parse, open the client's session, run, commit, answer."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from causal_sam import __version__
from causal_sam.correction.journal import Journal
from causal_sam.imaging import PLANES, Volume, write_mask
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.prompting.history import Step, StepKind
from causal_sam.prompting.label_state import LabelState, is_unnamed
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.prompting.slots import OnSlice
from causal_sam.site.automatic_masks import AutomaticMasks
from serving.data.images import VolumeCache, volume_key
from serving.data.label_set import LabelSet
from serving.data.saved_labels import SavedLabels
from serving.inference_slots import TimedSlots
from serving.models import LoadedBundle, PredictorPool
from serving.requests.cancellation import CancellationMonitor
from serving.requests.clicks import Options
from serving.requests.clients import SERVER
from serving.results import ResultsFolder
from serving.sessions.click_log import ClickLog
from serving.sessions.histories import HistoryStore, Owner
from serving.sessions.uploads import UPLOAD_PREFIX

# Under these keys the app tells its tasks what MONAI Label does not: they are set by the server for every request.
CLIENT_KEY = "causal_sam_client"
IMAGE_ID_KEY = "causal_sam_image_id"
CONNECTION_KEY = "causal_sam_connection"
# The task that segments labels by their names: no person has seen the masks that it saves.
AUTOMATIC_MODEL = "causal_sam_organs"

# A label that loses less by a step for another is not mentioned: neighbours share a border.
MENTIONED_ML, MENTIONED_SHARE = 1.0, 0.02

_results = ResultsFolder()


@dataclass(frozen=True)
class Resources:
    """The parts that the tasks of an app share, so that a client may change between tasks on the way.

    Attributes:
        labels: the label set.
        plane: plane to segment if the request names none.
        extent: whether structures are followed through the volume if the request does not say; one of `EXTENTS`.
        volumes: decoded images.
        predictors: the model.
        saved: labels in the data store.
        histories: sessions of all clients.
        click_log: counts what people did.
        journal: journal of notes.
        automatic: masks that were found by name, as they were before anybody saw them.
    """

    labels: LabelSet
    plane: str
    extent: str
    volumes: VolumeCache
    predictors: PredictorPool
    saved: SavedLabels
    histories: HistoryStore
    click_log: ClickLog
    journal: Journal
    automatic: AutomaticMasks


@dataclass(frozen=True, eq=False)
class Answer:
    """The masks and the words of an answer.

    Attributes:
        mask: (I, J, K) a label's mask, or a label map.
        names: label name -> value in the mask.
        params: parameters of the response, with a ``message``.
    """

    mask: NDArray[Any]
    names: Mapping[str, int]
    params: dict[str, Any]


@dataclass
class Call:
    """A request that is being answered.

    Attributes:
        request: the client's parameters, with what the app added.
        options: the options read from them.
        volume: the image.
        predictor: predictor for the image.
        session: session of the client on the image; its final state is kept, unless the request fails.
        resources: resources of the app.
        slots: slots in which the session uses the model.
        before: name -> state of all labels before the request.
    """

    request: Mapping[str, Any]
    options: Options
    volume: Volume
    predictor: Predictor
    session: InteractiveSession
    resources: Resources
    slots: TimedSlots
    before: Mapping[str, LabelState]

    @cached_property
    def bundle(self) -> LoadedBundle | None:
        """The labels, adapters and corrector in use, the same for the whole request."""
        return self.resources.predictors.current_bundle()

    @property
    def verb(self) -> str:
        """Participle for `step_back` in a sentence."""
        return "Undone" if self.options.undo else "Redone"

    def taken_ml(self, labels: Collection[str]) -> dict[str, float]:
        """Return what other labels lost in this request to the ones that it is about, in ml; little is left out."""
        taken = {}
        for name, state in self.session.states.items():
            earlier = self.before.get(name)
            if earlier is None or earlier is state or name in labels or is_unnamed(name):
                continue
            lost = earlier.mask.count - state.mask.count
            if lost * self.volume.voxel_ml >= MENTIONED_ML or lost > MENTIONED_SHARE * earlier.mask.count:
                taken[name] = round(lost * self.volume.voxel_ml, 3)
        return taken

    def known_as(self, name: str) -> str:
        """The label that the client calls ``name``; see `LabelSet.known_as`."""
        return self.resources.labels.known_as(name, self.session.states)

    def step_back(self) -> Step:
        """Undo or redo a step as the options say, and return it.

        Raises:
            InputError: there is none.
        """
        return self.session.undo() if self.options.undo else self.session.redo()

    def record_steps_back(self, *steps: Step, undone: bool) -> None:
        """Append to the journal which notes were undone or done again, all of them or none.

        Args:
            steps: steps of any kind, in the order in which they were undone or done again.
            undone: False if they were done again.

        Raises:
            JournalError: it cannot be written.
        """
        act = "undo" if undone else "redo"
        self.record(*({"act": act, "note": step.about} for step in steps if step.kind is StepKind.NOTE))

    def record(self, *entries: Mapping[str, Any]) -> None:
        """Append to the journal of notes, all entries or none.

        Raises:
            JournalError: it cannot be written.
        """
        self.resources.journal.append(*map(self.stamped, entries))

    def stamped(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry of a journal with the time, the user, the image and the versions in use."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": self.request.get(CLIENT_KEY),
            "image": self.request.get(IMAGE_ID_KEY) or Path(self.request["image"]).name,
            "frame": self.volume.frame,
            "versions": {
                "causal_sam": __version__,
                "model": self.predictor.model.name,
                "adapters": None if self.bundle is None else self.bundle.version,
            },
            **entry,
        }


@contextmanager
def open_call(
    resources: Resources, request: Mapping[str, Any], options: Options, on_slice: OnSlice | None = None
) -> Iterator[Call]:
    """Open the client's session on an image for a request, and keep what it is at the end of the block.

    If the block raises, the session stays as it was.

    Args:
        resources: resources of the app.
        request: the client's parameters, with the image's path and what the app added.
        options: the options read from them.
        on_slice: called during long work; by default it only looks whether the client is still there.

    Raises:
        CausalSamError: the image cannot be read or segmented.
    """
    key = volume_key(Path(request["image"]), options.frame)
    volume = resources.volumes.get(key)
    predictor = resources.predictors.for_volume(volume, options.plane)
    owner = Owner(request.get(IMAGE_ID_KEY), request.get(CLIENT_KEY))
    slots = TimedSlots(resources.predictors.inference_slots)
    with resources.histories.open(_session_key(key, request), volume.shape, owner) as opened:
        session = InteractiveSession(
            predictor,
            resources.labels.names,
            history=opened.history,
            slot=slots.hold,
            on_slice=on_slice or CancellationMonitor(request.get(CONNECTION_KEY)),
        )
        take_over_saved(session, resources.saved, request.get(IMAGE_ID_KEY), volume)
        yield Call(request, options, volume, predictor, session, resources, slots, session.states)
        opened.history = session.history
    predictor.prepare_context()


def take_over_saved(session: InteractiveSession, saved: SavedLabels, image_id: str | None, volume: Volume) -> None:
    """Take over a label that was saved since the session last looked: brush edits in viewers come only so."""
    newest = saved.newest(image_id, volume.frame)
    if newest is None or (version := repr(newest.version)) == session.history.saved_version:
        return
    masks, is_whole = saved.masks(newest, volume)
    session.history = session.history.with_saved(
        masks,
        version,
        accepted=newest.is_final,
        automatic=newest.info.get("model") == AUTOMATIC_MODEL,
        is_whole=is_whole,
    )


class SessionTask(InferTask):
    """A task that works on the session of a client on an image.

    Args:
        type: under which clients offer it.
        description: text for people.
        resources: shared with the other tasks.
        config: its own options with their defaults, as clients show them.
        labels: name -> value that clients offer, if not the label set.

    Attributes:
        is_one_step: whether undo takes back all that a request did.
    """

    is_one_step = True

    def __init__(
        self,
        type: InferType,
        description: str,
        resources: Resources,
        config: Mapping[str, Any],
        labels: Mapping[str, int] | None = None,
    ) -> None:
        planes = [resources.plane, *(plane for plane in PLANES if plane != resources.plane)]
        super().__init__(
            type=type,
            labels=dict(labels or resources.labels.indices),
            dimension=3,
            description=description,
            config={"undo": False, "redo": False, **config, "plane": planes, "frame": 0},
        )
        self._resources = resources

    def is_valid(self) -> bool:
        """Return True: clients may always see the task, since the model is loaded before the server answers."""
        return True

    @abstractmethod
    def parse(self, request: Mapping[str, Any], options: Options, slices: VolumeSlices) -> Any:
        """Read and check the parameters that only this task has."""

    @abstractmethod
    def run(self, call: Call, requested: Any) -> Answer:
        """Carry out the parsed request in the session, or raise and change nothing."""

    def show(self, call: Call, requested: Any) -> Answer:
        """Answer with the session as it is after undo or redo, whose message is added."""
        return Answer(*call.session.label_map(), {})

    def step_back(self, call: Call, requested: Any) -> dict[str, Any]:
        """Undo or redo a step, and say which; the journal learns of notes.

        Raises:
            InputError: there is none.
            JournalError: it cannot be recorded.
        """
        step = call.step_back()
        call.record_steps_back(step, undone=call.options.undo)
        return {call.verb.lower(): step.about, "message": f"{call.verb}: {step}."}

    def count(self, request: Mapping[str, Any], frame: int, requested: Any) -> None:
        """Count what a person did."""

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request.

        Args:
            request: the client's parameters, with the image's path and what the app added.

        Returns:
            The path of a temporary file with the mask, on the grid of the image, and the parameters of the response.

        Raises:
            CausalSamError: the request cannot be answered, or its client went away. The session is as it was.
        """
        begin = time.monotonic()
        options = Options.from_request(request, self._resources.plane, self._resources.extent)
        with open_call(self._resources, request, options) as call:
            if isinstance(label := request.get("label"), str):
                request = {**request, "label": call.known_as(label)}
            requested = self.parse(request, options, call.predictor.slices)
            read = time.monotonic()
            if options.undo or options.redo:
                params = self.step_back(call, requested)
                answer = self.show(call, requested)
                answer.params.update(params)
            else:
                with call.session.one_step() if self.is_one_step else nullcontext():
                    if options.locked is not None:
                        call.session.lock(*map(call.known_as, options.locked), only=True)
                    answer = self.run(call, requested)
        if not (options.undo or options.redo):
            self.count(request, options.frame, requested)
        return _written(answer, call.volume, options, (begin, read, time.monotonic()))


def _session_key(key: tuple[Any, ...], request: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return image and client; None for a batch or a one-off upload, whose session no later request can use."""
    is_upload = Path(request["image"]).parent.name.startswith(UPLOAD_PREFIX)
    client = request.get(CLIENT_KEY)
    return None if is_upload or client == SERVER.name else (key, client)


def _written(
    answer: Answer, volume: Volume, options: Options, times: tuple[float, float, float]
) -> tuple[str, dict[str, Any]]:
    """Write a mask to a temporary file, and add to the parameters of the response what all answers have.

    Args:
        answer: mask and words of the task.
        volume: the image.
        options: options of the request.
        times: when the request came, when its image was read, and when the mask was there.
    """
    begin, read, inferred = times
    path = _results.new_path(options.extension)
    write_mask(answer.mask, volume, path, compress=options.compress, dtype=options.dtype)
    end = time.monotonic()
    params = answer.params
    if volume.frames > 1:
        params["message"] = f"{params['message'].rstrip('.')}; in frame {volume.frame} of 0 to {volume.frames - 1}."
    params |= {"label_names": dict(answer.names), "frame": volume.frame, "frames": volume.frames}
    params["latencies"] = {
        "pre": round(read - begin, 2),
        "infer": round(inferred - read, 2),
        "invert": 0,
        "post": 0,
        "write": round(end - inferred, 2),
        "total": round(end - begin, 2),
        "transform": None,
    }
    return str(path), params
