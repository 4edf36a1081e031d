"""The strategy *style_aware*: next comes the study from which the model has most to learn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from causal_sam.site.scores import Scores
from causal_sam.site.selection import Candidate, RankedStudy, rank
from strategies.background import StudyScorer
from strategies.studies import Studies

logger = logging.getLogger(__name__)

NAME = "style_aware"
# A study that was given to somebody is theirs for so long.
HELD_SECONDS = 30 * 60
# Uncertainty from which on a reason says that the model is unsure.
UNSURE = 0.4


@dataclass(frozen=True)
class Assignment:
    """Record that a study was given to a client.

    Attributes:
        time: time in seconds since 1970.
        client: id that the client claims; None if unknown.
        strategy: name of the strategy that chose the study.
    """

    time: float
    client: str | None
    strategy: str


class StyleAware(Strategy):
    """Chooses by what is known of the studies, and computes nothing but the order.

    * A study that was given to another client less than `HELD_SECONDS` ago, by any strategy, is being labelled: it is
      given to a second client only if nothing else is left, the one that was given first before the others.
    * Within the same time a client that asks again gets its study again, for instance after it was restarted, unless a
      label of it was accepted. Later the order decides again, so nobody is tied to a study that they cannot label.
    * A study that cannot be read is never given.
    * Studies without a score come after those that have one, by their id; they are read before they are given.
    * Styles of studies that are being labelled count as those of accepted ones, so that two people do not get two
      studies that look alike.

    Args:
        studies: studies of the data store.
        scores: scores of the studies.
        scorer: makes the scores.
    """

    def __init__(self, studies: Studies, scores: Scores, scorer: StudyScorer) -> None:
        super().__init__("Next study by uncertainty of the model and by style unlike that of the labelled ones")
        self._studies, self._scores, self._scorer = studies, scores, scorer
        self._lock = threading.Lock()
        # MONAI Label writes down what was given only after it was chosen, and for images of a server not always.
        self._given: dict[str, Assignment] = {}

    def start(self) -> None:
        """Begin to look at the studies."""
        self._scorer.start()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Choose the next study.

        Args:
            request: request of the client; ``client_id`` says who it is.
            datastore: unused, since it is that of the app.

        Returns:
            ``id`` of the image, its priority as ``weight``, and ``why`` in words; {} if nothing is left to label.

        Raises:
            requests.RequestException: the server of the images does not answer as it should.
        """
        self._scorer.start()
        client = request.get("client_id")
        with self._lock:
            now = time.time()
            unlabelled = self._studies.unlabelled()
            given = {image_id: each for image_id in unlabelled if (each := self._last_given(image_id, now))}
            for image_id, priority, why in self._in_order(unlabelled, given, client, now):
                if self._scorer.is_usable(image_id):
                    self._given[image_id] = Assignment(now, client, NAME)
                    logger.info("Next study: %s. %s", image_id, why)
                    return {"id": image_id, "weight": priority, "why": why}
        logger.info("No study is left: %d have no label, and none of them can be read.", len(unlabelled))
        return {}

    def next_after(self, image_id: str, client: str | None) -> str | None:
        """Return the study on this machine that a client would get if a label of this one were accepted now.

        It is given to nobody. None if nothing is left, or the best one is still on a server or cannot be read.

        Raises:
            requests.RequestException: the server of the images does not answer as it should.
        """
        with self._lock:
            now = time.time()
            unlabelled = [name for name in self._studies.unlabelled() if name != image_id]
            given = {name: each for name in unlabelled if (each := self._last_given(name, now))}
            given[image_id] = Assignment(now, None, NAME)  # so that its style counts as a labelled one
            order = [name for name, _, _ in self._in_order(unlabelled, given, client, now) if name != image_id]
        for name in order[:1]:
            score = self._scores.get(name)
            if self._studies.is_here(name) and (score is None or score.failure is None):
                return name
        return None

    def _last_given(self, image_id: str, now: float) -> Assignment | None:
        """To whom a study was given last, if that was not long ago."""
        records = [self._given[image_id]] if image_id in self._given else []
        for record in self._studies.given(image_id):
            records.append(Assignment(record.get("ts", 0), record.get("client_id"), record["strategy"]))
        last = max(records, key=lambda each: each.time, default=None)
        return last if last is not None and now - last.time < HELD_SECONDS else None

    def _in_order(
        self, unlabelled: Collection[str], given: Mapping[str, Assignment], client: str | None, now: float
    ) -> list[tuple[str, float, str]]:
        """Image id, priority and reason of all studies that may be given, the best first."""
        mine = [name for name, each in given.items() if client is not None and each.client == client]
        held = given.keys() - set(mine)
        ranked = self._rank([name for name in unlabelled if name not in held], held)
        priorities = {each.image_id: each.priority for each in ranked}
        again = max((name for name in mine if given[name].strategy == NAME), key=lambda n: given[n].time, default=None)
        choices = [] if again is None else [(again, "It was given to you before, and has no accepted label yet.")]
        choices += [(each.image_id, _reason(each)) for each in ranked]
        choices += [
            (name, "Nothing is known of it yet, and of no other one that is free.")
            for name in unlabelled
            if name not in priorities and name not in held
        ]
        choices += [
            (name, _being_labelled(given[name], now)) for name in sorted(held, key=lambda n: (given[n].time, n))
        ]
        return [(name, priorities.get(name, 0.0), why) for name, why in choices]

    def _rank(self, free: Collection[str], held: Collection[str]) -> list[RankedStudy]:
        """Order those of the free studies whose styles are known; held ones count as labelled."""
        scores = {name: score for name, score in self._scores.all().items() if score.style is not None}
        labelled = [scores[name].style for name in (*self._studies.accepted(), *held) if name in scores]
        known = [name for name in free if name in scores]
        vectors = self._scorer.vectors([*(scores[name].style for name in known), *labelled])
        candidates = [Candidate(name, vectors[scores[name].style], scores[name].uncertainty) for name in known]
        return rank(candidates, [vectors[style] for style in dict.fromkeys(labelled)])


def _reason(ranked: RankedStudy) -> str:
    """Say in words how unlike the accepted studies a study looks, and how sure the model is of its labels in it."""
    distance, uncertainty = ranked.style_distance, ranked.uncertainty
    if distance == 1:
        style = "No accepted case looks like it"
    elif distance == 0:
        style = "It looks like cases that are accepted already"
    else:
        style = f"It looks {'least like' if uncertainty is None else 'unlike'} the cases accepted so far"
    if uncertainty is None:
        return f"{style}."
    return f"{style}, and the model is {'unsure' if uncertainty >= UNSURE else 'fairly sure'} of its labels in it."


def _being_labelled(given: Assignment, now: float) -> str:
    minutes = round((now - given.time) / 60)
    return f"All that are left are being labelled; this one was given to {given.client} {minutes} minutes ago."
