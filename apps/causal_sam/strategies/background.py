"""Studies are looked at in the background, so that a client that asks for the next one does not wait for it."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import requests
from numpy.typing import NDArray

from causal_sam.errors import CausalSamError, InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.prompting import EmbeddingCache, LabelPrompter
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.site.scores import Score, Scores, Stamp
from causal_sam.site.selection import uncertainty
from causal_sam.text import TextEncoder, load_text_encoder
from serving.models import PredictorPool
from serving.requests.clients import Priority
from strategies.studies import Studies

logger = logging.getLogger(__name__)

# Seconds between searches for new images, labels and versions.
PASS_SECONDS = 30.0
# So many unlabelled images are fetched from a server before anybody asks for them; an archive may hold any number.
MAX_FETCHED = 24
# Niceness of the thread, as in nice(1): everything else on the machine goes first.
NICENESS = 10
STOP_SECONDS = 5.0


class _StoppedError(Exception):
    """The server ends."""


class StudyScorer:
    """Finds out the style of all studies, and how unsure the model is about those that nobody has labelled.

    A study gets a new score when its image has changed or when the model has learned something new. A label that is
    accepted changes no score: distances between styles are taken when the next study is chosen.

    Args:
        studies: studies of the data store.
        scores: store of the scores.
        predictors: the model. It is held for one slice at a time, so that clicks hardly wait.
        describe: an image -> its style in words.
        load_encoder: loads the text encoder that compares these words.
    """

    def __init__(
        self,
        studies: Studies,
        scores: Scores,
        predictors: PredictorPool,
        describe: Callable[[Volume], str],
        load_encoder: Callable[[], TextEncoder] = load_text_encoder,
    ) -> None:
        self._studies, self._scores, self._predictors, self._describe = studies, scores, predictors, describe
        self._load_encoder = load_encoder
        self._texts: TextEncoder | None = None
        self._slices: SliceEncoder | None = None
        self._objection: str | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping, self._wake = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin, or look again at once if it has begun."""
        self._wake.set()
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="causal-sam-scores", daemon=True)
                self._thread.start()
                # No thread may be inside the tensor library while the interpreter is taken down.
                atexit.register(self.stop)

    def stop(self) -> None:
        """End after the slice or the image that is being worked on."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def is_usable(self, image_id: str) -> bool:
        """Return True if an image can be segmented, by its score; without a current score, by reading the image.

        Raises:
            requests.RequestException: the server of the images does not answer as it should.
        """
        score = self._scores.get(image_id)
        if score is not None and self._studies.is_current(image_id, score):
            return score.failure is None
        try:
            self._open(image_id)
        except InputError:
            return False
        return True

    def vectors(self, styles: Sequence[str]) -> dict[str, NDArray[np.floating]]:
        """Return the unit vectors of styles; those that the thread came across are known already."""
        with self._lock:
            if self._texts is None:
                self._texts = self._load_encoder()
        different = list(dict.fromkeys(styles))
        return dict(zip(different, self._texts.encode(different).cpu().numpy(), strict=True))

    def run_pass(self) -> None:
        """Give each study a score that has none or an old one.

        Raises:
            requests.RequestException: the server of the images does not answer as it should.
        """
        labels = self._current_labels()
        digest = None if labels is None else labels.digest
        unlabelled = self._studies.unlabelled()
        for image_id in self._studies.accepted():
            if self._known(image_id) is None:
                self._score(image_id, None)
        here = {each for each in unlabelled if self._scores.get(each) is not None or self._studies.is_here(each)}
        # In no order that says anything: ids sort studies by scanner, and what is looked at first is given first.
        for image_id in sorted(unlabelled, key=lambda each: hashlib.sha256(each.encode()).digest()):
            known = self._known(image_id)
            if known is not None and (known.failure is not None or known.taught == digest):
                continue
            if image_id not in here:
                if len(here) >= MAX_FETCHED:
                    continue
                here.add(image_id)
            self._score(image_id, labels)
        self.vectors([score.style for score in self._scores.all().values() if score.style is not None])

    def _current_labels(self) -> LabelPrompter | None:
        try:
            bundle = self._predictors.current_bundle()
        except CausalSamError as error:
            if str(error) != self._objection:  # not with each pass
                logger.warning("Studies are chosen by their styles alone: %s", error)
            self._objection = str(error)
            return None
        return None if bundle is None else bundle.labels

    def _known(self, image_id: str) -> Score | None:
        """The score of an image as it is now."""
        score = self._scores.get(image_id)
        return score if score is not None and self._studies.is_current(image_id, score) else None

    def _open(self, image_id: str) -> tuple[Stamp, VolumeSlices]:
        """Read an image; one that cannot be segmented gets a score that says so.

        Raises:
            InputError: it cannot be segmented.
        """
        stamp = Stamp()
        try:
            path = self._studies.fetch(image_id)
            stamp = Stamp.of(path)
            return stamp, VolumeSlices(read_volume(path), "auto", self._predictors.base().model.image_size)
        except InputError as error:
            self._scores.put(image_id, Score(stamp, failure=str(error)))
            logger.warning("%s is not offered for labelling: %s", image_id, error)
            raise

    def _score(self, image_id: str, labels: LabelPrompter | None) -> None:
        self._check()
        before = self._known(image_id)
        try:
            stamp, slices = self._open(image_id)
        except InputError:
            return
        self._check()
        style, unsure = None if before is None else before.style, None
        try:
            style = style or self._describe(slices.volume)
            if labels is not None:
                unsure = uncertainty(
                    self._encoder(labels),
                    slices,
                    labels,
                    slot=partial(self._predictors.inference_slots.hold, priority=Priority.BACKGROUND),
                    on_slice=lambda done: self._check(),
                )
        except _StoppedError:
            raise
        except Exception:  # it can be labelled all the same, and the others have to be looked at
            logger.exception("%s can be labelled, but not be compared with the others in every way.", image_id)
        self._scores.put(image_id, Score(stamp, style, None if labels is None else labels.digest, unsure))
        logger.info("%s: uncertainty %s. %s", image_id, "unknown" if unsure is None else unsure, style)

    def _encoder(self, labels: LabelPrompter) -> SliceEncoder:
        if self._slices is None or self._slices.model is not labels.model:
            # Keeps nothing: each slice is looked at once, and those that people look at must stay in their cache.
            self._slices = SliceEncoder(labels.model, EmbeddingCache(0))
        return self._slices

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError

    def _run(self) -> None:
        if sys.platform == "linux":  # where each thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self.run_pass()
            except _StoppedError:
                return
            except requests.RequestException as error:
                logger.warning("The server of the images cannot be asked for studies to look at: %s", error)
            except Exception:
                logger.exception("Looking at the studies failed; it is tried again.")
            self._wake.wait(PASS_SECONDS)
