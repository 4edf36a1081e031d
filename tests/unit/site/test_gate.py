"""The publish gate: which studies are held out, what is measured, and what is published."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from two_blocks import NAMES

from causal_sam.imaging import Volume
from causal_sam.prompting import LabelPrompter
from causal_sam.prompting.named import name_vectors
from causal_sam.sam.adapter_bundle import BundleMetadata
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.site import publish_gate as gate
from causal_sam.site.publish_gate import generated_cases, is_held_out, measure, rejection_reason
from causal_sam.text import load_text_encoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig


def test_the_same_studies_are_held_out_for_ever() -> None:
    held_out = [n for n in range(20) if is_held_out(f"study-{n}", 0.2)]
    assert held_out == [9, 15]  # another rule would let versions be measured on what they were trained on
    assert not any(is_held_out(f"study-{n}", 0.0) for n in range(1000))


def test_about_the_share_is_held_out_and_more_of_them_with_a_higher_share() -> None:
    studies = [f"1.2.840.{n}" for n in range(4000)]
    for share in (0.1, 0.2, 0.5):
        assert np.mean([is_held_out(study, share) for study in studies]) == pytest.approx(share, abs=0.025)
    assert all(is_held_out(study, 0.5) for study in studies if is_held_out(study, 0.2))


@pytest.fixture(scope="module")
def untrained() -> LabelPrompter:
    """Return a model that learned two of the blocks, but not well."""
    torch.manual_seed(0)
    model, encoder = CausalSam(build_compact(64), "compact").eval(), load_text_encoder()
    prompt = new_label_prompt(model, encoder.dimension)
    AdapterObjective(model, prompt, name_vectors(NAMES[:2], encoder), TrainingConfig())
    counts = dict.fromkeys(NAMES[:2], 1)
    taught = BundleMetadata(
        NAMES[:2], encoder.name, encoder.fingerprint, model.encoder_hash(), prompt.text_dim, prompt.embed_dim, counts
    )
    return LabelPrompter(prompt.eval(), taught, encoder, model.eval())


def test_it_measures_what_was_drawn_of_what_is_asked(
    untrained: LabelPrompter, blocks: tuple[Volume, dict[str, np.ndarray]]
) -> None:
    volume, structures = blocks
    only_left = (volume, {NAMES[0]: structures[NAMES[0]]})
    done: list[Any] = []
    asked = (NAMES[0], NAMES[1], "never drawn")
    found = measure(untrained, [blocks, only_left], asked, "auto", " (x)", lambda: done.append(1))
    assert list(found) == [f"{NAMES[0]} (x)", f"{NAMES[1]} (x)"]
    assert all(0 <= value <= 1 for value in found.values())
    assert len(done) == 2
    each = [measure(untrained, [case], asked, "auto")[NAMES[0]] for case in (blocks, only_left)]
    assert found[f"{NAMES[0]} (x)"] == pytest.approx(np.mean(each))
    assert list(measure(untrained, [blocks], [NAMES[1]], "auto")) == [NAMES[1]]


def test_what_was_never_taught_counts_as_not_found(
    untrained: LabelPrompter, blocks: tuple[Volume, dict[str, np.ndarray]]
) -> None:
    volume, structures = blocks
    case = (volume, {"tumour": structures[NAMES[0]]})
    assert measure(untrained, [case], ["tumour"], "auto") == {"tumour": 0.0}
    assert measure(untrained, [], NAMES, "auto") == {}


def test_what_is_found_is_compared_by_name(
    blocks: tuple[Volume, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Return a model that finds all there is, in the place of the one that takes long to learn it."""
    volume, structures = blocks
    right, left = structures[NAMES[1]], structures[NAMES[0]]

    def predict_named(names: list[str], labels: Any) -> SimpleNamespace:
        drawn = {NAMES[0]: left, NAMES[1]: right}
        label_map = np.zeros(volume.shape, np.uint8)
        for value, name in enumerate(names, start=1):
            label_map[drawn[name]] = value
        return SimpleNamespace(label_map=label_map)

    predictor = SimpleNamespace(for_volume=lambda *_: SimpleNamespace(predict_named=predict_named))
    monkeypatch.setattr(gate, "Predictor", lambda *_, **__: predictor)
    labels = SimpleNamespace(model=None, find=lambda name: name if name != "other" else None)
    assert measure(labels, [blocks], ("other", NAMES[1], NAMES[0]), "auto") == {NAMES[1]: 1.0, NAMES[0]: 1.0}
    swapped = (volume, {NAMES[0]: right, NAMES[1]: left})
    assert measure(labels, [swapped], NAMES, "auto") == {NAMES[0]: 0.0, NAMES[1]: 0.0}


