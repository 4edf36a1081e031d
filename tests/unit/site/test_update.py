"""Updates from beginning to end: what is published, what is said, and that a stopped one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_store import ended, forked
from tiny_site import LEFT, RIGHT, TinySite, quick

from causal_sam.errors import InputError
from causal_sam.sam.adapter_bundle import AdapterBundle
from causal_sam.site import training as job_training
from causal_sam.site import update as updates
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import (
    TRAINING,
    Progress,
    SitePaths,
    UpdateConfig,
    UpdateError,
    is_running,
    processes_for,
    progress_of,
)
from causal_sam.site.training import LOSSES
from causal_sam.site.update import JOB, REPORTS, Outcome, update
from causal_sam.training.adapters import AdapterObjective
from causal_sam.training.engine import CHECKPOINT, TrainingEngine

# So little is learned that what was there before stays as it was.
NEXT_TO_NOTHING = {"learning_rate": 1e-15, "adapter_rate": 1e-15, "epochs": 1}
SPOILING = {"learning_rate": 1.0, "adapter_rate": 1.0, "epochs": 2}


@pytest.fixture
def tiny(tmp_path: Path) -> TinySite:
    return TinySite(tmp_path)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinySite, Outcome, list[str]]:
    """Return a site with a first version, and what was told; not to be changed."""
    tiny, told = TinySite(tmp_path_factory.mktemp("learned")), []
    for number in range(3):
        tiny.accept(number)
    return tiny, update(tiny.site(), quick(seed=1), log=told.append), told


@pytest.fixture
def site(learned: tuple[TinySite, Outcome, list[str]], tmp_path: Path) -> Iterator[TinySite]:
    """Return a copy of it, to go on from."""
    tiny = TinySite(tmp_path / "copy")
    for number in range(3):
        tiny.accept(number)
    subprocess.run(["cp", "-a", str(learned[0].store), str(tiny.store)], check=True)
    return tiny


def version_of(tiny: TinySite, number: int):
    return AdapterStore(tiny.store).version(number)


def test_the_first_update_publishes(learned: tuple[TinySite, Outcome, list[str]]) -> None:
    tiny, outcome, told = learned
    assert (outcome.status, outcome.version, outcome.skipped) == ("published", 1, ())
    assert outcome.message.startswith("v0001 was trained on 3 cases and published: Dice 0.")
    assert outcome.message.endswith("on 3 cases that it was trained on, since none is held out yet.")
    assert set(outcome.metrics) == {LEFT, RIGHT}
    assert min(outcome.metrics.values()) > 0.3
    assert outcome.parent_metrics == {LEFT: 0.0, RIGHT: 0.0}
    assert told[0] == "Reading accepted labels."
    assert told[-1] == outcome.message
    state = progress_of(tiny.store)
    assert (state["phase"], state["share"], state["message"]) == ("published", 1.0, outcome.message)
    assert not is_running(tiny.store)
    assert not (tiny.store / TRAINING / JOB).exists()


def test_the_manifest_says_what_it_was_made_from(learned: tuple[TinySite, Outcome, list[str]]) -> None:
    tiny, outcome, _ = learned
    training = version_of(tiny, 1).manifest.training
    digests = tiny.digests()
    assert {label.image: label.sha256 for label in training.labels} == {
        f"case{n:02d}": digests[f"labels/final/case{n:02d}.nii.gz"] for n in range(3)
    }
    assert {label.tag for label in training.labels} == {"final"}
    assert (training.parent, training.names) == (None, (LEFT, RIGHT))
    assert training.encoder_hash == tiny.site().load().encoder_hash()
    assert (training.metrics, training.parent_metrics) == (outcome.metrics, {})
    config = training.config
    assert UpdateConfig(**{**{name: config[name] for name in UpdateConfig.__dataclass_fields__}, "labels": ()}) == (
        quick(seed=1)
    )
    assert config["measured_on_learnt_cases"] is True
    assert config["measured_on"] == "3 cases that it was trained on, since none is held out yet"
    assert config["cases"]["case00"]["names"] == [LEFT, RIGHT]
    assert config["skipped"] == {}


def test_pictures_are_drawn(learned: tuple[TinySite, Outcome, list[str]]) -> None:
    folder = learned[0].store / TRAINING / REPORTS / "v0001"
    for name in ("loss.png", "dice.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_nothing_new_is_said_and_nothing_is_made(site: TinySite) -> None:
    outcome = update(site.site(), quick())
    assert (outcome.status, outcome.version) == ("nothing", None)
    assert outcome.message == "No label was accepted since v0001 that can be learned from: it stays in use."
    assert AdapterStore(site.store).numbers() == [1]
    assert progress_of(site.store)["message"] == outcome.message
    assert not (site.store / TRAINING / JOB).exists()


def test_the_next_update_goes_on_from_the_version_in_use(site: TinySite) -> None:
    site.accept(3)
    outcome = update(site.site(), quick(**NEXT_TO_NOTHING))
    assert (outcome.status, outcome.version) == ("published", 2)
    assert outcome.metrics == pytest.approx(outcome.parent_metrics, abs=1e-3)
    training = version_of(site, 2).manifest.training
    assert training.parent == 1
    assert training.parent_metrics == outcome.parent_metrics
    assert {label.image for label in training.labels} == {f"case{n:02d}" for n in range(4)}
    before, after = (AdapterBundle.read(version_of(site, number).adapter).labels for number in (1, 2))
    for one, other in ((before.prompt, after.prompt), (before.adapters, after.adapters)):
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in one)
    assert after.metadata.names == (LEFT, RIGHT)


def test_a_new_name_is_learnt_beside_those_that_are_known(site: TinySite) -> None:
    site.accept(3, {RIGHT: "third"})
    outcome = update(site.site(), quick(epochs=1))
    training = version_of(site, 2).manifest.training
    assert training.names == (LEFT, RIGHT, "third")
    assert outcome.parent_metrics["third"] == 0.0


def test_a_label_that_was_saved_anew_is_learnt_anew(site: TinySite) -> None:
    site.accept(1, {LEFT: LEFT})
    outcome = update(site.site(), quick(**NEXT_TO_NOTHING))
    assert outcome.version == 2
    assert version_of(site, 2).manifest.training.config["cases"]["case01"]["names"] == [LEFT]


@pytest.mark.slow
def test_what_is_worse_is_not_published(site: TinySite) -> None:
    site.accept(3)
    outcome = update(site.site(), quick(**SPOILING))
    store = AdapterStore(site.store)
    assert (outcome.status, outcome.version, store.current()) == ("rejected", 2, 1)
    assert "would drop from Dice" in outcome.message or "would fall from" in outcome.message
    version = store.version(2)
    assert version.status == "rejected"
    assert version.reason in outcome.message
    with store.lease_current() as (current, notice):
        assert (current.number, notice) == (1, None)
    # Its labels are still to be learned.
    assert update(site.site(), quick(**NEXT_TO_NOTHING)).status == "published"
    assert store.current() == 3


def test_what_is_too_bad_is_not_published_and_says_where_it_was_measured(tiny: TinySite) -> None:
    for number in range(3):
        tiny.accept(number)
    outcome = update(tiny.site(), quick(epochs=1, min_dice=0.9, min_label_dice=0.9))
    assert (outcome.status, AdapterStore(tiny.store).current()) == ("rejected", None)
    assert (
        "only, below 0.9: accept more labels, train longer" in outcome.message
        or "None of the labels" in outcome.message
    )
    assert outcome.message.endswith("It was measured on 3 cases that it was trained on, since none is held out yet.")


def test_another_version_that_came_meanwhile_stays(site: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.accept(3)
    store, measure = AdapterStore(site.store), updates.measure

    def measured(*arguments: Any, **named: Any) -> dict[str, float]:
        # There is one update at a time, but a version may come in other ways, at the worst moment this one.
        if store.current() == 1:
            with store.lease(1) as version:
                made = version.manifest.training
                other = store.add(lambda path: path.write_bytes(version.adapter.read_bytes()), replace(made, parent=1))
            store.publish(other.number)
        return measure(*arguments, **named)

    monkeypatch.setattr(updates, "measure", measured)
    outcome = update(site.site(), quick(**NEXT_TO_NOTHING))
    assert (outcome.status, outcome.version, store.current()) == ("rejected", 3, 2)
    assert "but v0002 is current now, so it was not published: train again from v0002." in outcome.message


def test_there_is_one_update_of_a_store_at_a_time(site: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "LOCK_SECONDS", 0.1)
    site.accept(3)
    with updates._alone(site.store / TRAINING):
        assert is_running(site.store)
        with pytest.raises(InputError, match="Another update of this adapter store runs: wait for it, or stop it"):
            update(site.site(), quick())
    assert not is_running(site.store)


def test_a_killed_update_goes_on_from_its_checkpoint(tiny: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.accept(0)
    monkeypatch.setattr(job_training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    config = quick(minutes=0.15, epochs=0)  # enough for three steps on a busy machine
    child = forked(lambda: update(tiny.site(), config))
    while progress_of(tiny.store).get("step", 0) < 3:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the update ended"
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    job = tiny.store / TRAINING / JOB
    left = torch.load(job / CHECKPOINT, weights_only=True)
    assert left["step"] >= 2
    assert left["seconds"] > 0
    with (job / LOSSES).open("a") as file:
        file.write('{"step": 1000, "lo')  # cut off
    seen: list[dict[str, Any]] = []
    steps: list[int] = []
    save = TrainingEngine.save

    def saved(engine: TrainingEngine) -> None:
        save(engine)
        steps.append(engine.step)
        seen.append(torch.load(job / CHECKPOINT, weights_only=True))

    monkeypatch.setattr(TrainingEngine, "save", saved)
    losses: list[int] = []
    draw = updates.draw_update
    monkeypatch.setattr(
        updates,
        "draw_update",
        lambda folder, path, *more: (
            losses.extend(json.loads(line)["step"] for line in path.read_text().splitlines()),
            draw(folder, path, *more),
        ),
    )
    assert update(tiny.site(), config).version == 1
    assert steps[0] == left["step"] + 1
    assert seen[0]["seconds"] > left["seconds"]
    assert losses == list(range(1, steps[-1] + 1))
    moved = seen[-1]["optimizer"][0]["step"]
    assert int(moved) == steps[-1]


def test_an_update_that_was_killed_while_measuring_is_not_trained_again(
    site: TinySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.accept(3)

    class KilledError(Exception):
        """In the place of a signal."""

    def killed(*_: Any, **__: Any) -> dict[str, float]:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(updates, "measure", killed)
        with pytest.raises(KilledError):
            update(site.site(), quick(**NEXT_TO_NOTHING))
    monkeypatch.setattr(job_training, "adapter_engine", killed)
    assert update(site.site(), quick(**NEXT_TO_NOTHING)).status == "published"


def test_a_checkpoint_that_cannot_be_read_is_not_used(site: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.accept(3)
    told: list[str] = []

    def spoilt(*arguments: Any) -> None:
        (site.store / TRAINING / JOB / CHECKPOINT).write_bytes(b"PK\x03\x04 no checkpoint")
        launch(*arguments)

    launch = updates._launch
    monkeypatch.setattr(updates, "_launch", spoilt)
    assert update(site.site(), quick(**NEXT_TO_NOTHING), log=told.append).status == "published"


def test_the_shortest_time_is_one_step(tiny: TinySite) -> None:
    tiny.accept(0)
    outcome = update(tiny.site(), quick(epochs=0, minutes=1e-9))
    assert outcome.version == 1


@pytest.mark.slow
def test_two_processes_make_one_version(tiny: TinySite) -> None:
    for number in range(2):
        tiny.accept(number)
    outcome = update(tiny.site(), quick(epochs=0, minutes=0.02), processes=2)
    assert outcome.version == 1
    assert set(outcome.metrics) == {LEFT, RIGHT}


def test_other_styles_are_learnt_with_lad(tiny: TinySite) -> None:
    tiny.accept(0)
    outcome = update(tiny.site(), quick(epochs=1, lad=True))
    assert outcome.version == 1


def test_a_loss_that_is_no_number_ends_it(site: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.accept(3)
    # Gradients are limited and images are made finite, so it cannot be made by what is given.
    forward = AdapterObjective.forward

    def infinite(*arguments: Any) -> dict[str, torch.Tensor]:
        return {name: value * float("nan") for name, value in forward(*arguments).items()}

    monkeypatch.setattr(AdapterObjective, "forward", infinite)
    with pytest.raises(UpdateError, match=r"The loss of step \d+ is not a number, so nothing was published: lower the"):
        update(site.site(), quick())
    assert AdapterStore(site.store).current() == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"minutes": 0}, "An update needs minutes above 0 and at most 10080, not"),
        ({"epochs": -1}, "The number of epochs must be 0 to 10000, not -1."),
        ({"minutes": float("nan")}, "An update needs minutes above 0"),
        ({"replay": 1.0}, "replay must be at least 0 and below 1, not 1.0."),
        ({"validation": -0.1}, "validation must be at least 0 and below 1, not -0.1."),
        ({"batch": 2}, "a batch of at least 4"),
        ({"learning_rate": 0.0}, "learning_rate and adapter_rate must be above 0 and at most 1, not 0.0"),
    ],
)
def test_what_cannot_be_configured(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        UpdateConfig(**changes)
    assert sentence in str(caught.value)


def test_processes_there_are_not() -> None:
    assert processes_for(0, "cpu") == 1
    assert processes_for(2, "cpu") == 2
    with pytest.raises(InputError, match=r"processes must be 0 to \d+, for the processors of this machine, and not"):
        processes_for(10_000, "cpu")


def test_what_was_never_updated_has_no_progress(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == {}
    assert not is_running(tmp_path)
    (tmp_path / TRAINING).mkdir()
    progress = Progress(tmp_path / TRAINING, lambda line: None)
    progress("reading", 0.0, "Reading.")
    progress("training", 0.5, loss=1.0)  # too soon to be told
    assert progress_of(tmp_path)["phase"] == "reading"
    (tmp_path / TRAINING / "progress.json").write_text("[]")
    assert progress_of(tmp_path) == {}


def test_a_site_can_be_sent_to_other_processes() -> None:
    assert SitePaths(Path("a"), Path("b")).values == {}
