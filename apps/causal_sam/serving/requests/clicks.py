"""What an interactive client asks for: the clicks of each label and the options, from the keys that clients send.

There are two forms. *Deepgrow*: ``foreground``, ``background`` and ``roi`` for one label, whose name Slicer gives in
``label`` and OHIF does not give at all. *Deepedit*: one list of clicks under each label's name, ``background`` for
what is none of them, and the current label in ``label``. Clients reuse their parameters from call to call, so keys of
the other form, of other labels and of options that no longer exist may come along, and are ignored.

A label whose own list is empty or missing is not asked about: a client may have forgotten its clicks, and sends the
lists of all labels in any case. The option ``reset`` empties a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import MASK_EXTENSIONS, PLANES, SliceFrame
from causal_sam.prompting.prompts import Box, Prompts, Voxel
from serving.data.label_set import BACKGROUND, checked_label
from serving.requests.numbers import checked_numbers, checked_points, checked_whole, shown

Shape = tuple[int, int, int]
# Key of the note: the clinician's words about an error in the masks.
NOTE_KEY = "note"
# Under this key the app tells its tasks where an uploaded label map lies; it is set by the server for every request.
LABEL_FILE_KEY = "causal_sam_label_file"
DEFAULT_EXTENSION = ".nii.gz"
VOLUME = "volume"
EXTENTS = (VOLUME, "slice")
# A person makes far fewer; the model's work grows with their square.
MAX_POINTS = 1000
MAX_CORNERS = 10_000
NO_PROMPTS = Prompts((), (), None)
BACKGROUND_ALONE = (
    "Background points alone do not say which structure to correct: give one of its foreground points too, or its name "
    "in label."
)
DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64")


@dataclass(frozen=True)
class Options:
    """How to segment and how to answer.

    Attributes:
        reset: forget what the current label looks like, saved labels included; without a current label, all that have
            clicks. Not to be mistaken for ``reset_state``, which Slicer sends by itself when the user turns to another
            label, for servers that can only remember one.
        plane: which plane to segment.
        follow: go on from the prompted slices through the volume.
        local: of masks that were drawn, saved or found by name, change only what is at the clicks, and of found ones
            what is like it on the slices beside theirs.
        frame: which one of an image with several, counted from 0.
        only_slice: voxel index along the slice axis; what lies on other slices is left alone. None for no limit.
        extension: of the result file.
        compress: whether to compress it.
        dtype: numpy name of its voxels; None for the smallest that fits.
    """

    reset: bool
    plane: str
    follow: bool
    local: bool
    frame: int
    only_slice: int | None
    extension: str
    compress: bool
    dtype: str | None

    @classmethod
    def from_request(cls, request: Mapping[str, Any], plane: str, extent: str) -> Options:
        """Read the options.

        Args:
            request: of the client.
            plane: if it does not say.
            extent: if it does not say; one of `EXTENTS`.

        Raises:
            InputError: an option has a value that it cannot have.
        """
        plane = _choice(request, "plane", PLANES, plane)
        extent = _choice(request, "extent", EXTENTS, extent)
        only_slice = checked_whole(request.get("slice"), "slice")
        if only_slice is not None and only_slice < 0:
            only_slice = None
        return cls(
            reset=flag(request, "reset"),
            plane=plane,
            follow=extent == VOLUME and only_slice is None,
            local=flag(request, "local", default=True),
            frame=requested_frame(request),
            only_slice=only_slice,
            extension=_choice(request, "result_extension", MASK_EXTENSIONS, DEFAULT_EXTENSION),
            compress=flag(request, "result_compress", default=True),
            dtype=_choice(request, "result_dtype", DTYPES, None),
        )


@dataclass(frozen=True)
class Clicks:
    """The clicks of one request.

    Attributes:
        current: name of the current label; None if the client does not say.
        prompts: checked prompts of each label, its own alone. In the deepgrow form just one entry, under None without a
            name.
        is_label_map: the client takes an answer with all labels (deepedit form) instead of the one label's mask.
    """

    current: str | None
    prompts: dict[str | None, Prompts]
    is_label_map: bool

    def others(self, name: str | None) -> list[Voxel]:
        """Clicks inside of other labels: they are outside of this one, but say nothing about it by themselves."""
        own = set(self.prompts[name].foreground)
        return [v for other, theirs in self.prompts.items() if other != name for v in theirs.foreground if v not in own]

    @property
    def asked(self) -> list[str | None]:
        """The labels that the request is about: the current one, else all with clicks inside of them or a box."""
        if self.current is not None:
            return [self.current]
        return [name for name, prompts in self.prompts.items() if prompts.foreground or prompts.box]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was clicked or drawn."""
        return not any(p.foreground or p.background or p.box for p in self.prompts.values())

    def with_box(self, box: Box) -> Clicks:
        """Add the box around a closed curve to the current label.

        Raises:
            InputError: there is no current label, or it has a box already.
        """
        if self.current is None and self.is_label_map:
            raise InputError("The lasso is of no label: give the label's name in label.")
        prompts = self.prompts.get(self.current, NO_PROMPTS)
        if prompts.box is not None:
            raise InputError("Give either a roi or a lasso: the two may contradict each other.")
        changed = Prompts(prompts.foreground, prompts.background, box)
        return Clicks(self.current, {**self.prompts, self.current: changed}, self.is_label_map)

    def on_slice(self, axis: int, index: int) -> Clicks:
        """Keep what lies on one slice."""
        prompts = {name: on_one_slice(prompts, axis, index) for name, prompts in self.prompts.items()}
        return Clicks(self.current, prompts, self.is_label_map)

    @classmethod
    def from_request(cls, request: Mapping[str, Any], names: Iterable[str], shape: Shape) -> Clicks:
        """Read the clicks of either form.

        Args:
            request: of the client.
            names: the label set.
            shape: of the volume.

        Raises:
            InputError: a click or the roi cannot be used, contradicts another, or does not say for which label it is.
        """
        current, offered = _label_name(request.get("label")), list(names)
        known = offered if current in (None, *offered) else [*offered, current]
        lists = {name: request[name] for name in known if isinstance(request.get(name), list)}
        roi = roi_of(request, shape)
        background = _points(request, BACKGROUND, shape)
        if "foreground" in request or not lists:
            prompts = _checked(shape, _points(request, "foreground", shape), background, roi)
            says_where = prompts.foreground or prompts.box or request.get("lasso")
            if current is None and prompts.background and not says_where:
                raise InputError(BACKGROUND_ALONE)
            return cls(current, {current: prompts}, False)
        if current not in (None, *offered, *lists):
            raise InputError(
                f"There is no label {current!r}; this server has {', '.join(offered)}. Send its points under its name "
                "too, or one label at a time in foreground, as causal_sam takes them for any name."
            )
        clicked = {name: _points(request, name, shape) for name in lists}
        if sum(map(len, clicked.values())) > MAX_POINTS:
            raise InputError(f"The labels have more than {MAX_POINTS} points together: send fewer in one request.")
        with_points = [name for name, points in clicked.items() if points]
        boxed = current
        if roi is not None and boxed is None:
            if len(with_points) != 1:
                raise InputError("The roi is of no label: give the label's name in label, one of those with points.")
            boxed = with_points[0]
        if background and current is None and not with_points:
            raise InputError(BACKGROUND_ALONE)
        prompts = {}
        for name in dict.fromkeys((*lists, *([] if boxed is None else [boxed]))):
            points = clicked.get(name, [])
            outside = background if points or name == current else []
            prompts[name] = _checked(shape, points, outside, roi if name == boxed else None)
        return cls(current, prompts, True)


