"""Requests of clients: both forms of clicks, and the options."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.prompting.prompts import Prompts
from serving.data.incoming_labels import checked_info
from serving.data.label_set import RESERVED, LabelSet
from serving.requests.clicks import LABEL_FILE_KEY, Options, read_prompts
from serving.requests.scribbles import Scribbles

SHAPE = (20, 20, 10)
NAMES = ("liver", "spleen")


def test_no_request_is_about_a_label_that_could_not_be_saved() -> None:
    image = Volume(np.zeros(SHAPE, np.int16), np.eye(4))
    for name in (*RESERVED - {"background"}, "result_1", "result_mask", "causal_sam_x", "a\nb", "\u202eab", "x" * 201):
        acts = {
            "alone": lambda name: read_prompts({"foreground": [[1, 2, 3]], "label": name}, NAMES, SHAPE),
            "beside others": lambda name: read_prompts({"liver": [[1, 2, 3]], "label": name}, NAMES, SHAPE),
            "scribbles": lambda name: Scribbles.from_request(
                {LABEL_FILE_KEY: "unread.nii", "selected_label_name": name}, {"liver": 1}, image
            ),
            "offered": lambda name: LabelSet(["liver", name]),
            "saved": lambda name: checked_info({"label_info": [{"name": name, "idx": 1}]}),
        }
        for kind, act in acts.items():
            with pytest.raises(InputError, match=r"No label can be called|label name|selected_label_name") as caught:
                act(name)
            assert str(caught.value).endswith("."), (kind, name)


def test_deepgrow_form() -> None:
    clicks = read_prompts({"foreground": [[1, 2, 3]], "background": [[4, 5, 6]], "label": "liver"}, NAMES, SHAPE)
    assert clicks.prompts == {"liver": Prompts(((1, 2, 3),), ((4, 5, 6),), None)}
    assert not clicks.shares_background
    assert clicks


def test_deepgrow_form_without_a_name_and_with_lists_left_over() -> None:
    clicks = read_prompts({"foreground": [[1, 2, 3]], "liver": [[99, 99, 99]]}, NAMES, SHAPE)
    assert clicks.prompts == {None: Prompts(((1, 2, 3),), (), None)}


def test_deepedit_form_takes_clicks_of_other_labels_as_background() -> None:
    request = {"liver": [[1, 2, 3]], "spleen": [[7, 7, 3]], "background": [[9, 9, 3]], "label": "spleen"}
    clicks = read_prompts(request, NAMES, SHAPE)
    assert clicks.shares_background
    assert clicks.current == "spleen"
    assert clicks.prompts["liver"] == Prompts(((1, 2, 3),), ((9, 9, 3),), None)
    assert clicks.prompts["spleen"] == Prompts(((7, 7, 3),), ((9, 9, 3),), None)
    assert clicks.others("liver") == [(7, 7, 3)]
    assert clicks.others("spleen") == [(1, 2, 3)]


def test_a_label_without_points_has_no_background_unless_it_is_the_current_one() -> None:
    request = {"liver": [], "spleen": [[7, 7, 3]], "background": [[9, 9, 3]]}
    clicks = read_prompts(request, NAMES, SHAPE)
    assert clicks.prompts["liver"] == Prompts()
    assert clicks.about == ["spleen"]
    clicks = read_prompts({**request, "label": "liver"}, NAMES, SHAPE)
    assert clicks.prompts["liver"].background == ((9, 9, 3),)
    assert clicks.about == ["liver"]


def test_a_name_of_the_clients_own_is_taken_with_its_points() -> None:
    request = {"liver": [[1, 2, 3]], "spleen": [], "label": "cyst"}
    with pytest.raises(InputError, match="There is no label 'cyst'; this server has liver, spleen"):
        read_prompts(request, NAMES, SHAPE)
    with pytest.raises(InputError, match="There is no label 'cyst'"):  # the box is not the liver's
        read_prompts({**request, "roi": [0, 5, 0, 5, 2, 3]}, NAMES, SHAPE)
    clicks = read_prompts({**request, "cyst": [[5, 5, 3]]}, NAMES, SHAPE)
    assert clicks.prompts["cyst"].foreground == ((5, 5, 3),)
    assert read_prompts({"foreground": [[1, 2, 3]], "label": "cyst"}, NAMES, SHAPE).about == ["cyst"]


@pytest.mark.parametrize(
    "request_",
    [
        {"foreground": [[1, 2, 3]], "background": [[1, 2, 3]]},  # OHIF, with its row background selected
        {"foreground": [[1, 2, 3], [4, 5, 6]], "background": [[9, 9, 9], [4, 5, 6]], "label": "liver"},
        {"foreground": [[1.2, 2, 3]], "background": [[0.9, 2, 3.4]]},
        {"liver": [[1, 2, 3]], "spleen": [], "background": [[1, 2, 3]]},
    ],
)
def test_a_voxel_is_not_inside_and_outside(request_: dict) -> None:
    with pytest.raises(InputError, match=r"voxel \[\d, \d, \d\] is clicked as inside and as outside.*row background"):
        read_prompts(request_, NAMES, SHAPE)


def test_background_alone_does_not_say_of_which_label_it_is() -> None:
    for request in ({"background": [[1, 2, 3]]}, {"background": [[1, 2, 3]], "liver": [], "spleen": []}):
        with pytest.raises(InputError, match="do not say which structure"):
            read_prompts(request, NAMES, SHAPE)
        clicks = read_prompts({**request, "label": "liver"}, NAMES, SHAPE)
        assert clicks.prompts["liver"].background == ((1, 2, 3),)


def test_the_box_of_the_deepedit_form_is_the_current_labels() -> None:
    request = {"liver": [[1, 2, 3]], "spleen": [], "roi": [0, 5, 0, 5, 2, 3], "label": "spleen"}
    clicks = read_prompts(request, NAMES, SHAPE)
    assert clicks.prompts["spleen"].box == (0, 5, 0, 5, 2, 3)
    assert clicks.prompts["liver"].box is None
    del request["label"]
    assert read_prompts(request, NAMES, SHAPE).prompts["liver"].box == (0, 5, 0, 5, 2, 3)


def test_nothing_clicked() -> None:
    assert not read_prompts({}, NAMES, SHAPE)
    assert not read_prompts({"liver": [], "spleen": []}, NAMES, SHAPE)
    assert not read_prompts({"foreground": [[1, 2, 3]]}, NAMES, SHAPE).on_slice(2, 4)


def test_a_2d_image_needs_no_third_index() -> None:
    clicks = read_prompts({"foreground": [[1, 2]]}, NAMES, (20, 20, 1))
    assert clicks.prompts[None].foreground == ((1, 2, 0),)


def test_boxes_are_sorted_and_clipped() -> None:
    clicks = read_prompts({"roi": [5, -3, 2.4, 8.6, 30, 4]}, NAMES, SHAPE)
    assert clicks.prompts[None].box == (0, 5, 2, 9, 4, 9)
    assert not read_prompts({"roi": []}, NAMES, SHAPE)
    with pytest.raises(InputError, match="outside"):
        read_prompts({"roi": [0, 5, 0, 5, 10, 20]}, NAMES, SHAPE)


def test_options() -> None:
    options = Options.from_request({"reset": "true", "plane": ["coronal", "axial"], "slice": "4"}, "auto", "volume")
    assert (options.reset, options.plane, options.only_slice) == (True, "coronal", 4)
    assert (options.extension, options.compress, options.dtype) == (".nii.gz", True, None)
    plain = Options.from_request({"plane": "", "slice": -1, "reset": None}, "sagittal", "volume")
    assert (plain.plane, plain.only_slice, plain.reset) == ("sagittal", None, False)


def test_locked_labels_are_a_list_or_a_text() -> None:
    assert Options.from_request({}, "auto", "volume").locked is None
    for value in (["liver", "left kidney"], "liver, left kidney,"):
        assert Options.from_request({"locked": value}, "auto", "volume").locked == ("liver", "left kidney")
    assert Options.from_request({"locked": []}, "auto", "volume").locked == ()


@pytest.mark.parametrize(
    ("request_", "default", "follow"),
    [
        ({}, "volume", True),
        ({}, "slice", False),
        ({"extent": "slice"}, "volume", False),
        ({"extent": ["volume", "slice"]}, "slice", True),
        ({"extent": "volume", "slice": 4}, "volume", False),  # Slicer shows nothing but that slice
    ],
)
def test_structures_are_followed_when_asked(request_: dict, default: str, follow: bool) -> None:
    assert Options.from_request(request_, "auto", default).follow is follow


def test_clicks_change_what_was_found_only_where_they_are_unless_the_client_says_otherwise() -> None:
    def local(**request: object) -> bool:
        return Options.from_request(request, "auto", "volume").local

    assert local()
    assert local(local=True)
    assert not local(local=False)
    assert not local(local="false")


@pytest.mark.parametrize(
    ("value", "frame"), [(None, 0), ("", 0), (0, 0), (3, 3), ("3", 3), (" 3 ", 3), (3.0, 3), ("3.0", 3), (-1, -1)]
)
def test_the_frame_is_a_number_or_its_text(value: object, frame: int) -> None:
    assert Options.from_request({"frame": value}, "auto", "volume").frame == frame


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"frame": "first"}, "frame must be a whole number"),
        ({"frame": 1.5}, "frame must be a whole number"),
        ({"frame": [1]}, "frame must be a whole number"),
        ({"frame": True}, "frame must be a whole number"),
        ({"frame": "inf"}, "frame must be a whole number"),
        ({"reset": "perhaps"}, "true or false"),
        ({"undo": True, "redo": True}, "undo and redo are ticked both"),
        ({"locked": 3}, "locked must be a list"),
        ({"locked": ["liver", 3]}, "locked"),
        ({"slice": "top"}, "slice must be a whole number"),
        ({"plane": "x"}, "plane must be"),
        ({"extent": "all"}, "extent must be"),
    ],
)
def test_options_that_cannot_be(request_: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Options.from_request(request_, "auto", "volume")
