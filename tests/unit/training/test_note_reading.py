"""Training of the reading network of notes: notes put together, batches, and a few steps that learn."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from causal_sam.benchmark.notes import read_notes
from causal_sam.notes.features import ITSELF, OTHER
from causal_sam.notes.learned import LearnedReader
from causal_sam.notes.network import Words
from causal_sam.text.loading import load_token_encoder
from causal_sam.training.note_reading import NoteBatches, NoteReadingObjective, learned_notes, new_network

NOTES = [
    (
        "The liver is too small on top.",
        ["liver", "spleen"],
        [{"label": "liver", "action": "expand", "direction": "superior"}],
    ),
    ("Spleen 4 mm too large.", ["spleen"], [{"label": "spleen", "action": "shrink", "extent_mm": 4}]),
    (
        "Aorta leaks into the oesophagus in slices 3-7.",
        ["aorta"],
        [{"label": "aorta", "action": "exclude", "near": "esophagus", "slices": [3, 7]}],
    ),
    ("What is this?", ["pancreas"], "question"),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    file = tmp_path_factory.mktemp("notes") / "notes.jsonl"
    lines = [json.dumps({"note": note, "labels": labels, "expect": expect}) for note, labels, expect in NOTES]
    file.write_text("\n".join(lines))
    return read_notes(file)


@pytest.fixture(scope="module")
def notes(cases):
    return list(learned_notes([(case.request, case.expected) for case in cases], load_token_encoder()))


def test_two_notes_are_put_together(notes):
    small, large, leak, question = notes
    both = small.joined(leak)
    assert both.features.labels == ("liver", "spleen", "aorta")
    assert both.plan == small.plan + leak.plan
    shares, gap = both.features.shares, len(small.features.marks)
    assert shares.shape == (len(both.features.marks), len(both.features.tokens))
    assert not shares[gap].any()
    torch.testing.assert_close(shares[gap + 1 :, len(small.features.tokens) :], leak.features.shares)
    count = len(small.features.marks)
    assert both.features.mentions[2, :count].max() == OTHER
    assert both.features.mentions[0, count:].max() >= OTHER
    assert both.features.mentions[2, count:].min() == 0
    assert ITSELF in both.features.mentions[2, count:]
    assert both.features.sentences[-1] > both.features.sentences[0]
    assert small.joined(large) is None  # both are about the spleen
    assert small.joined(question) is None


def test_batches_are_limited_by_their_size(notes):
    batches = list(itertools.islice(NoteBatches(notes, 200, 0.5, seed=1), 60))
    sizes = [
        max(len(note.features.marks) for note in batch) * sum(len(note.features.labels) for note in batch)
        for batch in batches
    ]
    assert max(sizes) <= 200
    assert max(len(batch) for batch in batches) > 1


@pytest.mark.parametrize("factor", [0, 0.2])
def test_the_sentence_encoder_learns_by_its_own_factor(notes, factor):
    objective = NoteReadingObjective(new_network(Words.of([note.features for note in notes])), 1e-3, factor)
    rates = [group["lr"] for group in objective.parameter_groups()]
    assert rates == ([1e-3, 2e-4] if factor else [1e-3])
    objective(notes, 0.0)["loss"].backward()
    layer = objective.network.language.layers[0].linear1.weight
    assert (layer.grad is not None and bool(layer.grad.any())) is bool(factor)


def test_some_steps_learn_and_the_weights_come_back(notes, tmp_path):
    torch.manual_seed(0)
    objective = NoteReadingObjective(new_network(Words.of([note.features for note in notes])), 2e-3, 0)
    optimizer = torch.optim.AdamW(objective.parameter_groups())
    losses = []
    for batch in itertools.islice(NoteBatches(notes, 400, 0.3, seed=0), 150):
        loss = objective(batch, 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])
    path = tmp_path / "reader.safetensors"
    objective.save_weights(path)
    loaded = LearnedReader.load(path)
    trained = LearnedReader(objective.network, load_token_encoder())
    assert sum(trained.read_features(note.features).interventions == (note.plan or ()) for note in notes) >= 3
    for note in notes:
        one, other = loaded.read_features(note.features), trained.read_features(note.features)
        assert one.interventions == other.interventions
        assert abs(one.certainty - other.certainty) < 0.05
