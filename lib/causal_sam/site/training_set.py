"""Training data of an update: accepted labels, read once into files that all processes can read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from causal_sam import __version__
from causal_sam.atomic import atomic_write, sync
from causal_sam.correction.journal import Journal
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.prompting.named import MAX_LABELS
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.site.accepted import FINAL, AcceptedLabel, accepted_labels, read_accepted
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.case_files import save_case, save_slices
from causal_sam.site.paths import Progress, SitePaths, UpdateConfig, UpdateError
from causal_sam.site.publish_gate import is_held_out, study_digest
from causal_sam.site.replay import ReplayCase, choose_replay
from causal_sam.site.versions import UsedLabel, Version, version_name
from causal_sam.text import canonical
from causal_sam.training.corrections import CorrectionSamples, samples_of_case, save_samples
from causal_sam.training.style_pairs import labelled_slices

DESCRIPTION = "job.json"
# Corrections by notes, of training cases and of held-out ones.
NOTES, NOTES_HELD_OUT = "notes.npz", "notes-apart.npz"
# No more cases are measured than these; of more, those whose studies come first by their hash.
MAX_MEASURED = 8


@dataclass(frozen=True)
class Skipped:
    """An accepted label that is not in the training set.

    Attributes:
        image_id: id of its image.
        why: a sentence.
    """

    image_id: str
    why: str


@dataclass(frozen=True)
class Nothing:
    """There is nothing to learn.

    Attributes:
        why: a sentence.
        skipped: labels that could not be used.
    """

    why: str
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class TrainingCase:
    """A case of the training set.

    Attributes:
        record: record of the case for replay.
        files: beginning of the names of its files.
        slices: label -> number of slices that have it.
        weight: share of the training samples that are from it.
    """

    record: ReplayCase
    files: str
    slices: dict[str, int]
    weight: float


@dataclass(frozen=True)
class TrainingSet:
    """Training data of an update, ready to be read by all processes.

    Attributes:
        key: SHA-256 of every input of the update; a killed update resumes only if it is equal.
        parent: the version that it starts with.
        continues: whether it starts with the weights of the parent; else the parent belongs to another model.
        names: names of the labels, those of the parent first.
        cases: cases to learn from.
        held_out: beginnings of the file names of the held-out cases, which Dice is measured on.
        measured_training: the same for training cases, for labels that no held-out case has.
        used: all labels that the new version will have seen.
        earlier: records of all cases that could be replayed.
        skipped: labels that could not be used.
        corrections: number of slices with real corrections by notes.
    """

    key: str
    parent: int | None
    continues: bool
    names: tuple[str, ...]
    cases: tuple[TrainingCase, ...]
    held_out: tuple[str, ...]
    measured_training: tuple[str, ...]
    used: tuple[UsedLabel, ...]
    earlier: tuple[ReplayCase, ...]
    skipped: tuple[Skipped, ...]
    corrections: int


_TRAINING_SET = TypeAdapter(TrainingSet)


def prepare(site: SitePaths, config: UpdateConfig, folder: Path, progress: Progress) -> TrainingSet | Nothing:
    """Read what was accepted since the version in use, and some of what was accepted before, into a folder.

    Args:
        site: folders of the labels and of the versions.
        config: settings of the update.
        folder: folder of the training set. Files of a killed update are used again if their key is equal.
        progress: called with the work done.

    Raises:
        InputError: the data store cannot be used.
        StoreError: the adapter store cannot be read.
        UpdateError: there are more labels than can be learned.
        OSError: the folder cannot be written.
    """
    progress("reading", 0.0, "Reading accepted labels.")
    model, store = site.load(), AdapterStore(site.store)
    parent = None if (current := store.current()) is None else store.version(current)
    continued = parent if parent and parent.manifest.training.encoder_hash == model.encoder_hash() else None
    known = {label.image: label for label in continued.manifest.training.labels} if continued else {}
    trained, held_out, used, skipped = [], [], [], []
    others = _drawn_besides(continued, config) if continued else set()
    for label in accepted_labels(site.data):
        try:
            digest = label.digest()
            if not label.image.exists():
                raise InputError(f"The image of {label.image_id} was deleted.")
        except InputError as error:
            skipped.append(Skipped(label.image_id, str(error)))
            continue
        if is_held_out(label.study, config.validation):
            held_out.append((label, digest))
            continue
        used.append(UsedLabel(label.image_id, FINAL, digest))
        trained.append((label, known.get(label.image_id) == used[-1] and label.image_id not in others))
    if not any(not seen for _, seen in trained):
        return Nothing(_nothing_new(trained, held_out, skipped, parent), tuple(skipped))
    key = _key(site, model, parent, config, used, held_out)
    left = _left_behind(folder, key)
    if left is not None:
        progress("reading", 0.1, "Going on with the update that was stopped.")
        return left
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    reader = _Reader(site, config, model, folder, continued)
    training_set = reader.read(key, parent, trained, held_out, tuple(used), tuple(skipped))
    if isinstance(training_set, TrainingSet):
        for path in folder.iterdir():  # what is described is there, also after a power failure
            sync(path)
        with atomic_write(folder / DESCRIPTION) as part:
            part.write_bytes(_TRAINING_SET.dump_json(training_set))
    return training_set


def load_training_set(folder: Path) -> TrainingSet:
    """Read the training set of a folder."""
    return _TRAINING_SET.validate_json((folder / DESCRIPTION).read_bytes())


def _nothing_new(trained: Sequence, held_out: Sequence, skipped: Sequence, parent: Version | None) -> str:
    count = len(trained) + len(held_out) + len(skipped)
    if not count:
        return "No label has been accepted yet: save one with the tag final."
    if parent is None:
        return (
            f"Of {count} accepted labels {len(held_out)} are held out to measure, and {len(skipped)} cannot be used: "
            "there is none to learn from, so accept more."
        )
    return f"No label was accepted since {version_name(parent.number)} that can be learned from: it stays in use."


def _drawn_besides(parent: Version, config: UpdateConfig) -> set[str]:
    """Return the images with labels that the parent's update excluded and this one includes."""
    only = {canonical(name) for name in config.labels}
    cases = parent.manifest.training.config.get("cases", {})
    return {
        image_id
        for image_id, case in cases.items()
        if any(not only or canonical(name) in only for name in case.get("others", ()))
    }


