"""Parser of interactive requests: the clicks of each label and the options, from the keys that clients send.

There are two forms. *Deepgrow*: ``foreground``, ``background`` and ``roi`` for one label, whose name Slicer gives in
``label`` and OHIF does not give at all. *Deepedit*: one list of clicks under each label's name, ``background`` for
what is none of them, and the current label in ``label``. Clients reuse their parameters from call to call, so keys of
the other form, of other labels and of options that no longer exist may come along, and are ignored.

A label whose own list is empty or missing is not asked about: a client may have forgotten its clicks, and sends the
lists of all labels in any case. The option ``reset`` empties a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from causal_sam.errors import InputError
from causal_sam.imaging import MASK_EXTENSIONS, PLANES
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.prompts import Lasso, Prompts
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
BACKGROUND_ALONE = (
    "Background points alone do not say which structure to correct: give one of its foreground points too, or its name "
    "in label."
)
DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64")


@dataclass(frozen=True)
class Options:
    """Options for the segmentation and for the answer.

    Attributes:
        undo, redo: take the last step back, or do it again; prompts are not read then.
        locked: names of the labels that this and later requests must not change; None for the locks so far.
        reset: forget what the current label looks like, saved labels included; without a current label, all that have
            clicks. Not to be mistaken for ``reset_state``, which Slicer sends by itself when the user turns to another
            label, for servers that can only remember one.
        plane: plane to segment.
        follow: go on from the prompted slices through the volume.
        local: change masks that were drawn, saved or segmented by name only near the clicks; on masks segmented by
            name, neighbouring slices change too.
        frame: index of the frame in an image with several, counted from 0.
        only_slice: voxel index along the slice axis; what lies on other slices is left alone. None for no limit.
        extension: extension of the result file.
        compress: whether to compress it.
        dtype: numpy name of its voxels; None for the smallest that fits.
    """

    undo: bool
    redo: bool
    locked: tuple[str, ...] | None
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
            request: request of the client.
            plane: plane if the request names none.
            extent: extent if the request names none; one of `EXTENTS`.

        Raises:
            InputError: an option has a value that it cannot have.
        """
        plane = _choice(request, "plane", PLANES, plane)
        extent = _choice(request, "extent", EXTENTS, extent)
        only_slice = checked_whole(request.get("slice"), "slice")
        if only_slice is not None and only_slice < 0:
            only_slice = None
        undo, redo = flag(request, "undo"), flag(request, "redo")
        if undo and redo:
            raise InputError("undo and redo are ticked both: untick one of them.")
        return cls(
            undo=undo,
            redo=redo,
            locked=_locked(request),
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


def read_prompts(request: Mapping[str, Any], names: Iterable[str], shape: Shape) -> PromptSet:
    """Read the clicks of either form.

    Args:
        request: request of the client.
        names: the label set.
        shape: shape of the volume.

    Returns:
        In the deepgrow form the prompts of one label, under None without a name; in the deepedit form, whose background
        clicks are shared, those of all labels.

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
        return PromptSet(current, {current: prompts})
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
    return PromptSet(current, prompts, shares_background=True)


def read_lasso(request: Mapping[str, Any], shape: Shape) -> Lasso | None:
    """Read the option ``lasso``, a list of at least three points [i, j, k]; None without it.

    Raises:
        InputError: it is no such list, or leaves the volume.
    """
    points = checked_points(request.get("lasso"), "lasso", MAX_CORNERS, is_flat=shape[2] == 1)
    if not points:
        return None
    if len(points) < 3:
        raise InputError(f"lasso must have at least three points, not {len(points)}: it is a closed curve.")
    return Lasso(Prompts.checked(shape, list(map(tuple, points))).foreground)


def with_lasso(prompts: PromptSet, lasso: Lasso, axis: int) -> PromptSet:
    """Add the box around a closed curve to the current label.

    Raises:
        InputError: there is no current label, it has a box already, or the curve is not on one slice.
    """
    if prompts.current is None and prompts.shares_background:
        raise InputError("The lasso is of no label: give the label's name in label.")
    current = prompts.prompts.get(prompts.current, Prompts())
    if current.box is not None:
        raise InputError("Give either a roi or a lasso: the two may contradict each other.")
    boxed = replace(current, box=lasso.box(axis))
    return replace(prompts, prompts={**prompts.prompts, prompts.current: boxed})


def _checked(
    shape: Shape,
    foreground: Sequence[Sequence[float]],
    background: Sequence[Sequence[float]],
    roi: Sequence[int] | None,
) -> Prompts:
    if not foreground and not background and roi is None:
        return Prompts()
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


def _locked(request: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Label names in a list, or in a text with commas between them."""
    value = request.get("locked")
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, list):
        raise InputError(f"locked must be a list of label names, not {shown(value)}.")
    return tuple(checked_label(name, "locked") for name in names)


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
