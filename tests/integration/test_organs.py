"""Labels by their names: as OHIF's and Slicer's automatic segmentation, as a prompt, and for all unlabelled images."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
import torch

from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting.named import name_vectors
from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, LabelPart
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.style.lad import NO_LAD
from causal_sam.text import load_text_encoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.style_pairs import labelled_slices

from .images import Phantom, make_phantom
from .server import REQUEST_SECONDS, Server, running_server

pytestmark = pytest.mark.integration

MODEL = "causal_sam_organs"
LABELS = {"liver": 1, "spleen": 2, "right kidney": 3}
TRAINED = ("liver", "spleen")
STEPS = 50


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """A file of the labels that were learned on the made-up image, in a few seconds."""
    torch.manual_seed(0)
    model, encoder = load_model("compact", device="cpu"), load_text_encoder()
    config = TrainingConfig(
        steps=STEPS, batch=4, pairs=2, clicked=0.0, area_power=0.5, adapters=None, lad=NO_LAD, learning_rate=3e-3
    )
    prompt = new_label_prompt(model, encoder.dimension)
    objective = AdapterObjective(model, prompt, name_vectors(TRAINED, encoder), config)
    case = labelled_slices(
        Volume(phantom.array, phantom.affine, modality="CT"), phantom.organs, TRAINED, model.image_size
    )
    records: list[dict[str, float]] = []
    engine = adapter_engine(objective, log=records.append, log_every=10)
    engine.run(batches([case], model.image_size, encoder.encode, config, styled=False, seed=0))
    assert records[-1]["loss"] < 1
    said = objective.metadata(TRAINED, encoder, {})
    path = tmp_path_factory.mktemp("bundle") / "labels.safetensors"
    AdapterBundle(LabelPart.from_training(prompt, said, model)).write(path)
    return path


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """Three images of the same anatomy with other noise, one of them accepted already, and a broken one."""
    folder = tmp_path_factory.mktemp("cases")
    for seed, name in enumerate(("one", "two", "accepted"), start=1):
        image = nibabel.Nifti1Image(make_phantom(seed=seed).array, phantom.affine)
        nibabel.save(image, folder / f"{name}.nii.gz")
    (folder / "broken.nii.gz").write_bytes((folder / "one.nii.gz").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def trained_server(cases: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # These tests are about labels that the site has trained: without the volume context, which finds others by name.
    conf = {"labels": ",".join(LABELS), "extent": "slice", "adapter_bundle": str(bundle), "context_mb": "0"}
    with running_server(cases, tmp_path_factory.mktemp("trained"), conf) as started:
        yield started


def scores(mask: np.ndarray, phantom: Phantom) -> dict[str, float]:
    return {name: dice(mask == LABELS[name], organ) for name, organ in phantom.organs.items()}


def test_clients_list_it_as_automatic_segmentation(trained_server: Server) -> None:
    task = trained_server.info()["models"][MODEL]
    assert task["type"] == "segmentation"
    assert task["labels"] == LABELS
    assert task["config"]["organs"] == ""


def test_ohif_gets_all_trained_labels_under_their_values(trained_server: Server, phantom: Phantom) -> None:
    # OHIF sends what the options dialog shows, and keys that earlier calls left behind.
    mask = trained_server.ohif(
        {"organs": "", "plane": "auto", "frame": 0, "background": [[1, 1, 1]]}, model=MODEL, image="one"
    )
    assert mask.shape == phantom.array.shape
    assert set(np.unique(mask)) == {0, 1, 2}
    assert min(scores(mask, phantom).values()) > 0.8


def test_slicer_is_told_which_labels_were_never_trained(trained_server: Server, phantom: Phantom) -> None:
    mask, answer = trained_server.slicer({}, model=MODEL, image="two", client_id="s1")
    assert min(scores(mask, phantom).values()) > 0.8
    assert answer["label_names"] == LABELS
    assert answer["untaught"] == ["right kidney"]
    assert "never learned, so left out: right kidney" in answer["message"]
    assert answer["labels"]["liver"]["volume_ml"] == pytest.approx(
        np.count_nonzero(mask == 1) * abs(np.linalg.det(phantom.affine[:3, :3])) / 1000, rel=1e-3
    )


def test_names_may_be_chosen_in_any_spelling(trained_server: Server) -> None:
    mask, answer = trained_server.slicer({"organs": "Hepatic"}, model=MODEL, image="one", client_id="s2")
    assert set(np.unique(mask)) == {0, 1}
    assert list(answer["labels"]) == ["liver"]
    mask, answer = trained_server.slicer({"organs": "splen, RK"}, model=MODEL, image="one", client_id="s3")
    assert set(np.unique(mask)) == {0, 2}
    assert answer["untaught"] == ["right kidney"]


@pytest.mark.parametrize(
    ("organs", "sentence"),
    [
        ("right renal", "right kidney was never learned; this server learned liver, spleen."),
        ("toenail", "There is no label 'toenail'; this server has liver, spleen, right kidney."),
        (["liver"], "organs must be label names separated by commas"),
    ],
)
def test_what_cannot_be_found_is_said(trained_server: Server, organs: object, sentence: str) -> None:
    response = trained_server.post({"organs": organs}, model=MODEL, image="one")
    assert response.status_code == 422
    assert sentence in response.json()["detail"]


def test_clicks_correct_what_was_found_and_clicked_labels_stay(trained_server: Server, phantom: Phantom) -> None:
    body = {"right kidney": [[48, 60, 5]], "liver": [], "spleen": [], "label": "right kidney", "background": []}
    clicked, _ = trained_server.slicer(body, model="causal_sam_multilabel", image="one", client_id="s4")
    kidney = clicked == LABELS["right kidney"]
    assert kidney.any()
    mask, _ = trained_server.slicer({}, model=MODEL, image="one", client_id="s4")
    np.testing.assert_array_equal(mask == LABELS["right kidney"], kidney)
    x, y, k = phantom.centres["spleen"]
    corrected, _ = trained_server.slicer(
        {"label": "spleen", "foreground": [], "background": [[x, y, k]]}, image="one", client_id="s4"
    )
    assert corrected[x, y, k] == 0
    others = [index for index in range(phantom.array.shape[2]) if index != k]
    np.testing.assert_array_equal(corrected[..., others] > 0, mask[..., others] == LABELS["spleen"])


def test_what_somebody_made_stays_unless_it_is_to_be_replaced(trained_server: Server, phantom: Phantom) -> None:
    found, _ = trained_server.slicer({}, model=MODEL, image="two", client_id="s7")
    x, y, k = phantom.centres["spleen"]
    # A corrected mask, and one that was clicked, also where the structure is called by its name.
    corrected, _ = trained_server.slicer(
        {"label": "spleen", "foreground": [], "background": [[x, y, k]]}, image="two", client_id="s7"
    )
    mask, answer = trained_server.slicer({"replace": False}, model=MODEL, image="two", client_id="s7")
    np.testing.assert_array_equal(mask == LABELS["spleen"], corrected > 0)
    assert answer["kept"] == ["spleen"]
    assert "kept as somebody made or corrected them: spleen (the option replace finds them anew)" in answer["message"]
    assert answer["labels"]["liver"]["volume_ml"] > 0
    response = trained_server.post({"label": "spleen", "foreground": [], "client_id": "s7"}, image="two")
    assert response.status_code == 422
    assert "spleen has a mask already" in response.json()["detail"]
    mask, answer = trained_server.slicer({"replace": True}, model=MODEL, image="two", client_id="s7")
    np.testing.assert_array_equal(mask, found)
    assert answer["kept"] == []
    clicked, _ = trained_server.slicer({"label": "liver", "foreground": [[48, 60, 5]]}, image="two", client_id="s8")
    mask, answer = trained_server.slicer({}, model=MODEL, image="two", client_id="s8")
    np.testing.assert_array_equal(mask == LABELS["liver"], clicked > 0)
    assert answer["kept"] == ["liver"]
    assert (mask == LABELS["spleen"]).any()


def test_labels_of_the_clients_own_are_in_the_answer(trained_server: Server) -> None:
    cyst, _ = trained_server.slicer({"label": "cyst", "foreground": [[48, 60, 5]]}, image="one", client_id="s9")
    mask, answer = trained_server.slicer({}, model=MODEL, image="one", client_id="s9")
    assert answer["label_names"] == {**LABELS, "cyst": 4}
    np.testing.assert_array_equal(mask == 4, cyst > 0)


def test_a_name_alone_is_a_prompt(trained_server: Server, phantom: Phantom) -> None:
    mask, answer = trained_server.slicer({"label": "Splenic", "foreground": []}, image="two", client_id="s5")
    assert answer["label"] == "spleen"
    assert dice(mask > 0, phantom.organs["spleen"]) > 0.8
    response = trained_server.post({"label": "right kidney", "foreground": []}, image="two")
    assert response.status_code == 422
    assert "Nothing was clicked" in response.json()["detail"]


@pytest.mark.slow
def test_batch_inference_fills_all_images_that_nobody_accepted(
    trained_server: Server, phantom: Phantom, cases: Path, tmp_path: Path
) -> None:
    accepted = tmp_path / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(phantom.organs["liver"].astype(np.uint8), phantom.affine), accepted)
    trained_server.client().save_label("accepted", str(accepted), tag="final")
    url = f"{trained_server.url}/batch/infer"
    response = requests.post(f"{url}/{MODEL}", params={"images": "unlabeled"}, timeout=REQUEST_SECONDS)
    assert response.status_code == 200, response.text
    deadline = time.monotonic() + REQUEST_SECONDS
    while (task := requests.get(url, timeout=REQUEST_SECONDS).json())["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert task["status"] == "DONE", task
    for name in ("one", "two"):
        saved = np.asarray(nibabel.load(cases / "labels" / "original" / f"{name}.nii.gz").dataobj)
        assert min(scores(saved, phantom).values()) > 0.8
    assert {path.name for path in (cases / "labels" / "original").iterdir()} == {"one.nii.gz", "two.nii.gz"}
    assert "broken was left out (InputError in read_nifti" in json.dumps(task["details"])


def test_what_is_trained_later_counts_without_a_restart(trained_server: Server, bundle: Path) -> None:
    labels = AdapterBundle.read(bundle).labels
    AdapterBundle(replace(labels, metadata=replace(labels.metadata, names=("liver",)))).write(bundle)
    try:
        _, answer = trained_server.slicer({}, model=MODEL, image="one", client_id="s6")
        assert answer["untaught"] == ["spleen", "right kidney"]
    finally:
        AdapterBundle(labels).write(bundle)


def test_a_new_server_knows_the_names_of_the_volume_context(server: Server) -> None:
    _, answer = server.slicer({}, model=MODEL, client_id="new")
    assert list(answer["labels"]) == ["liver"]
    assert answer["untaught"] == ["spleen", "right kidney"]