def _key(
    site: SitePaths,
    model: CausalSam,
    parent: Version | None,
    config: UpdateConfig,
    used: Sequence[UsedLabel],
    held_out: Sequence,
) -> str:
    """Return the SHA-256 of every input of an update."""
    inputs = {
        "package": __version__,
        "values": dict(site.values),
        "model": [model.name, model.image_size, model.encoder_hash()],
        "parent": None if parent is None else [parent.number, parent.manifest.adapter_sha256],
        "config": asdict(config),
        "used": [asdict(label) for label in used],
        "held out": [[label.image_id, digest] for label, digest in held_out],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _left_behind(folder: Path, key: str) -> TrainingSet | None:
    """Return the training set that a killed update has left, if its key is the same."""
    try:
        training_set = load_training_set(folder)
    except (OSError, ValidationError):
        return None
    return training_set if training_set.key == key else None


@dataclass
class _Measured:
    """Files of cases to be measured on, and the labels that they have."""

    files: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


class _Reader:
    """Reads accepted labels into the files of a training set."""

    def __init__(
        self, site: SitePaths, config: UpdateConfig, model: CausalSam, folder: Path, continued: Version | None
    ) -> None:
        self._site, self._config, self._model, self._folder, self._continued = site, config, model, folder, continued
        # Names that mean the same are one label, under the spelling that came first.
        names = () if continued is None else continued.manifest.training.names
        self._names = {canonical(name): name for name in names}
        # Labels that the parent knows are learned too, or they would be forgotten.
        self._only = {canonical(name) for name in config.labels} | (self._names.keys() if config.labels else set())
        self._count = self._measured = 0
        self._notes: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for entry in Journal(site.journal).entries() if site.journal else ():
            self._notes.setdefault((str(entry.get("image")), int(entry.get("frame") or 0)), []).append(entry)
        self._samples, self._held_out_samples = CorrectionSamples([], []), CorrectionSamples([], [])

    def read(
        self,
        key: str,
        parent: Version | None,
        trained: Sequence[tuple[AcceptedLabel, bool]],
        held_out: Sequence[tuple[AcceptedLabel, str]],
        used: tuple[UsedLabel, ...],
        skipped: tuple[Skipped, ...],
    ) -> TrainingSet | Nothing:
        config, skips = self._config, list(skipped)
        earlier = self._earlier(trained)
        by_id = {label.image_id: label for label, _ in trained}
        fresh = self._keep([label for label, seen in trained if not seen], skips)
        if not fresh:
            why = f" The first of them: {skips[0].why}" if skips else ""
            return Nothing(f"None of the new labels can be learned from.{why}", tuple(skips))
        number = 0 if parent is None else parent.number
        replayed = choose_replay(earlier, len(fresh), config.replay, config.seed + number)
        again = self._keep([by_id[case.image_id] for case in replayed], skips)
        share = config.replay if again else 0.0
        cases = (
            *(replace(case, weight=(1 - share) / len(fresh)) for case in fresh),
            *(replace(case, weight=share / len(again)) for case in again),
        )
        # From here on no name is added: labels that are never learned are not measured either.
        self._only = set(self._names)
        measured = _Measured()
        for label, _ in sorted(held_out, key=lambda pair: study_digest(pair[0].study)):
            self._save_measured(label, measured, tuple(self._names.values()), skips, self._held_out_samples)
        training = _Measured()
        # Better than not to measure these labels at all.
        missing = tuple(name for name in self._names.values() if name not in measured.names)
        for case in cases:
            if not set(missing).isdisjoint(case.record.names):
                self._save_measured(by_id[case.record.image_id], training, missing, skips, CorrectionSamples([], []))
        save_samples(self._folder / NOTES, self._samples)
        save_samples(self._folder / NOTES_HELD_OUT, self._held_out_samples)
        left_out = {skip.image_id for skip in skips}
        return TrainingSet(
            key=key,
            parent=None if parent is None else parent.number,
            continues=self._continued is not None,
            names=tuple(self._names.values()),
            cases=cases,
            held_out=tuple(measured.files),
            measured_training=tuple(training.files),
            used=tuple(label for label in used if label.image not in left_out),
            earlier=tuple({case.image_id: case for case in (*earlier, *(c.record for c in cases))}.values()),
            skipped=tuple(skips),
            corrections=len(self._samples.real),
        )

    def _earlier(self, trained: Sequence[tuple[AcceptedLabel, bool]]) -> list[ReplayCase]:
        """Return the parent's training cases that are unchanged."""
        if self._continued is None:
            return []
        still = {label.image_id for label, seen in trained if seen}
        cases = self._continued.manifest.training.config.get("cases", {})
        return [
            ReplayCase(image_id, tuple(case["names"]), case["style"], tuple(case.get("others", ())))
            for image_id, case in cases.items()
            if image_id in still
        ]

    def _keep(self, labels: Sequence[AcceptedLabel], skips: list[Skipped]) -> list[TrainingCase]:
        """Read labels into files, one after the other: all of them may be more than fits into memory."""
        kept = []
        for label in labels:
            try:
                volume, structures, others = self._read(label)
                case = self._save(label.image_id, volume, structures, others)
                self._learn_notes(label.image_id, volume, structures, self._samples)
                kept.append(case)
            except InputError as error:
                skips.append(Skipped(label.image_id, str(error)))
        return kept

    def _learn_notes(
        self, image_id: str, volume: Volume, structures: dict[str, NDArray[np.bool_]], samples: CorrectionSamples
    ) -> None:
        entries, rng = self._notes.get((image_id, volume.frame), []), np.random.default_rng(self._config.seed)
        found = samples_of_case(entries, volume, structures, self._config.plane, self._model.image_size, rng)
        samples.real.extend(found.real)
        samples.simulated.extend(found.simulated)

    def _read(self, label: AcceptedLabel) -> tuple[Volume, dict[str, NDArray[np.bool_]], tuple[str, ...]]:
        """Return the image, the structures to learn, and the names of the others."""
        volume, drawn = read_accepted(label, self._site.values)
        structures: dict[str, NDArray[np.bool_]] = {}
        others = []
        for name, mask in drawn.items():
            meaning = canonical(name)
            if self._only and meaning not in self._only:
                others.append(name)
                continue
            ours = self._names.setdefault(meaning, name)
            structures[ours] = structures[ours] | mask if ours in structures else mask
        if len(self._names) > MAX_LABELS:
            raise UpdateError(f"At most {MAX_LABELS} labels can be learned: choose some of them with labels.")
        if not structures:
            raise InputError(f"None of the labels that are to be learned was drawn in {label.image_id}.")
        return volume, structures, tuple(others)

    def _save_measured(
        self,
        label: AcceptedLabel,
        measured: _Measured,
        names: Sequence[str],
        skips: list[Skipped],
        samples: CorrectionSamples,
    ) -> None:
        """Write the named structures of a held-out label into a file, for at most `MAX_MEASURED` labels."""
        if len(measured.files) == MAX_MEASURED:
            return
        try:
            volume, structures, _ = self._read(label)
            asked = {name: mask for name, mask in structures.items() if name in names}
            files = f"measured{self._measured:04d}"
            save_case(self._folder, files, volume, asked)
            self._learn_notes(label.image_id, volume, structures, samples)
        except InputError as error:
            skips.append(Skipped(label.image_id, str(error)))
            return
        self._measured += 1
        measured.files.append(files)
        measured.names.update(asked)

    def _save(
        self, image_id: str, volume: Volume, structures: dict[str, NDArray[np.bool_]], others: tuple[str, ...]
    ) -> TrainingCase:
        # Names that come later are put behind these, so the values in the label map stay.
        names = tuple(self._names.values())
        case = labelled_slices(volume, structures, names, self._model.image_size, self._config.plane)
        files = f"case{self._count:04d}"
        self._count += 1
        save_slices(self._folder, files, case)
        slices = {
            name: int((case.label_map == value).any(axis=(1, 2)).sum())
            for value, name in enumerate(names, start=1)
            if name in structures
        }
        made = case.slices.acquisition
        style = " ".join(filter(None, (made.modality, made.sequence, made.phase, made.vendor)))
        return TrainingCase(ReplayCase(image_id, tuple(structures), style, others), files, slices, 0.0)