def test_generated_abdomens_have_the_labels_under_the_names_of_the_site() -> None:
    cases = generated_cases(["LK", "hepar", "something else"])
    assert len(cases) == 2
    assert [set(structures) for _, structures in cases] == [{"LK", "hepar"}] * 2
    assert all(mask.any() and mask.shape == volume.shape for volume, each in cases for mask in each.values())
    assert {volume.modality for volume, _ in cases} == {"CT", "MR"}
    assert generated_cases(["something else"]) == []


@pytest.mark.parametrize(
    ("metrics", "parent", "sentence"),
    [
        ({"a": 0.9, "b": 0.8}, {"a": 0.8, "b": 0.8}, None),
        ({"a": 0.8, "b": 0.8}, {"a": 0.8, "b": 0.8}, None),
        ({"a": 0.9, "b": 0.79}, {"a": 0.8, "b": 0.8}, None),  # within the tolerance, and better in the mean
        ({"a": 0.1}, {"a": 0.0}, None),
        ({"a": 0.99, "b": 0.7}, {"a": 0.5, "b": 0.8}, "b would drop from Dice 0.800 to 0.700, by more than 0.02"),
        ({"a": 0.5, "b": 0.6}, {"a": 0.8, "b": 0.8}, "a would drop from Dice 0.800 to 0.500"),
        ({"a": 0.79, "b": 0.79}, {"a": 0.8, "b": 0.8}, "The mean Dice would fall from 0.8000 to 0.7900"),
        ({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}, "None of the labels is found with it"),
        ({}, {}, "None of the labels is found with it"),
    ],
)
def test_what_is_published(metrics: dict[str, float], parent: dict[str, float], sentence: str | None) -> None:
    objection = rejection_reason(metrics, parent, 0.02)
    assert (objection is None) == (sentence is None)
    if sentence is not None:
        assert sentence in objection
        assert objection.endswith(".")


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"liver": 0.6, "spleen": 0.4}, None),
        ({"liver": 0.476, "spleen": 0.0}, "spleen is found with Dice 0.000 only, below 0.2"),
        ({"liver": 0.95, "spleen": 0.19}, "spleen is found with Dice 0.190 only, below 0.2"),
        ({"liver": 0.55, "spleen": 0.4}, "The mean Dice is 0.475 only, below 0.5"),
        ({"liver": 0.6, "liver (generated)": 0.05}, None),  # the site's own images count
        ({"liver": 0.4, "liver (generated)": 0.99}, "The mean Dice is 0.400 only, below 0.5"),
    ],
)
def test_what_is_too_bad_is_not_published_even_if_it_is_better(metrics: dict[str, float], sentence: str | None) -> None:
    objection = rejection_reason(metrics, dict.fromkeys(metrics, 0.0), 0.02, 0.5, 0.2)
    assert (objection is None) == (sentence is None)
    assert sentence is None or (sentence in objection and objection.endswith("."))
    assert rejection_reason(metrics, dict.fromkeys(metrics, 0.0), 0.02) is None


def test_no_tolerance_is_no_tolerance() -> None:
    assert rejection_reason({"a": 0.799, "b": 0.9}, {"a": 0.8, "b": 0.8}, 0.0) is not None
    assert rejection_reason({"a": 0.8, "b": 0.9}, {"a": 0.8, "b": 0.8}, 0.0) is None
