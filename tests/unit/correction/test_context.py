"""Measurements, styles, previews and sides of masks for interpreters of notes."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_context import ScriptedContext

from causal_sam.correction.context import ImageContext, sides_in, slices_in
from causal_sam.correction.corrector import Corrector
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.notes.schema import Intervention
from causal_sam.prompting.cache import EmbeddingCache
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam import load_model
from causal_sam.text import load_text_encoder

SHAPE, SPACING = (100, 60, 8), (2.0, 2.0, 5.0)


def box(first: int, last: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[first:last, 20:40, 2:6] = True
    return mask


def body(first: int, last: int, affine: np.ndarray) -> Volume:
    """Return a body that lies between two columns of the image, the rest is air."""
    array = np.full(SHAPE, -1000.0, np.float32)
    array[first:last, 5:55] = 40
    return Volume(array, affine, "CT")


@pytest.mark.parametrize("sign", [1, -1])
def test_axial_slices_are_counted_from_the_head(sign: int) -> None:
    volume = body(0, 100, np.diag([*SPACING[:2], sign * SPACING[2], 1.0]))
    mask = np.zeros(SHAPE, bool)
    mask[40:60, 20:40, 5:8] = True  # the last three voxels along the axis
    slices = slices_in(volume, {"liver": mask, "spleen": np.zeros(SHAPE, bool)})
    assert (slices.count, slices.spacing_mm, slices.is_axial) == (SHAPE[2], SPACING[2], True)
    assert slices.plane == "axial"
    assert slices.nonempty == {"liver": (1, 3) if sign == 1 else (6, 8)}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_side_is_that_of_the_body_not_of_the_image(sign: int) -> None:
    affine = np.diag([sign * SPACING[0], *SPACING[1:], 1.0])
    high, low = ("right", "left") if sign == 1 else ("left", "right")
    # The body lies in one half of the image.
    volume = body(40, 100, affine)
    assert sides_in(volume, {"lesion": box(85, 95)}).get("lesion") == high
    assert sides_in(volume, {"lesion": box(52, 60)}).get("lesion") == low  # on the other side of the image's middle
    assert sides_in(volume, {"lesion": box(66, 74)}).get("lesion") is None


def test_without_a_body_there_are_no_sides() -> None:
    assert sides_in(Volume(np.zeros(SHAPE, np.float32), np.eye(4), "MR"), {"lesion": box(0, 10)}) == {}


def test_it_answers_and_changes_nothing() -> None:
    mask = box(30, 50)
    mask[80:83, 30:33, 3:5] = True
    masks = {"liver": mask.copy()}
    volume = body(5, 95, np.diag([*SPACING, 1.0]))
    model = load_model("compact", image_size=64, device="cpu")
    corrector = Corrector(SliceEncoder(model, EmbeddingCache(2**28)), None, load_text_encoder())
    context = ImageContext(corrector, VolumeSlices(volume, "auto", 64), masks, lambda volume: f"a {volume.modality}")
    assert context.measure("liver")["components"] == 2
    assert context.style() == "a CT"
    remove, fill = (Intervention(label="liver", action=action) for action in ("remove", "fill"))
    assert context.preview([remove]).startswith("liver: \N{MINUS SIGN}0.36 ml")
    assert "nothing to change in liver: it has no holes" in context.preview([remove, fill])
    with pytest.raises(InputError, match="no mask of spleen yet"):
        context.preview([Intervention(label="spleen", action="fill")])
    with pytest.raises(InputError, match="does not know liver"):
        context.probability_beside("liver")
    assert np.array_equal(masks["liver"], mask)


def test_it_previews_with_what_somebody_clicked() -> None:
    masks = {"liver": box(30, 50) | box(80, 83)}
    model = load_model("compact", image_size=64, device="cpu")
    corrector = Corrector(SliceEncoder(model, EmbeddingCache(2**28)), None, load_text_encoder())
    slices = VolumeSlices(body(5, 95, np.diag([*SPACING, 1.0])), "auto", 64)
    context = ImageContext(corrector, slices, masks, lambda volume: "", clicked={"liver": [(81, 30, 3)]})
    remove = Intervention(label="liver", action="remove")
    assert "would lose a place that you clicked" in context.preview([remove])


def test_it_tells_where_a_network_expects_more_of_a_label() -> None:
    volume = body(5, 95, np.diag([*SPACING, 1.0]))
    slices, truth, mask = VolumeSlices(volume, "auto", 64), box(30, 50), box(30, 50)
    mask[..., 4:] = False
    model = load_model("compact", image_size=64, device="cpu")
    corrector = Corrector(SliceEncoder(model, EmbeddingCache(2**28)), None, load_text_encoder())
    expected = ScriptedContext(slices, None, {"liver": truth}).segment_named(["liver"])
    context = ImageContext(
        corrector,
        slices,
        {"liver": mask, "spleen": box(50, 60)},
        lambda volume: "",
        lambda acts_on: {"spleen"} - set(acts_on),
        lambda names: {name: expected[name] for name in names if name in expected},
    )
    found = context.probability_beside("liver")
    assert max(found["probable_ml"], key=found["probable_ml"].get) == "superior"
    assert found["mean_probability"]["superior"] > max(found["mean_probability"][side] for side in ("left", "inferior"))
    end = context.plausible_end("liver", "superior")
    assert end["beyond_mask_mm"] == pytest.approx(2 * SPACING[2], abs=SPACING[2])
    assert end["slice"] in (2, 3, 4)
    grow = Intervention(label="liver", action="expand", direction="right", extent_mm=6)
    others = [
        Intervention(label="liver", action="expand", direction=side, extent_mm=4) for side in ("left", "anterior")
    ]
    said = context.preview([grow, *others])
    assert "that place belongs to spleen, to stay as before." in said
    assert "of spleen, which stays as it is." in said
    assert "In all, liver: +" in said
