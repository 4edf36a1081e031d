"""What an update learns from: accepted labels, read once into files that all processes can read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.intensity import IntensityWindow
from causal_sam.learning.accepted import FINAL, AcceptedLabel, accepted_labels, read_accepted
from causal_sam.learning.gate import Case, is_held_out
from causal_sam.learning.replay import Learnt, choose_replay
from causal_sam.learning.site import Progress, Site, UpdateConfig, write_whole
from causal_sam.learning.store import AdapterStore, UsedLabel, Version, version_name
from causal_sam.learning.views import LabelledSlices, labelled_slices
from causal_sam.prompting.named import MOST_LABELS
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.style import Acquisition, StyledSlices
from causal_sam.text import canonical

DESCRIPTION = "job.json"
# No more cases are measured than these; of more, those whose studies come first by their hash.
MOST_MEASURED = 8


@dataclass(frozen=True)
class Skipped:
    """An accepted label that was not learnt from.

    Attributes:
        image_id: of its image.
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
class JobCase:
    """A case that is learnt from.

    Attributes:
        learnt: what is known of it.
        files: beginning of the names of its files.
        slices: how many have each label.
        weight: how often it is shown, as a share.
    """

    learnt: Learnt
    files: str
    slices: dict[str, int]
    weight: float


@dataclass(frozen=True)
class Job:
    """What an update learns from, ready to be read by all processes.

    Attributes:
        key: of all that it depends on.
        parent: the version that it starts with.
        continues: whether it starts with the weights of the parent; else the parent belongs to another model.
        names: of the labels, those of the parent first.
        cases: to learn from.
        held_out: beginnings of the names of the files of the cases to be measured on.
        seen: these are cases that were learnt from, since none is held out yet.
        used: all labels that the new version will have seen.
        earlier: what is known of all cases that could be shown again.
        skipped: labels that could not be used.
    """

    key: str
    parent: int | None
    continues: bool
    names: tuple[str, ...]
    cases: tuple[JobCase, ...]
    held_out: tuple[str, ...]
    seen: bool
    used: tuple[UsedLabel, ...]
    earlier: tuple[Learnt, ...]
    skipped: tuple[Skipped, ...]


_JOB = TypeAdapter(Job)


def prepare(site: Site, config: UpdateConfig, folder: Path, progress: Progress) -> Job | Nothing:
    """Read what was accepted since the version in use, and some of what was accepted before, into a folder.

    Args:
        site: where labels come from, and where versions go.
        config: how to learn.
        folder: of the job. What a killed update has left there is used if it would learn the same.
        progress: told what is done.

    Raises:
        InputError: the data store cannot be used.
        StoreError: the adapter store cannot be read.
    """
    progress("reading", 0.0, "Reading accepted labels.")
    model, store = site.load(), AdapterStore(site.store)
    parent = None if store.current() is None else store.version(store.current())
    continues = parent is not None and parent.manifest.training.encoder_hash == model.encoder_hash()
    known = {label.image: label for label in parent.manifest.training.labels} if continues else {}
    trained, apart, used, skipped = [], [], [], []
    for label in accepted_labels(site.data):
        try:
            digest = label.digest()
        except InputError as error:
            skipped.append(Skipped(label.image_id, str(error)))
            continue
        if is_held_out(label.study, config.validation):
            apart.append((label, digest))
            continue
        used.append(UsedLabel(label.image_id, FINAL, digest))
        trained.append((label, known.get(label.image_id) == used[-1]))
    if not any(not seen for _, seen in trained):
        return Nothing(_nothing_new(trained, apart, skipped, parent), tuple(skipped))
    key = _key(model, parent, config, used, apart)
    job = _left_behind(folder, key)
    if job is not None:
        progress("reading", 0.1, "Going on with the update that was stopped.")
        return job
    shutil.rmtree(folder, ignore_errors=True)
    (folder).mkdir()
    reader = _Reader(site, config, model, folder, parent if continues else None)
    job = reader.read(key, parent, trained, apart, tuple(used), tuple(skipped))
    if isinstance(job, Job):
        write_whole(folder / DESCRIPTION, _JOB.dump_json(job))
    return job


def load_job(folder: Path) -> Job:
    """Read the job of a folder."""
    return _JOB.validate_json((folder / DESCRIPTION).read_bytes())


