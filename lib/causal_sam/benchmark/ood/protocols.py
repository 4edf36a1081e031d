"""Source domains for training, and target domains that differ in style or anatomy for testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from causal_sam.benchmark.cases import join_structures
from causal_sam.data_sets.cases import Case, matching_cases, read_cases
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.phantom import brain, studies
from causal_sam.style import Acquisition
from causal_sam.style.headers import read_acquisition

# Kinds of difference between targets and sources.
SHIFTS = ("scanner", "modality", "anatomy", "data set")
# Share of the cases of a source domain that are held out.
HELD_OUT_SHARE = 1 / 3
# Slice spacing of the brains in mm, as in clinical routine.
BRAIN_SLICE_MM = 8
BRAIN_SOURCES = ("T1 3 T A", "T1 1.5 T B", "T1 3 T C")
BRAIN_TARGETS = {
    "T1 0.5 T": "scanner", "T1 7 T": "scanner", "T2 3 T": "modality", "PD 1.5 T": "modality", "FLAIR 1.5 T": "modality",
}  # fmt: skip
PHANTOM_SOURCES = ("ct-portal-venous", "ct-low-dose")
PHANTOM_TARGETS = {"mr-t1": "modality", "mr-t2": "modality"}
PHANTOM_PATIENTS = 9
PHANTOM_LABELS = (
    "liver", "spleen", "right kidney", "left kidney", "stomach", "gallbladder", "pancreas", "aorta",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scan:
    """A labelled image of one patient in one style.

    Attributes:
        domain: style or data set, as named in the report.
        patient: name of the patient, equal for all of the patient's images.
        volume: image.
        structures: name -> mask in the volume's voxel order.
        acquisition: modality and sequence or phase.
    """

    domain: str
    patient: str
    volume: Volume
    structures: dict[str, NDArray[np.bool_]]
    acquisition: Acquisition


@dataclass(frozen=True, eq=False)
class Split:
    """The scans of one repetition.

    Attributes:
        labels: structures to segment.
        train: scans of the training patients in the source domains.
        test: scans of the other patients in all domains.
        shifts: domain -> difference from the sources: "none", "scanner", "modality", "anatomy" or "data set".
        probe_train: scans of the training patients in all styles, to train the style probe only.
    """

    labels: tuple[str, ...]
    train: list[Scan]
    test: list[Scan]
    shifts: dict[str, str]
    probe_train: list[Scan]


class _StyledProtocol:
    """Anatomies that are rendered in any style. Every training patient has one scan, in the sources' styles by turns.

    Attributes:
        labels: structures to segment.
        sources: styles of the source domains.
        targets: style of a target domain -> difference from the sources.
        patients: names of all anatomies.
    """

    prompt = "name"
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    targets: dict[str, str]
    patients: Sequence[str]

    def scan(self, name: str, style: str) -> Scan:
        """Render an anatomy in a style."""
        raise NotImplementedError

    def split(self, seed: int) -> Split:
        """Draw the training and test patients."""
        train, held_out = _divide(list(self.patients), seed)
        styles = (*self.sources, *self.targets)
        return Split(
            self.labels,
            [self.scan(name, self.sources[n % len(self.sources)]) for n, name in enumerate(train)],
            [self.scan(name, style) for name in held_out for style in styles],
            dict.fromkeys(self.sources, "none") | self.targets,
            [self.scan(name, style) for name in train for style in styles],
        )


class BrainProtocol(_StyledProtocol):
    """Real brain anatomies in generated styles: T1 of three scanners, then other scanners and contrasts.

    Args:
        directory: folder of label maps with FreeSurfer's numbers.

    Raises:
        InputError: there are fewer than three maps, or they are invalid.
    """

    name = "brain"
    labels, sources, targets = brain.SEGMENTED, BRAIN_SOURCES, BRAIN_TARGETS

    def __init__(self, directory: Path) -> None:
        paths = sorted(directory.glob("*.nii.gz"))
        if len(paths) < 3:
            raise InputError(f"{directory} needs at least three label maps of brains (.nii.gz), not {len(paths)}.")
        self._maps = {path.name.removesuffix(".nii.gz"): _thick_slices(read_volume(path)) for path in paths}
        self.patients = list(self._maps)

    def scan(self, name: str, style: str) -> Scan:
        """Render an anatomy in a style of `causal_sam.phantom.brain.STYLES`."""
        values, affine = self._maps[name]
        seed = 1000 * self.patients.index(name) + list(brain.STYLES).index(style)
        volume, structures = brain.render_brain(values, affine, brain.STYLES[style], seed)
        return Scan(style, name, volume, structures, read_acquisition(volume))


class PhantomProtocol(_StyledProtocol):
    """Generated abdomens: CT of two kinds, then MR."""

    name = "phantom"
    labels, sources, targets = PHANTOM_LABELS, PHANTOM_SOURCES, PHANTOM_TARGETS
    patients = tuple(str(n) for n in range(PHANTOM_PATIENTS))

    def scan(self, name: str, style: str) -> Scan:
        """Render an abdomen; see `phantom_scan`."""
        return phantom_scan(name, style)


class DataProtocol:
    """Real labelled images: training on some sequences, modalities or data sets, and testing on others too.

    Args:
        directory: folder of labelled images.
        kind: data set in the folder, or "auto".
        sources: patterns SET/CASE/SEQUENCE of the images to train on.
        targets: patterns of the other images to test on.
        shift: difference between targets and sources.
        labels: structures to segment; empty for those that sources and targets share.
        joins: name of a union of structures -> these structures.
        prompt: "name", or "click" if the targets have other structures than the sources.

    Raises:
        InputError: a pattern matches no case, or sources and targets share no structure.
    """

    def __init__(
        self,
        directory: Path,
        kind: str,
        sources: Sequence[str],
        targets: Sequence[str],
        shift: str,
        labels: Sequence[str] = (),
        joins: dict[str, list[str]] | None = None,
        prompt: str = "name",
    ) -> None:
        cases = read_cases(directory, kind)
        self.name = f"{' + '.join(sources)} → {' + '.join(targets)}"
        self.prompt = prompt
        self._shift = shift
        read = {
            "source": [read_scan(case, joins or {}) for case in matching_cases(cases, sources)],
            "target": [read_scan(case, joins or {}) for case in matching_cases(cases, targets)],
        }
        self._sources, self._targets = read["source"], read["target"]
        available = [dict.fromkeys(name for scan in scans for name in scan.structures) for scans in read.values()]
        shared = [name for name in available[0] if prompt == "click" or name in available[1]]
        self._labels = tuple(name for name in shared if not labels or name in labels)
        if not self._labels:
            raise InputError(
                f"Sources and targets share no structure: sources have {', '.join(available[0])}, targets "
                f"{', '.join(available[1])}. Structures with other names can be tested with a click as prompt."
            )

    def split(self, seed: int) -> Split:
        """Draw the training and test patients; no patient is in both."""
        patients = list(dict.fromkeys(scan.patient for scan in self._sources))
        train, held_out = _divide(patients, seed) if len(patients) > 1 else (patients, [])
        trained = set(train)
        targets = [scan for scan in self._targets if scan.patient not in trained]
        test = [scan for scan in self._sources if scan.patient in set(held_out)] + targets
        shifts = {scan.domain: "none" for scan in self._sources}
        shifts |= {scan.domain: self._shift for scan in self._targets if scan.domain not in shifts}
        probe = [scan for scan in self._sources + self._targets if scan.patient in trained]
        return Split(self._labels, [s for s in self._sources if s.patient in trained], test, shifts, probe)


def _divide(names: list[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the names to train on and the held-out names, at least one of each."""
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    count = min(max(1, round(HELD_OUT_SHARE * len(names))), len(names) - 1)
    return [names[n] for n in order[count:]], [names[n] for n in order[:count]]