@dataclass(frozen=True)
class Lasso:
    """A closed curve on one slice.

    Attributes:
        corners: its corners (i, j, k); the last one is joined to the first.
    """

    corners: tuple[Voxel, ...]

    @classmethod
    def from_request(cls, request: Mapping[str, Any], shape: Shape) -> Lasso | None:
        """Read the option ``lasso``, a list of at least three points [i, j, k]; None without it.

        Raises:
            InputError: it is no such list, or leaves the volume.
        """
        points = checked_points(request.get("lasso"), "lasso", MAX_CORNERS, is_flat=shape[2] == 1)
        if not points:
            return None
        if len(points) < 3:
            raise InputError(f"lasso must have at least three points, not {len(points)}: it is a closed curve.")
        return cls(Prompts.checked(shape, list(map(tuple, points))).foreground)

    def index(self, axis: int) -> int:
        """Voxel index of its slice.

        Raises:
            InputError: it is not on one slice.
        """
        indices = {corner[axis] for corner in self.corners}
        if len(indices) > 1:
            raise InputError(
                f"The lasso must lie on one slice, but its points have {'ijk'[axis]} from {min(indices)} to "
                f"{max(indices)}: draw it in the plane that is segmented."
            )
        return indices.pop()

    def box(self, axis: int) -> Box:
        """Its bounding box.

        Raises:
            InputError: it is not on one slice.
        """
        self.index(axis)
        return tuple(end(corner[a] for corner in self.corners) for a in range(3) for end in (min, max))

    def filled(self, frame: SliceFrame) -> NDArray[np.bool_]:
        """What it encloses on its slice, itself included: bool (rows, columns), canonical."""
        outline = [frame.to_slice(corner)[:0:-1] for corner in self.corners]
        mask = np.zeros(frame.shape_rc, np.uint8)
        cv2.fillPoly(mask, [np.array(outline, np.int32)], 1)
        return mask.astype(bool)