def _nothing_new(trained: Sequence, apart: Sequence, skipped: Sequence, parent: Version | None) -> str:
    if not trained and not apart and not skipped:
        return "No label has been accepted yet: save one with the tag final."
    if parent is None:
        return (
            f"Of {len(trained) + len(apart) + len(skipped)} accepted labels {len(apart)} are held out to measure, and "
            f"{len(skipped)} cannot be used: there is none to learn from, so accept more."
        )
    return f"No label was accepted since {version_name(parent.number)} that can be learnt from: it stays in use."


def _key(
    model: CausalSam, parent: Version | None, config: UpdateConfig, used: Sequence[UsedLabel], apart: Sequence
) -> str:
    """Digest of all that an update depends on."""
    told = {
        "model": [model.name, model.image_size, model.encoder_hash()],
        "parent": None if parent is None else [parent.number, parent.manifest.adapter_sha256],
        "config": asdict(config),
        "used": [asdict(label) for label in used],
        "held out": [[label.image_id, digest] for label, digest in apart],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _left_behind(folder: Path, key: str) -> Job | None:
    """The job that a killed update has left, if it is the same."""
    try:
        job = load_job(folder)
    except (OSError, ValidationError):
        return None
    return job if job.key == key else None


class _Reader:
    """Reads accepted labels into the files of a job."""

    def __init__(
        self, site: Site, config: UpdateConfig, model: CausalSam, folder: Path, continued: Version | None
    ) -> None:
        self._site, self._config, self._model, self._folder, self._continued = site, config, model, folder, continued
        # Names that mean the same are one label, under the spelling that came first.
        names = () if continued is None else continued.manifest.training.names
        self._names = {canonical(name): name for name in names}
        self._only = {canonical(name) for name in config.labels}

    def read(
        self,
        key: str,
        parent: Version | None,
        trained: Sequence[tuple[AcceptedLabel, bool]],
        apart: Sequence[tuple[AcceptedLabel, str]],
        used: tuple[UsedLabel, ...],
        skipped: tuple[Skipped, ...],
    ) -> Job | Nothing:
        skips, read = list(skipped), {}
        earlier = self._earlier(trained)
        new = [label for label, seen in trained if not seen]
        for label in new:
            self._keep(label, read, skips)
        if not read:
            why = f" The first of them: {skips[0].why}" if skips else ""
            return Nothing(f"None of the new labels can be learnt from.{why}", tuple(skips))
        config = self._config
        number = 0 if parent is None else parent.number
        replayed = choose_replay(earlier, len(read), config.replay, config.seed + number)
        by_id = {label.image_id: label for label, _ in trained}
        fresh = list(read)
        for case in replayed:
            self._keep(by_id[case.image_id], read, skips)
        again = [image_id for image_id in read if image_id not in fresh]
        held_out = self._held_out(apart, skips)
        names = tuple(self._names.values())
        if len(names) > MOST_LABELS:
            raise InputError(f"At most {MOST_LABELS} labels can be learnt, not {len(names)}: choose some of them.")
        share = config.replay if again else 0.0
        cases = tuple(
            self._case(n, *read[image_id], names, share / len(again) if image_id in again else (1 - share) / len(fresh))
            for n, image_id in enumerate([*fresh, *again])
        )
        seen = not held_out
        if seen:  # better than not to measure at all
            held_out = [_save_case(self._folder, f"measured{n:04d}", *read[i][1:]) for n, i in enumerate(fresh)]
        left_out = {skip.image_id for skip in skips}
        return Job(
            key=key,
            parent=None if parent is None else parent.number,
            continues=self._continued is not None,
            names=names,
            cases=cases,
            held_out=tuple(held_out[:MOST_MEASURED]),
            seen=seen,
            used=tuple(label for label in used if label.image not in left_out),
            earlier=tuple({case.image_id: case for case in (*earlier, *(c.learnt for c in cases))}.values()),
            skipped=tuple(skips),
        )

    def _earlier(self, trained: Sequence[tuple[AcceptedLabel, bool]]) -> list[Learnt]:
        """The cases that the parent has learnt from and that are still as they were."""
        if self._continued is None:
            return []
        still = {label.image_id for label, seen in trained if seen}
        told = self._continued.manifest.training.config["cases"]
        return [
            Learnt(image_id, tuple(case["names"]), case["style"])
            for image_id, case in told.items()
            if image_id in still
        ]

    def _keep(self, label: AcceptedLabel, read: dict[str, tuple], skips: list[Skipped]) -> None:
        try:
            volume, structures = self._read(label)
        except InputError as error:
            skips.append(Skipped(label.image_id, str(error)))
        else:
            read[label.image_id] = (label.image_id, volume, structures)

    def _read(self, label: AcceptedLabel) -> Case:
        volume, drawn = read_accepted(label, self._site.values)
        structures: dict[str, NDArray[np.bool_]] = {}
        for name, mask in drawn.items():
            meaning = canonical(name)
            if self._only and meaning not in self._only:
                continue
            ours = self._names.setdefault(meaning, name)
            structures[ours] = structures[ours] | mask if ours in structures else mask
        if not structures:
            raise InputError(f"None of the labels that are to be learnt was drawn in {label.image_id}.")
        return volume, structures

    def _held_out(self, apart: Sequence[tuple[AcceptedLabel, str]], skips: list[Skipped]) -> list[str]:
        files = []
        for label, _ in sorted(apart, key=lambda one: hashlib.sha256(one[0].study.encode()).digest()):
            if len(files) == MOST_MEASURED:
                break
            try:
                files.append(_save_case(self._folder, f"measured{len(files):04d}", *self._read(label)))
            except InputError as error:
                skips.append(Skipped(label.image_id, str(error)))
        return files

    def _case(
        self,
        number: int,
        image_id: str,
        volume: Volume,
        structures: dict[str, NDArray[np.bool_]],
        names: tuple[str, ...],
        weight: float,
    ) -> JobCase:
        case = labelled_slices(volume, structures, names, self._model.image_size, self._config.plane)
        files = f"case{number:04d}"
        _save_slices(self._folder, files, case)
        slices = {
            name: int((case.label_map == value).any(axis=(1, 2)).sum())
            for value, name in enumerate(names, start=1)
            if name in structures
        }
        made = case.slices.acquisition
        style = " ".join(filter(None, (made.modality, made.sequence, made.phase, made.vendor)))
        return JobCase(Learnt(image_id, tuple(structures), style), files, slices, weight)


def _save_slices(folder: Path, files: str, case: LabelledSlices) -> None:
    np.save(folder / f"{files}-image.npy", case.slices.array)
    np.save(folder / f"{files}-labels.npy", case.label_map)
    told = {
        "spacing": case.slices.spacing,
        "acquisition": asdict(case.slices.acquisition),
        "background": case.slices.background,
        "window": asdict(case.window),
        "known": case.known.tolist(),
    }
    (folder / f"{files}.json").write_text(json.dumps(told, default=float))


def load_slices(folder: Path, files: str) -> LabelledSlices:
    """Read a case; processes on one machine share its arrays."""
    told = json.loads((folder / f"{files}.json").read_text())
    made = told["acquisition"]
    if made["pixel_spacing"] is not None:
        made["pixel_spacing"] = tuple(made["pixel_spacing"])
    image = np.load(folder / f"{files}-image.npy", mmap_mode="r")
    slices = StyledSlices(image, tuple(told["spacing"]), Acquisition(**made), told["background"])
    label_map = np.load(folder / f"{files}-labels.npy", mmap_mode="r")
    return LabelledSlices(slices, IntensityWindow(**told["window"]), label_map, np.array(told["known"]))


def _save_case(folder: Path, files: str, volume: Volume, structures: Mapping[str, NDArray[np.bool_]]) -> str:
    masks = {f"mask {name}": mask for name, mask in structures.items()}
    with (folder / f"{files}.npz").open("wb") as file:
        np.savez_compressed(file, array=volume.array, affine=volume.affine, modality=volume.modality, **masks)
    return files


def load_case(folder: Path, files: str) -> Case:
    """Read a case to be measured on."""
    with np.load(folder / f"{files}.npz") as file:
        volume = Volume(file["array"], file["affine"], str(file["modality"]))
        return volume, {key.removeprefix("mask "): file[key] for key in file.files if key.startswith("mask ")}
