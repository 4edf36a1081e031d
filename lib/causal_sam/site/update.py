"""Learning from accepted labels: from what people accepted to a new version of the adapters, if it is better.

    <store>/training/lock           held while an update runs; there is one at a time
    <store>/training/progress.json  what it does now
    <store>/training/job/           what it learns from, and its last checkpoint

An update reads the cases, trains, measures, adds a version to the store, and publishes or rejects it. Killed at any
time, it leaves nothing that has to be put right: the next one goes on from the last checkpoint if it would learn the
same.
"""

from __future__ import annotations

import fcntl
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import ignite.distributed as idist
import torch
from safetensors import SafetensorError

from causal_sam.errors import CausalSamError, InputError
from causal_sam.prompting import LabelPrompter
from causal_sam.sam.adapter_bundle import AdapterBundle, FilmPart, fitting_film
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.case_files import load_case
from causal_sam.site.paths import LOCK, TRAINING, Progress, SitePaths, UpdateConfig, UpdateError
from causal_sam.site.plots import draw_update
from causal_sam.site.publish_gate import GENERATED, generated_cases, measure, rejection_reason
from causal_sam.site.training import LOSSES, RESULT, train
from causal_sam.site.training_set import NOTES, NOTES_HELD_OUT, Nothing, Skipped, TrainingSet, prepare
from causal_sam.site.versions import ConflictError, StoreError, Training, version_name
from causal_sam.text import load_text_encoder
from causal_sam.training.corrections import NoteResult, load_samples, train_on_notes
from causal_sam.training.processes import fitting_backend

JOB, REPORTS = "job", "reports"
NOTE_STEPS = 40
# Number of published versions that stay, and number of others.
KEPT_VERSIONS = 10
LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """Outcome of an update.

    Attributes:
        status: "nothing" if there was nothing to learn.
        message: sentence for people.
        version: version that was made; None if none was.
        metrics: Dice of the version by label.
        parent_metrics: the same of the version in use before.
        skipped: labels that could not be used.
    """

    status: Literal["published", "rejected", "nothing"]
    message: str
    version: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    parent_metrics: dict[str, float] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()


def update(
    site: SitePaths,
    config: UpdateConfig,
    processes: int = 1,
    log: Callable[[str], object] = lambda text: None,
) -> Outcome | None:
    """Learn from the labels that were accepted since the version in use, and publish what is better.

    In processes that torchrun started, all call this, and the first one leads.

    Args:
        site: folders of the labels and of the versions.
        config: settings of the update.
        processes: number of processes that train; only if torchrun did not start them.
        log: called with lines for people.

    Returns:
        The outcome; None in the processes that do not lead.

    Raises:
        InputError: labels, data store or configuration cannot be used, or another update runs.
        StoreError: the adapter store cannot be read or written.
        UpdateError: there is no room, or not enough memory. The version in use is as it was.
    """
    folder = site.store / TRAINING
    try:
        if idist.get_rank() != 0:
            if _agreed(None):
                train(idist.get_local_rank(), site, config, folder / JOB)
            return None
        with _alone(folder):
            progress = Progress(folder, log)
            prepared = prepare(site, config, folder / JOB, progress)
            _agreed(isinstance(prepared, TrainingSet))
            if isinstance(prepared, Nothing):
                shutil.rmtree(folder / JOB, ignore_errors=True)  # it would be of no use to anybody
                progress("nothing to learn", 1.0, prepared.why)
                return Outcome("nothing", prepared.why, skipped=prepared.skipped)
            _launch(processes, site, config, folder / JOB)
            outcome = _finish(site, config, folder, prepared, progress)
            shutil.rmtree(folder / JOB, ignore_errors=True)
            with suppress(OSError):  # it is done, whether there is room to say so or not
                progress(outcome.status, 1.0, outcome.message)
            return outcome
    except OSError as error:
        raise UpdateError(
            f"{folder} cannot be written or read ({error.strerror or error}), so nothing was published: make room "
            "there, or make it writable."
        ) from error
    except SafetensorError as error:  # of a full disk too
        raise UpdateError(f"What was learned cannot be written or read ({error}), so nothing was published.") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, CausalSamError) or not _is_out_of_memory(error):
            raise
        raise _no_memory() from error


