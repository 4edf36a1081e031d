"""Training on notes: from the journal and accepted labels to a modulation that corrects better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from causal_sam.imaging import PackedMask, Volume
from causal_sam.notes.schema import Intervention, Plan
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, FilmPart, LabelPart
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.sam.loading import load_model
from causal_sam.text import load_text_encoder
from causal_sam.training.corrections import (
    CorrectionSamples,
    load_samples,
    samples_of_case,
    save_samples,
    train_on_notes,
)

NAME = "left block"
SIZE = 64


def entry(before: np.ndarray, /, **changes: Any) -> dict[str, Any]:
    """As the note task writes it."""
    act = Intervention(label=NAME, action="expand", direction="anterior", strength="strong")
    plan = Plan(interventions=(act,)).model_dump(mode="json")
    packed = {NAME: PackedMask.pack(before).as_json()}
    return {"act": "note", "note": "missing at the front", "plan": plan, "preview": False, "before": packed, **changes}


@pytest.fixture
def cut(blocks: tuple[Volume, dict[str, np.ndarray]]) -> np.ndarray:
    """The left block without its anterior part."""
    before = blocks[1][NAME].copy()
    # Rows grow towards the back: the affine has -3 along the second axis.
    before[:, :18] = False
    return before


def samples(blocks: tuple[Volume, dict[str, np.ndarray]], *entries: dict[str, Any]) -> CorrectionSamples:
    return samples_of_case(entries, *blocks, "auto", SIZE, np.random.default_rng(0))


def test_a_note_is_a_sample_on_the_slices_that_were_wrong(
    blocks: tuple[Volume, dict[str, np.ndarray]], cut: np.ndarray
) -> None:
    found = samples(blocks, entry(cut))
    assert 0 < len(found.real) <= 6
    assert found.simulated
    for sample in found.real:
        assert sample.sentence == "expand the left block strongly on its anterior side"
        assert (sample.truth >= sample.wrong).all()  # what is missing is added
        gained = (sample.truth != sample.wrong) & (sample.region > 0)
        assert gained.sum() > 10
        assert not ((sample.truth != sample.wrong) & (sample.region == 0)).any()
        assert sample.image.shape == (3, SIZE, SIZE)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"act": "undo"},
        {"act": "refused"},
        {"preview": True},
        {"before": {}},
        {"before": {NAME: {"shape": [1, 2, 3], "bits": "damaged"}}},
        {"plan": {"interventions": [{"label": NAME, "action": "dance"}]}},
        {"plan": None},
        {"before": {NAME: PackedMask.pack(np.ones((4, 4, 4), bool)).as_json()}},  # of another image
    ],
)
def test_what_cannot_be_learnt_from_is_left_out(
    blocks: tuple[Volume, dict[str, np.ndarray]], cut: np.ndarray, changes: dict[str, Any]
) -> None:
    assert samples(blocks, entry(cut, **changes)) == CorrectionSamples([], [])


def test_a_label_that_was_not_accepted_teaches_nothing(
    blocks: tuple[Volume, dict[str, np.ndarray]], cut: np.ndarray
) -> None:
    volume, structures = blocks
    others = {"right block": structures["right block"]}
    assert not samples_of_case([entry(cut)], volume, others, "auto", SIZE, np.random.default_rng(0)).real


def test_samples_survive_being_written(
    blocks: tuple[Volume, dict[str, np.ndarray]], cut: np.ndarray, tmp_path: Path
) -> None:
    written = samples(blocks, entry(cut))
    save_samples(tmp_path / "notes.npz", written)
    read = load_samples(tmp_path / "notes.npz")
    assert [len(part) for part in read] == [len(part) for part in written]
    for one, other in zip([*written.real, *written.simulated], [*read.real, *read.simulated], strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=1 / 255)
        for name in ("wrong", "truth", "region"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (one.sentence, one.strength) == (other.sentence, other.strength)
    save_samples(tmp_path / "none.npz", CorrectionSamples([], []))
    assert load_samples(tmp_path / "none.npz") == CorrectionSamples([], [])


def test_notes_teach_and_what_is_frozen_stays(
    blocks: tuple[Volume, dict[str, np.ndarray]], cut: np.ndarray, tmp_path: Path
) -> None:
    model, encoder = load_model("compact", image_size=SIZE, device="cpu"), load_text_encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = samples(blocks, entry(cut))
    film, notes = train_on_notes(model, encoder, None, found, [], steps=25, seed=0)
    assert notes.corrections == len(found.real)
    assert notes.after > notes.until_now
    assert notes.is_better
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # In the file of a version, beside the labels, which do not mind.
    prompt, path = new_label_prompt(model, encoder.dimension), tmp_path / "version.safetensors"
    said = BundleMetadata((NAME,), encoder.name, encoder.fingerprint, model.encoder_hash(), 384, prompt.embed_dim, {})
    labels = LabelPart.from_training(prompt, said, model)
    AdapterBundle(labels, FilmPart.from_training(film, model, encoder.fingerprint)).write(path)
    read = AdapterBundle.read(path)
    assert read.labels.metadata == said
    again = read.film.load(model, encoder.fingerprint)
    assert all(torch.equal(value, film.state_dict()[name]) for name, value in again.state_dict().items())
