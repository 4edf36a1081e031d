"""A simulated annotator works through cases while the model learns from the accepted labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.learning.records import AdapterUpdate, AnnotatedStructure, AutomaticScore, Record
from causal_sam.benchmark.learning.simulated_site import SimulatedSite
from causal_sam.benchmark.ood.protocols import Scan
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import EmbeddingCache, InteractiveSession, LabelPrompter, Predictor
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.predictor import DEFAULT_CACHE_BYTES
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import AdapterBundle
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.simulation.annotator import annotate
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import SitePaths, UpdateConfig
from causal_sam.site.selection import Candidate, rank, uncertainty
from causal_sam.site.update import update
from causal_sam.style import describe
from causal_sam.text import TextEncoder, load_text_encoder

# Maps the remaining cases, the accepted cases and the current adapters to the position of the next case.
Choose = Callable[[Sequence[Scan], Sequence[Scan], LabelPrompter | None], int]


@dataclass(frozen=True)
class AnnotationSchedule:
    """The work of the simulated annotator.

    Attributes:
        accept: number of cases to accept.
        every: number of accepted cases between updates.
        target: Dice at which the annotator accepts a structure.
        max_clicks: number of clicks after which a structure is drawn by hand.
        labels: structures to annotate.
        later: structures to annotate in the second half, a subset of ``labels``.
        config: configuration of the updates.
    """

    accept: int
    every: int
    target: float
    max_clicks: int
    labels: tuple[str, ...]
    later: tuple[str, ...]
    config: UpdateConfig


class LearningSite:
    """A site that annotates and learns.

    Args:
        folder: folder for the data store and the adapter versions.
        model: model without adapters.
        pool: cases to annotate.
        held_out: cases that are never trained on.
        schedule: work of the annotator.
        order: name of the order of cases, for the records.
        seed: number of the repetition, for the records.
        record: called with each record.
        announce: called with a description of the current step.
    """

    def __init__(
        self,
        folder: Path,
        model: CausalSam,
        pool: Sequence[Scan],
        held_out: Sequence[Scan],
        schedule: AnnotationSchedule,
        order: str,
        seed: int,
        record: Callable[[Record], object],
        announce: Callable[[str], object],
    ) -> None:
        self._data = SimulatedSite(folder / "data", pool)
        self._site = SitePaths(folder / "data", folder / "adapters", model.name, image_size=model.image_size)
        self._model, self._pool, self._held_out, self._schedule = model, list(pool), list(held_out), schedule
        self._order, self._seed, self._record, self._announce = order, seed, record, announce
        self._predictor = Predictor(model, prefetch_slices=0)
        self._labels: LabelPrompter | None = None
        self._version: int | None = None

    def run(self, choose: Choose, *, click_held_out: bool) -> None:
        """Annotate case after case and update the adapters in between.

        Args:
            choose: chooses the next case.
            click_held_out: annotate held-out cases too, before the first update and at the end.
        """
        left = list(range(len(self._pool)))
        accepted: list[int] = []
        if click_held_out:
            self._annotate_held_out(0)
        for count in range(self._schedule.accept):
            chosen = left.pop(choose([self._pool[n] for n in left], [self._pool[n] for n in accepted], self._labels))
            self._announce(f"{self._order}, seed {self._seed}: case {count + 1} of {self._schedule.accept}")
            labels = self._schedule.later if count >= self._schedule.accept // 2 else self._schedule.labels
            masks = self._annotate(self._pool[chosen], count, labels, held_out=False)
            accepted.append(chosen)
            self._data.accept(chosen, masks)
            if (count + 1) % self._schedule.every == 0 or count + 1 == self._schedule.accept:
                self._learn(count + 1)
        if click_held_out:
            self._annotate_held_out(self._schedule.accept)

    def _annotate_held_out(self, accepted: int) -> None:
        for n, scan in enumerate(self._held_out):
            self._announce(f"{self._order}, seed {self._seed}: held-out case {n + 1} of {len(self._held_out)}")
            self._annotate(scan, accepted, self._schedule.labels, held_out=True)

    def _annotate(
        self, scan: Scan, accepted: int, labels: Sequence[str], *, held_out: bool
    ) -> dict[str, NDArray[np.bool_]]:
        session, schedule = self._open(scan), self._schedule
        truths = {name: scan.structures[name] for name in labels if np.any(scan.structures.get(name, False))}
        start, masks = session.history, {}
        for name, truth in truths.items():
            session.history = start  # each structure by itself, so that none costs clicks because of another
            automatic = dice(session.mask(name), truth)
            clicks = annotate(session, name, truth, scan.volume.spacing, schedule.target, schedule.max_clicks)
            if clicks is None:
                session.set_mask(name, truth)
            masks[name] = session.mask(name)
            self._record(
                AnnotatedStructure(
                    self._order, self._seed, accepted, self._version, held_out, scan.patient, scan.domain, name,
                    automatic, schedule.max_clicks if clicks is None else clicks, clicks is None,
                )
            )  # fmt: skip
        return masks

    def _open(self, scan: Scan) -> InteractiveSession:
        """Open a session that begins with the automatic masks of the current adapter version, if there is one."""
        session = InteractiveSession(self._predictor.for_volume(scan.volume), self._schedule.labels)
        labels = self._labels
        if labels is not None and (names := [name for name in self._schedule.labels if labels.find(name)]):
            session.segment_by_name(names, labels)
        return session

    def _learn(self, accepted: int) -> None:
        begin = time.monotonic()
        outcome = update(self._site, self._schedule.config, log=self._announce)
        assert outcome is not None, "one process leads"
        seconds = time.monotonic() - begin
        self._record(AdapterUpdate(self._order, self._seed, accepted, outcome.version, outcome.status, seconds))
        store = AdapterStore(self._site.store)
        number = store.current()
        if number is not None and number != self._version:
            with store.lease(number) as version:
                self._labels = LabelPrompter.from_bundle(AdapterBundle.read(version.adapter), self._model)
            self._version = number
        for scan in self._held_out:
            session = self._open(scan)
            for name in self._schedule.labels:
                truth = scan.structures.get(name)
                if truth is not None and truth.any():
                    self._record(
                        AutomaticScore(
                            self._order, self._seed, accepted, self._version, scan.patient, scan.domain, name,
                            dice(session.mask(name), truth),
                        )
                    )  # fmt: skip


def style_aware_order(model: CausalSam) -> Choose:
    """Return an order that prefers styles unlike the accepted ones and cases with an uncertain segmentation.

    Args:
        model: model whose input size is used.
    """
    text = load_text_encoder()
    cache = EmbeddingCache(DEFAULT_CACHE_BYTES)

    def choose(left: Sequence[Scan], accepted: Sequence[Scan], labels: LabelPrompter | None) -> int:
        candidates = []
        for n, scan in enumerate(left):
            slices, unsure = VolumeSlices(scan.volume, "auto", model.image_size), None
            if labels is not None:
                unsure = uncertainty(SliceEncoder(labels.model, cache), slices, labels)
            candidates.append(Candidate(f"{n:04d}", _style(scan, text), unsure))
        return int(rank(candidates, [_style(scan, text) for scan in accepted])[0].image_id)

    return choose


def _style(scan: Scan, text: TextEncoder) -> NDArray[np.floating]:
    return describe(scan.volume).vector(text).cpu().numpy()


def random_order(seed: int) -> Choose:
    """Return an order that draws cases at random."""
    rng = np.random.default_rng(seed)
    return lambda left, accepted, labels: int(rng.integers(len(left)))