def _agreed(ready: bool | None) -> bool:
    """Tell all processes whether there is something to learn; those that do not lead wait for it."""
    if idist.get_world_size() == 1:
        return bool(ready)
    return bool(idist.broadcast(float(ready or 0), src=0))


def _launch(processes: int, site: SitePaths, config: UpdateConfig, folder: Path) -> None:
    if processes == 1 or idist.get_world_size() > 1:
        train(idist.get_local_rank(), site, config, folder)
        return
    try:
        # They meet in a file: a port could be in use, by the update of another store for one.
        with tempfile.TemporaryDirectory() as meeting:
            backend, file = fitting_backend(site.device), (Path(meeting) / "processes").as_uri()
            with idist.Parallel(backend, processes, init_method=file, start_method="spawn") as parallel:
                parallel.run(train, site, config, folder)
    except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException) as error:
        last = str(error).strip().splitlines()[-1]
        if "memory" in last.lower() or "SIGKILL" in last:
            raise _no_memory() from error
        kind, _, sentence = last.partition(": ")
        if kind.startswith("causal_sam."):  # an error of ours says all that is to be said
            raise UpdateError(sentence) from error
        raise UpdateError(f"One of {processes} processes that trained has failed: {last}") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error, or its cause, says that memory ran out.

    PyTorch signals GPU out-of-memory by exception class and main-memory exhaustion by message text; oneDNN only reports
    that a primitive could not be created. MONAI's transforms raise an error of their own, with the reason as its cause.
    """
    if error.__cause__ is not None and _is_out_of_memory(error.__cause__):
        return True
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "memory" in text
        or "could not create a primitive" in text
    )


def _no_memory() -> UpdateError:
    return UpdateError("There is not enough memory to train, so nothing was published: use a smaller batch.")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the updates of a store; it ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + LOCK_SECONDS
    with (folder / LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A process that only asks whether an update runs holds the lock for a moment.
                if time.monotonic() > until:
                    raise InputError("Another update of this adapter store runs: wait for it, or stop it.") from None
            time.sleep(0.05)
        yield


def _finish(
    site: SitePaths, config: UpdateConfig, folder: Path, training_set: TrainingSet, progress: Progress
) -> Outcome:
    """Measure what was trained, add it to the store, and publish or reject it."""
    model, store = site.load(), AdapterStore(site.store)
    bundle = AdapterBundle.read(folder / JOB / RESULT)
    own = [load_case(folder / JOB, files) for files in (*training_set.held_out, *training_set.measured_training)]
    generated = generated_cases(training_set.names)
    total, count = 2 * (len(own) + len(generated)), itertools.count(1)
    measured_on = _measured_on(len(training_set.held_out), len(training_set.measured_training), len(generated))

    def measured(labels: LabelPrompter) -> dict[str, float]:
        def done() -> None:
            progress("measuring", 0.8 + 0.2 * next(count) / total)

        return {
            **measure(labels, own, training_set.names, config.plane, on_case=done),
            **measure(labels, generated, training_set.names, "auto", GENERATED, done),
        }

    progress("measuring", 0.8, f"Measuring on {measured_on}.")
    metrics = measured(LabelPrompter.from_bundle(bundle, model))
    before = dict.fromkeys(metrics, 0.0)
    if training_set.continues:
        assert training_set.parent is not None
        with store.lease(training_set.parent) as version:
            before = measured(LabelPrompter.from_bundle(AdapterBundle.read(version.adapter), model))
    film, notes = _film(model, store, config, folder / JOB, training_set, progress)
    training = Training(
        parent=training_set.parent,
        encoder_hash=model.encoder_hash(),
        labels=training_set.used,
        names=training_set.names,
        metrics=metrics,
        parent_metrics=before if training_set.continues else {},
        config={
            **asdict(config),
            "labels": list(config.labels),
            "measured_on_learnt_cases": not training_set.held_out,
            "measured_on": measured_on,
            "cases": {
                case.image_id: {"names": list(case.names), "style": case.style, "others": list(case.others)}
                for case in training_set.earlier
            },
            "skipped": {skip.image_id: skip.why for skip in training_set.skipped},
            "notes": None if notes is None else notes._asdict(),
        },
    )
    version = store.add(replace(bundle, film=film).write, training)
    with suppress(OSError):  # it is no worse without its pictures
        draw_update(folder / REPORTS / version_name(version.number), folder / JOB / LOSSES, metrics, before)
    why = rejection_reason(metrics, before, config.tolerance, config.min_dice, config.min_label_dice)
    made = f"{version_name(version.number)} was trained on {_counted(len(training_set.cases))}"
    if notes is not None:
        made += f" and {notes.corrections} corrected slices" if notes.is_better else ""
    status: Literal["published", "rejected"] = "rejected"
    if why is not None:
        store.reject(version.number, why)
        message = f"{made} and not published. {why} It was measured on {measured_on}."
    else:
        try:
            store.publish(version.number)
            message = (
                f"{made} and published: Dice {_mean(metrics):.3f}, until now {_mean(before):.3f}, on {measured_on}."
            )
            status = "published"
            with suppress(StoreError):  # it is published, and the next one removes what is too much
                store.collect(KEPT_VERSIONS)
        except ConflictError as error:
            message = str(error)
    if training_set.skipped:
        message += f" Left out: {' '.join(skip.why for skip in training_set.skipped)}"
    return Outcome(status, message, version.number, metrics, before, training_set.skipped)


def _film(
    model: CausalSam,
    store: AdapterStore,
    config: UpdateConfig,
    folder: Path,
    training_set: TrainingSet,
    progress: Progress,
) -> tuple[FilmPart | None, NoteResult | None]:
    """The modulation by notes of the new version: trained on real corrections if there are any, else the parent's."""
    encoder, parent = load_text_encoder(), None
    if training_set.continues:
        assert training_set.parent is not None
        with store.lease(training_set.parent) as version:
            parent = fitting_film(AdapterBundle.read(version.adapter), model)
    if not training_set.corrections:
        if parent is not None:
            parent.load(model, encoder.fingerprint)  # a version whose film cannot be loaded is of no use
        return parent, None
    progress("learning from notes", 0.95, f"Learning from {training_set.corrections} slices that notes corrected.")
    samples, held_out = load_samples(folder / NOTES), load_samples(folder / NOTES_HELD_OUT)
    trained = train_on_notes(model, encoder, parent, samples, held_out.real, NOTE_STEPS, config.seed)
    if trained is None:
        return None, None
    film, notes = trained
    return FilmPart.from_training(film, model, encoder.fingerprint) if notes.is_better else parent, notes


def _counted(count: int, kind: str = "") -> str:
    return f"{count} {kind} case{'' if count == 1 else 's'}".replace("  ", " ")


def _measured_on(held_out: int, training: int, generated: int) -> str:
    """Name the cases that a version was measured on, for people."""
    parts = [_counted(held_out, "held-out")] if held_out else []
    if training:
        why = "for labels that no held-out case has" if held_out else "since none is held out yet"
        parts.append(f"{_counted(training)} that it was trained on, {why}")
    if generated:
        parts.append(_counted(generated, "generated"))
    return " and ".join(parts)


def _mean(metrics: Mapping[str, float]) -> float:
    return sum(metrics.values()) / len(metrics) if metrics else 0.0