def _thick_slices(volume: Volume) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Reorient a label map to LPS, crop it to the brain and keep axial slices `BRAIN_SLICE_MM` apart."""
    image = nibabel.Nifti1Image(np.rint(volume.array).astype(np.int32), volume.affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(volume.affine), nibabel.orientations.axcodes2ornt("LPS")
    )
    image = image.as_reoriented(turn)
    values = np.asarray(image.dataobj)
    structures = brain.structure_map(values)
    inside = np.nonzero((structures > 0) & (structures < brain.EXTRACEREBRAL))
    step = max(1, round(BRAIN_SLICE_MM / float(voxel_sizes(image.affine)[2])))
    # The brain with a margin; the neck is left out.
    window = [slice(max(0, int(axis.min()) - 8), int(axis.max()) + 9) for axis in inside]
    window[2] = slice(int(inside[2].min()), int(inside[2].max()) + 1, step)
    part = image.slicer[tuple(window)]
    return np.asarray(part.dataobj), part.affine


def phantom_scan(patient: str, style: str) -> Scan:
    """Scan a generated abdomen.

    Args:
        patient: number of the patient as text.
        style: key of `causal_sam.phantom.studies.STYLES`.
    """
    number = int(patient)
    volume, labels = studies.render_study(studies.STYLES[style], number, anatomy=100 + number)
    structures = {name: labels == studies.LABELS[name] for name in PHANTOM_LABELS}
    return Scan(style, patient, volume, structures, read_acquisition(volume))


def read_scan(case: Case, joins: dict[str, list[str]]) -> Scan:
    """Read a case and add unions of its structures."""
    volume, structures = case.read()
    join_structures(structures, joins)
    acquisition = read_acquisition(volume)
    if case.sequence and case.sequence != "unknown":
        if volume.modality == "CT":
            acquisition = replace(acquisition, phase=case.sequence)
        else:
            acquisition = replace(acquisition, sequence=case.sequence)
    domain = " ".join(dict.fromkeys(filter(None, (case.group, volume.modality, case.sequence))))
    return Scan(domain, f"{case.group}/{case.name}", volume, structures, acquisition)
