"""Bodies of requests and answers under ``/causal-sam/api``; voxels are indices (i, j, k) of the image file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask
from causal_sam.notes import Plan
from serving.data.label_set import checked_label
from serving.requests.clicks import MAX_CORNERS, MAX_POINTS

Voxel = tuple[int, int, int]
Plane = Literal["auto", "axial", "coronal", "sagittal"]


class Mask(BaseModel):
    """A mask as the bits of its bounding box.

    Attributes:
        shape: shape of the volume.
        corner: first voxel of the bounding box.
        extent: size of the bounding box; zeros for an empty mask.
        bits: voxels of the bounding box, the last axis fastest, eight a byte, the first in the highest bit; compressed
            by zlib, as base64.
    """

    shape: Voxel
    corner: Voxel
    extent: Voxel
    bits: str

    @classmethod
    def of(cls, mask: PackedMask) -> Mask:
        """Return the schema of a packed mask."""
        return cls(**mask.as_json())

    def unpacked(self, shape: Voxel) -> NDArray[np.bool_]:
        """Return the mask (I, J, K) of a volume.

        Raises:
            InputError: it is damaged, or of a volume of another shape.
        """
        if self.shape != shape:
            raise InputError(f"The mask is of a volume of {self.shape} voxels, and the image has {shape}.")
        return PackedMask.from_json(self.model_dump()).unpack()


class StepRequest(BaseModel):
    """A request that changes a session.

    Attributes:
        known: ``key`` of the masks that the client holds; the answer has all others.
    """

    known: list[str] = Field(default=[], max_length=1000)


class LabelRequest(StepRequest):
    """A request about one label.

    Attributes:
        label: any name.
        plane: plane in which the slices are segmented; by default that of the configuration.
        follow: go on from the prompted slices through the volume.
    """

    label: str
    plane: Plane | None = None
    follow: bool = True

    @property
    def name(self) -> str:
        """Name of the label.

        Raises:
            InputError: no label can be called so.
        """
        return checked_label(self.label)


class Points(LabelRequest):
    """Points inside and outside of a label, in addition to those before."""

    kind: Literal["points"]
    foreground: list[Voxel] = Field(default=[], max_length=MAX_POINTS)
    background: list[Voxel] = Field(default=[], max_length=MAX_POINTS)


class Box(LabelRequest):
    """A box (i0, i1, j0, j1, k0, k1) around a label, both ends inclusive."""

    kind: Literal["box"]
    box: tuple[int, int, int, int, int, int]


class LassoCurve(LabelRequest):
    """A closed curve around a label on one slice."""

    kind: Literal["lasso"]
    corners: list[Voxel] = Field(min_length=3, max_length=MAX_CORNERS)


class Scribble(LabelRequest):
    """Strokes inside and outside of a label."""

    kind: Literal["scribble"]
    inside: Mask | None = None
    outside: Mask | None = None


class Brush(LabelRequest):
    """Voxels that are painted into a label or erased from it, as they are."""

    kind: Literal["brush"]
    painted: Mask
    erase: bool = False


Prompt = Annotated[Points | Box | LassoCurve | Scribble | Brush, Field(discriminator="kind")]


class HistoryRequest(StepRequest):
    """Index of the step to show: the one before undoes a step, the one behind repeats it."""

    position: int = Field(ge=0)


class LabelsRequest(StepRequest):
    """Names of labels."""

    labels: list[str] = Field(max_length=1000)


class AutomaticRequest(LabelsRequest):
    """Labels to segment by name; none for all. ``replace`` also segments those again that somebody corrected."""

    labels: list[str] = Field(default=[], max_length=1000)
    replace: bool = False


class NoteText(BaseModel):
    """A note.

    Attributes:
        note: what is wrong, in words.
        label: label that a note without a name is about.
        plan: what the note means, as a preview or the choice of an answer says; None to have the note read.
    """

    note: str
    label: str | None = None
    plan: Plan | None = None


class NoteRequest(NoteText, StepRequest):
    """A note to carry out."""


class Step(BaseModel):
    """A step of the history: its kind, and a phrase for people."""

    kind: str
    text: str


class Label(BaseModel):
    """A label of a session.

    Attributes:
        source: last author of the mask: a model ("automatic"), a person ("user"), or "accepted".
        certainty: the model's estimate of its first answer from 0 to 1; None if there is none, or if the mask was
            changed or accepted since.
        foreground, background: points inside and outside of it that it was segmented from.
        boxes: boxes that it was segmented from: two opposite corners, both inside.
        key: tells the mask from all earlier ones.
        mask: None if the client holds it.
    """

    name: str
    volume_ml: float
    is_locked: bool
    source: Literal["automatic", "user", "accepted"]
    certainty: float | None
    foreground: list[Voxel] = []
    background: list[Voxel] = []
    boxes: list[tuple[Voxel, Voxel]] = []
    key: str
    mask: Mask | None


class Session(BaseModel):
    """The session of a client on an image, after a step.

    Attributes:
        labels: all labels that have been used.
        steps: the history, the oldest first; the first one cannot be undone.
        position: index of the step that is shown.
        locked: labels that no step changes, also those without a mask.
        message: sentence about what was done; empty when nothing was.
        taken_ml: label -> ml that it lost to the label that a prompt was for; little is left out.
    """

    labels: list[Label]
    steps: list[Step]
    position: int
    locked: list[str]
    message: str
    taken_ml: dict[str, float] = {}


class OpenedCase(Session):
    """A session, and what its image is like.

    Attributes:
        shape: number of voxels along each axis.
        spacing: voxel sizes in mm.
        affine: 4x4, voxel index -> RAS+ mm.
        axes: for each voxel axis of the file, the axis of the viewer's image (0 left-right, 1 posterior-anterior,
            2 inferior-superior), and 1, or -1 where it runs the other way.
        axis: voxel axis perpendicular to the slices that are segmented.
        window: intensities that are shown black and white.
        modality: "CT", "MR", or empty.
        names: labels that the server offers.
    """

    id: str
    shape: Voxel
    spacing: tuple[float, float, float]
    affine: list[list[float]]
    axes: list[tuple[int, int]]
    axis: int
    window: tuple[float, float]
    modality: str
    frame: int
    frames: int
    names: list[str]


class Case(BaseModel):
    """An image of the studies.

    Attributes:
        state: "accepted" with an accepted label, "in work" with steps in somebody's session, or "new".
        by: who accepted it or works on it.
        changed: when, in seconds since 1970.
        labels: names of its accepted labels.
        modality: DICOM code, if known.
        is_here: the image is on the server's disk, and not in an archive alone.
        title: what people call it: the id, or of a DICOM series its patient, description and date.
    """

    id: str
    title: str
    state: Literal["new", "in work", "accepted"]
    by: list[str] = []
    changed: float | None = None
    labels: list[str] = []
    modality: str = ""
    is_here: bool = True


class StrayParts(BaseModel):
    """Small parts of a label apart from the rest.

    Attributes:
        count: number of parts.
        ml: their volume.
        place: voxel in the largest of them.
    """

    label: str
    count: int
    ml: float
    place: Voxel


class StrayPartsList(BaseModel):
    """Labels that have small parts apart from the rest."""

    labels: list[StrayParts]


class NoteChange(BaseModel):
    """Change of a label by a note."""

    label: str
    gained_ml: float
    lost_ml: float
    gained: Mask
    lost: Mask


class NotePreview(BaseModel):
    """Preview of a note; nothing is changed.

    Attributes:
        plan: plan to confirm.
        sentences: acts of the plan in plain words, each with what it changes, or why it cannot be done.
        message: other remarks; may be empty.
        doubts: reasons why the changes are larger or elsewhere than is plausible.
        notice: sentence if the requested interpreter failed.
        changes: what each label would gain and lose.
        effects: amounts for each act in ml, with the directions.
    """

    plan: Plan
    sentences: list[str]
    message: str
    doubts: list[str]
    notice: str | None
    changes: list[NoteChange]
    effects: list[dict[str, Any]]


class Choice(BaseModel):
    """One of the readings of a note: what it would do, in plain words, and the plan to send with the note."""

    sentence: str
    plan: Plan


class Refusal(BaseModel):
    """Body of every answer with a status from 400 on.

    Attributes:
        detail: sentence that says what is wrong, and what would be right.
        question: question to the user about a note, the same as `detail`; None if nothing is asked.
        choices: readings of the note to choose from.
    """

    detail: str
    question: str | None = None
    choices: list[Choice] = []


class NextCase(BaseModel):
    """The next case and the reason for it; ``id`` is None if nothing is left."""

    id: str | None
    why: str


class Training(BaseModel):
    """Progress of the update.

    Attributes:
        share: completed share, from 0 to 1.
        loss: current loss of the training.
        version: version of the adapters in use.
    """

    is_running: bool
    phase: str | None
    share: float
    message: str
    loss: float | None = None
    version: int | None = None


class TrainingOptions(BaseModel):
    """Options of the trainer by name; those left out keep their defaults."""

    options: dict[str, Any] = {}


class Version(BaseModel):
    """A version of the adapters.

    Attributes:
        status: "candidate", "published", "rejected" or "damaged".
        dice: label -> Dice of this version and of its parent on the same cases.
        cases: number of accepted labels that it was trained on.
    """

    number: int
    is_current: bool
    status: str
    reason: str | None = None
    time: str | None = None
    dice: dict[str, tuple[float, float | None]] = {}
    cases: int = 0