def _checked(
    shape: Shape,
    foreground: Sequence[Sequence[float]],
    background: Sequence[Sequence[float]],
    roi: Sequence[int] | None,
) -> Prompts:
    if not foreground and not background and roi is None:
        return NO_PROMPTS
    prompts = Prompts.checked(shape, list(map(tuple, foreground)), list(map(tuple, background)), roi)
    both = sorted(set(prompts.foreground).intersection(prompts.background))
    if both:
        raise InputError(
            f"The voxel {list(both[0])} is clicked as inside and as outside of the structure: remove one of the two. "
            "In OHIF, select the row of a structure, not the row background, before you run."
        )
    return prompts


def _points(request: Mapping[str, Any], key: str, shape: Shape) -> list[list[float]]:
    return checked_points(request.get(key), key, MAX_POINTS, is_flat=shape[2] == 1)


def roi_of(request: Mapping[str, Any], shape: Shape) -> list[int] | None:
    """Sort and clip the region of interest: Slicer's box reaches out of the volume, and its ends swap with the axes.

    Raises:
        InputError: it is no box, or outside of the volume.
    """
    roi = request.get("roi")
    if roi in (None, "", []):
        return None
    roi = checked_numbers(roi, (6,), "[i0, i1, j0, j1, k0, k1]", "roi")
    clipped: list[int] = []
    for axis, size in enumerate(shape):
        first, last = sorted(round(n) for n in roi[2 * axis : 2 * axis + 2])
        if last < 0 or first >= size:
            raise InputError(f"The roi {roi} is outside the volume: valid are {'ijk'[axis]} in 0..{size - 1}.")
        clipped += [max(first, 0), min(last, size - 1)]
    return clipped


def _label_name(value: Any) -> str | None:
    if value is None or value == "":
        return None
    name = value.strip() if isinstance(value, str) else value
    if name == BACKGROUND:
        raise InputError("The label 'background' cannot be segmented: choose a structure.")
    return checked_label(name)


def _choice(request: Mapping[str, Any], key: str, allowed: Sequence[str], default: str | None) -> str | None:
    """One of several; a client that does not show the option sends the whole list, whose first entry is the default."""
    chosen = request.get(key)
    chosen = chosen[0] if isinstance(chosen, list) and chosen else chosen
    if chosen in (None, "", []):
        return default
    if not isinstance(chosen, str) or chosen not in allowed:
        raise InputError(f"{key} must be one of {', '.join(allowed)}, not {shown(chosen)}.")
    return chosen


def requested_frame(request: Mapping[str, Any]) -> int:
    """The frame that a request asks for, from 0: a number, or its text as clients send it, who may leave it empty.

    Raises:
        InputError: it is no whole number.
    """
    return checked_whole(request.get("frame"), "frame") or 0


def flag(request: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """Read a flag, in any of the forms that clients send.

    Raises:
        InputError: it is neither true nor false.
    """
    value = request.get(key, default)
    if value is None or value == "":
        return default
    if isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        return value.lower() in ("true", "yes", "on", "1")
    raise InputError(f"{key} must be true or false, not {shown(value)}.")


def on_one_slice(prompts: Prompts, axis: int, index: int) -> Prompts:
    """Keep what lies on one slice, the box cut down to it, so that a record of it does not depend on other slices."""
    here = prompts.on_slice(axis, index)
    if here.box is None:
        return here
    box = list(here.box)
    box[2 * axis : 2 * axis + 2] = [index, index]
    return Prompts(here.foreground, here.background, tuple(box))


def slices_of(prompts: Prompts, axis: int) -> list[int]:
    """Voxel indices along ``axis`` of all slices that any prompt is on, ascending."""
    indices = {voxel[axis] for voxel in (*prompts.foreground, *prompts.background)}
    if prompts.box is not None:
        indices.update(range(prompts.box[2 * axis], prompts.box[2 * axis + 1] + 1))
    return sorted(indices)
