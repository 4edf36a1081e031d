"""Training of the volume context: encoded bodies, simulated prompts, losses, and a few steps that learn."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from causal_sam.phantom.bodies import BodySample
from causal_sam.sam.loading import load_model
from causal_sam.training import encoded_bodies
from causal_sam.training.context_prompts import FIRST, corrected, first_prompt
from causal_sam.training.context_targets import mask_loss, share_of_cells
from causal_sam.training.encoded_bodies import EncodedBody, Reservoir, encode_body
from causal_sam.training.volume_context import VolumeContextObjective, validate
from causal_sam.volume.context import read_names


def encode(texts):
    vectors = [torch.nn.functional.normalize(torch.ones(384) * (1 + len(text) % 3), dim=0) for text in texts]
    return torch.stack(vectors) if vectors else torch.zeros(0, 384)


@pytest.fixture(scope="module")
def body():
    rng = np.random.default_rng(0)
    labels = torch.zeros(6, 20, 80, dtype=torch.int16)
    labels[1:5, 5:15, 15:40] = 2
    labels[2:4, 6:14, 50:65] = 3
    noise = torch.from_numpy(rng.normal(0, 0.02, (2, 6, 20, 80))).float()
    images = (labels.float() * 0.25 + noise).clamp(0, 1)
    sample = BodySample(
        images=images,
        wide=images,
        labels=labels,
        structures={"liver": (2,)},
        absent=("brain",),
        unnamed=(3,),
        spacing=(5.0, 4.0, 4.0),
        plane="axial",
        styles=("dark CT", "bright MR"),
    )
    return encode_body(load_model("compact", device="cpu"), sample, rng)


def ball(shape=(12, 20, 24), radius=5.0):
    places = [torch.arange(n) - n / 2 for n in shape]
    z, y, x = places
    return ((z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2) < radius**2).float()


def test_a_body_is_encoded_as_a_real_volume_is(body):
    assert len(body.stacks) == 2
    assert [tuple(x.shape) for x in body.stacks[0]] == [
        (6, 128, 8, 32),
        (6, 32, 16, 64),
        (6, 17, 32, 128),
        (6, 1, 32, 128),
    ]
    assert body.labels.shape == (6, 64, 256)
    assert body.spacing == pytest.approx((5.0, 1.25, 1.25))
    assert set(body.labels.unique().tolist()) == {0, 2, 3}


@pytest.mark.parametrize("kind", list(FIRST))
def test_first_prompts_say_where_a_structure_is(kind):
    rng, target = np.random.default_rng(1), ball()
    for _ in range(5):
        prompts = first_prompt(target, torch.zeros_like(target), rng, kinds={kind: 1.0})
        for points, wanted in ((prompts.foreground, 1.0), (prompts.background, 0.0)):
            for z, y, x in points.round().long().clamp(min=0).tolist():
                assert target[min(z, 11), min(y, 19), min(x, 23)] == wanted
        if kind == "box":
            # Around all of the structure, or around what is inside on one slice.
            first, last = prompts.box[:, 0].round().int().tolist()
            cells = target[first : last + 1].nonzero().float()
            expected = torch.stack([cells.amin(0), cells.amax(0)])
            assert torch.allclose(prompts.box[:, 1:], expected[:, 1:], atol=1.5)
            assert first == last or last - first >= 7
        if kind == "name":
            assert prompts.name is not None
            assert not len(prompts.foreground)


def test_a_structure_without_a_name_is_never_prompted_by_name():
    prompts = first_prompt(ball(), None, np.random.default_rng(2), kinds={"name": 1.0})
    assert prompts.name is None
    assert len(prompts.foreground) == 1


def test_corrections_are_clicks_on_errors():
    rng, target = np.random.default_rng(3), ball()
    answer = target.clone()
    answer[:, :, 14:] = 0
    answer[:4, :4, :4] = 1
    prompts = first_prompt(target, None, rng, kinds={"point": 1.0})
    for _ in range(10):
        more = corrected(prompts, target, answer, rng)
        new = more.foreground[1:] if len(more.foreground) > 1 else more.background
        z, y, x = new[-1].round().long().tolist()
        assert target[z, y, x] != answer[max(z, 0), max(y, 0), max(x, 0)]
        assert more.mask is answer


@pytest.mark.parametrize("size", [1, 3])
def test_corrections_of_the_smallest_grids(size):
    target = torch.ones(size, size, size)
    more = corrected(
        first_prompt(target, None, np.random.default_rng(0)), target, torch.zeros_like(target), np.random.default_rng(0)
    )
    assert len(more.foreground)


def test_the_loss_falls_as_masks_get_better():
    target = ball()
    losses = [
        float(mask_loss(logits, target)) for logits in (-4 * torch.ones_like(target), 4 * target - 2, 12 * target - 6)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_some_steps_learn_and_only_known_names_are_kept(body, tmp_path):
    torch.manual_seed(0)
    objective = VolumeContextObjective(encode, 384, 2e-3)
    optimizer = torch.optim.AdamW(objective.parameters(), 2e-3)
    losses = []
    for _ in range(8):
        terms = objective(body, 0.5)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        objective.after_step(optimizer)
        losses.append(float(terms["loss"].detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    objective.save_weights(tmp_path / "context.safetensors", 10, ["liver"], [])
    objective.save_weights(tmp_path / "context.safetensors", 11, ["spleen"], ["liver"])
    assert read_names(tmp_path / "context.safetensors") == {"liver", "spleen"}
    assert read_names(tmp_path / "context.safetensors", "found") == {"liver"}
    scores, found = validate(objective.network, [body], encode)
    assert scores.keys() == {"click@1", "click@3", "name"}
    assert found == []  # one body is too few


def test_names_are_found_that_were_on_several_bodies(body, monkeypatch):
    network = VolumeContextObjective(encode, 384, 2e-3).network
    truth = {name: share_of_cells(body.labels, values, 4) - 0.5 for name, values in body.structures.items()}
    large = [name for name, logits in truth.items() if (logits > 0).sum() >= 40]
    assert large
    wrong = large[0]

    def name_logits(context, vectors):
        return torch.stack([-truth[name] if name == wrong else truth[name] for name in asked])

    asked: list[str] = []

    def encoded(names):
        asked[:] = names
        return encode(names)

    monkeypatch.setattr(network, "name_logits", name_logits)
    _, found = validate(network, [body] * 3, encoded)
    assert wrong not in found
    assert set(found) >= set(large) - {wrong}


class _Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from range(1000)


def test_the_reservoir_gives_each_body_the_wanted_number_of_steps(monkeypatch):
    made = []

    class Loader:
        def __init__(self, bodies, **options):
            self.bodies = bodies

        def __iter__(self):
            for n in range(1000):
                made.append(n)
                yield EncodedBody(
                    stacks=(),
                    labels=torch.zeros(1),
                    structures={f"name {n}": (1,)},
                    absent=(),
                    unnamed=(),
                    spacing=(1.0, 1.0, 1.0),
                    plane="axial",
                    styles=(),
                )

    monkeypatch.setattr(encoded_bodies, "DataLoader", Loader)
    reservoir = Reservoir(_Stream(), size=10, workers=0, reuse=5.0, seed=0)
    drawn = []
    for body in reservoir:
        drawn.append(body)
        threading.Event().wait(0.001)
        if len(drawn) == 200:
            break
    assert 35 <= reservoir.made <= 45
    assert {"name 0"} <= reservoir.names


def test_an_error_of_a_worker_ends_the_training(monkeypatch):
    class Loader:
        def __init__(self, bodies, **options):
            pass

        def __iter__(self):
            raise RuntimeError("no label maps")

    monkeypatch.setattr(encoded_bodies, "DataLoader", Loader)
    with pytest.raises(RuntimeError, match="no label maps"):
        next(iter(Reservoir(_Stream(), size=10, workers=0, reuse=5.0, seed=0)))
