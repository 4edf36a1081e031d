"""Values that clients send in place of clicks, boxes and options: any JSON gives prompts or one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from serving.requests.clicks import (
    LABEL_FILE_KEY,
    MAX_CORNERS,
    MAX_POINTS,
    Options,
    read_lasso,
    read_prompts,
    requested_frame,
)
from serving.requests.numbers import checked_numbers, checked_points, checked_whole
from serving.requests.scribbles import Scribbles

pytestmark = pytest.mark.unit

SHAPE = (20, 20, 10)
NAMES = ("liver", "spleen")
# What Python's JSON parser lets through.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=60),
    st.sampled_from(["", "0", "1e999", "NaN", "-1", "٣", "1_0", " 5 ", "9" * 5000, "\ud800", "liver", "x" * 5000]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)
KEYS = (
    *("foreground", "background", "roi", "lasso", "slice", "frame", "label", "plane", "extent", "reset", "reset_state"),
    *("local", "result_dtype", "result_extension", "result_compress", "selected_label_name", "label_info", *NAMES),
)
GOOD_POINTS = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), max_size=4)
REQUESTS = st.dictionaries(st.sampled_from(KEYS), VALUES | GOOD_POINTS, max_size=8)


def refusal(call: Any, *args: Any) -> str | None:
    """The sentence of the refusal; None if it is none."""
    try:
        call(*args)
    except InputError as error:
        return str(error)
    return None


@settings(max_examples=600, deadline=None)
@given(request=REQUESTS)
@example(request={"foreground": [[10**400, 0, 0]]})
@example(request={"roi": [True, False, 0, 1, 0, 1]})
@example(request={"lasso": [[[1], 2, 3]] * 3})
@example(request={"slice": 1.5, "frame": "1" * 5000})
def test_any_json_gives_prompts_or_one_short_sentence(request: dict[str, Any]) -> None:
    for shape in (SHAPE, (20, 20, 1)):
        for call in (
            lambda: Options.from_request(request, "auto", "volume"),
            lambda shape=shape: read_prompts(request, NAMES, shape),
            lambda shape=shape: read_lasso(request, shape),
            lambda: requested_frame(request),
        ):
            sentence = refusal(call)
            if sentence is not None:
                assert sentence.endswith(".")
                assert len(sentence) < 700
                assert sentence.isprintable()
                json.dumps(sentence).encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=REQUESTS)
def test_any_json_beside_scribbles(request: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "strokes.nii.gz"
    if not path.exists():
        strokes = np.zeros(SHAPE, np.uint8)
        strokes[3:9, 4, 5] = 4
        nibabel.save(nibabel.Nifti1Image(strokes, np.eye(4)), path)
    image = Volume(np.zeros(SHAPE, np.int16), read_volume(path).affine)
    sentence = refusal(Scribbles.from_request, {**request, LABEL_FILE_KEY: path}, {"liver": 1, "spleen": 2}, image)
    assert sentence is None or (sentence.endswith(".") and len(sentence) < 700)


def test_numbers_are_finite_and_of_the_size_of_indices() -> None:
    for bad in (math.nan, math.inf, -math.inf, 10**400, 1e308, 2**31, True, "1", None, [1], {}):
        with pytest.raises(InputError):
            checked_numbers([bad, 1, 1], (3,), "[i, j, k]", "point")
    assert checked_numbers([1, 2.5, -3], (3,), "[i, j, k]", "point") == [1.0, 2.5, -3.0]
    for bad in (math.nan, math.inf, 10**400, 1.5, True, "1.5", "first", [1], {}, "9" * 11, "٣"):
        with pytest.raises(InputError, match="whole number"):
            checked_whole(bad, "frame")
    assert [checked_whole(value, "frame") for value in (None, "", 3, 3.0, "3", " -3 ", "3.0")] == [
        *(None, None, 3, 3, 3, -3, 3),
    ]


def test_there_are_only_so_many_points() -> None:
    point = [1, 2, 3]
    assert len(read_prompts({"foreground": [point] * MAX_POINTS}, NAMES, SHAPE).prompts[None].foreground) > 0
    with pytest.raises(InputError, match=f"at most {MAX_POINTS}"):
        read_prompts({"foreground": [point] * (MAX_POINTS + 1)}, NAMES, SHAPE)
    with pytest.raises(InputError, match="points together"):
        read_prompts({name: [point] * (MAX_POINTS // 2 + 1) for name in NAMES}, NAMES, SHAPE)
    with pytest.raises(InputError, match=f"at most {MAX_CORNERS}"):
        checked_points([point] * (MAX_CORNERS + 1), "lasso", MAX_CORNERS)


def test_names_of_any_length_and_kind_are_names_or_refused() -> None:
    for bad in ("x" * 5000, "\ud800", "a\nb", "a\0b", 5, ["liver"], {"a": 1}, True):
        with pytest.raises(InputError) as refused:
            read_prompts({"label": bad, "foreground": [[1, 2, 3]]}, NAMES, SHAPE)
        assert len(str(refused.value)) < 300
    assert read_prompts({"label": " liver ", "foreground": [[1, 2, 3]]}, NAMES, SHAPE).current == "liver"


def test_scribbles_of_another_size_are_refused_before_they_are_read(tmp_path: Path) -> None:
    image = Volume(np.zeros(SHAPE, np.int16), np.eye(4))
    path = tmp_path / "strokes.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((300, 300, 300), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match="at most 16777216"):
        Scribbles.from_request({LABEL_FILE_KEY: path, "selected_label_name": "liver"}, {"liver": 1}, image)
