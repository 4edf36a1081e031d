"""The app's configuration and label set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fake_chat import ToolModel, plan

from causal_sam.chat import is_local
from causal_sam.errors import InputError
from causal_sam.notes import NoteRequest
from serving.conf import AppConf, configuration_table
from serving.data.folder_store import FolderStore
from serving.data.label_set import ABDOMEN, RESERVED, LabelSet

NOTE = NoteRequest("Smith's liver is too big", ("liver",))
SAMPLE = Path(__file__).resolve().parents[3] / "sample_configs" / "server.yaml"


def test_nothing_given_means_the_documented_defaults() -> None:
    assert AppConf.from_conf({}) == AppConf.from_conf({"config": str(SAMPLE)})
    documented = yaml.safe_load(SAMPLE.read_text())
    assert set(documented) == set(AppConf.model_fields)


def test_the_command_line_wins_over_the_file_and_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("cache_mb: 5\nplane: coronal\ncache_dir: kept\nlabels: [liver, spleen]\n")
    conf = AppConf.from_conf({"config": str(path), "cache_mb": "7", "server_mode": "true"})
    assert (conf.cache_mb, conf.plane, conf.cache_dir) == (7, "coronal", tmp_path / "kept")
    assert conf.labels.names == ("liver", "spleen")


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ({"model": "giant"}, "model must be one of compact"),
        ({"plane": "oblique"}, "plane must be one of auto, axial, coronal, sagittal, not 'oblique'"),
        ({"extent": "all"}, "extent must be one of volume, slice, not 'all'"),
        ({"cache_mb": "much"}, "cache_mb must be a whole number of at least 1, not 'much'"),
        ({"cache_mb": "0"}, "at least 1"),
        ({"prefetch_slices": "-1"}, "prefetch_slices must be a whole number of at least 0, not '-1'"),
        ({"cache_mb": True}, "not True"),
        ({"hosts": 5}, "hosts must be a list, or names separated by commas, not 5"),
        ({"hosts": "http://here"}, "hosts must be names or addresses without scheme and port, not 'http://here'"),
        ({"unsafe_routes": "all"}, "unsafe_routes must be one of reload, .*, not 'all'"),
        ({"labels": 7}, "labels must be names or a JSON file, not 7"),
        ({"parallel": "1.5"}, "whole number"),
        ({"checkpoint": "/no/such/file"}, "existing file"),
        ({"device": "gpu"}, "device must be"),
        ({"device": "cuda:99"}, "is not there"),
        ({"lables": "liver"}, "no configuration 'lables'; known are config, labels"),
        ({"config": "/no/such/file"}, "cannot be read"),
        ({"llm_consent": "yes"}, "llm_consent must be one of none, remote, not 'yes'"),
        ({"labels": "liver,,spleen"}, "empty name"),
        ({"labels": "liver,liver"}, "twice"),
        ({"labels": "liver,roi"}, "No label can be called 'roi'"),
        ({"labels": "/no/such.json"}, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(conf: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        AppConf.from_conf(conf)
    assert "\n" not in str(caught.value)


def test_an_old_key_still_counts_with_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert AppConf.from_conf({"encode_ahead": "3"}).prefetch_slices == 3
    assert [record.getMessage() for record in caplog.records] == [
        "The configuration key encode_ahead is deprecated: use prefetch_slices."
    ]


def test_the_files_of_old_keys_are_adapter_bundles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("label_prompts: a,b/labels.safetensors\nfilm:\n")
    conf = AppConf.from_conf({"config": str(path), "film": "/film.safetensors"})
    assert conf.adapter_bundle == (tmp_path / "a,b" / "labels.safetensors", Path("/film.safetensors"))
    said = {record.getMessage() for record in caplog.records}
    assert said == {
        f"The configuration key {key} is deprecated: use adapter_bundle." for key in ("film", "label_prompts")
    }
    path.write_text("adapter_bundle: one.safetensors, two.safetensors\n")
    conf = AppConf.from_conf({"config": str(path)})
    assert conf.adapter_bundle == (tmp_path / "one.safetensors", tmp_path / "two.safetensors")


def test_the_table_of_keys_has_a_row_for_each_with_value_default_and_meaning() -> None:
    header, _, *rows = configuration_table().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert header.count("|") == 5
    assert [row[0] for row in cells] == [f"`{key}`" for key in AppConf.model_fields]
    assert all(len(row) == 4 and row[1] and row[3] for row in cells)
    assert "| `prefetch_slices` | a whole number of at least 0 | `1` |" in configuration_table()


@pytest.mark.parametrize("content", ["[1, 2", "- only\n- a list", "{a: b: c}"])
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"server\.yaml"):
        AppConf.from_conf({"config": str(path)})


def test_labels_from_a_list_a_line_and_files(tmp_path: Path) -> None:
    listed, valued = tmp_path / "list.json", tmp_path / "values.json"
    listed.write_text(json.dumps(["tumor", "edema"]))
    valued.write_text(json.dumps({"edema": 2, "tumor": 1}))
    for value in ("tumor, edema", ["tumor", "edema"], {"edema": 2, "tumor": 1}, str(listed), str(valued)):
        assert LabelSet.from_conf(value).indices == {"tumor": 1, "edema": 2}


@pytest.mark.parametrize("values", [{"a": 1, "b": 3}, {"a": 0, "b": 1}, {"a": 1, "b": 1}, {"a": "x"}])
def test_label_values_must_have_no_gaps(values: dict) -> None:
    with pytest.raises(InputError, match="each once"):
        LabelSet.from_conf(values)


def store(folder: Path, **infos: dict) -> FolderStore:
    """Make a data store with an image for each info, which is the one its label was saved with."""
    folder.mkdir()
    for image in infos:
        (folder / f"{image}.nii.gz").write_bytes(b"")
    datastore = FolderStore(str(folder), extensions=["*.nii.gz"], auto_reload=False)
    for image, info in infos.items():
        datastore.store_label(image, folder / f"{image}.nii.gz", "final", info)
    return datastore


def test_labels_from_the_data_store(tmp_path: Path) -> None:
    assert LabelSet.from_datastore(store(tmp_path / "none")).names == ABDOMEN
    own = store(
        tmp_path / "own",
        a={"label_info": [{"name": "edema", "idx": 2}]},
        b={"params": {"label_names": {"tumor": 1, "edema": 2, "background": 3}}},
    )
    assert LabelSet.from_datastore(own).names == ("tumor", "edema")
    # A site that has saved one organ so far still wants the others, under the values that they had.
    some = store(tmp_path / "some", a={"label_info": [{"name": "cyst", "idx": 1}, {"name": "spleen", "idx": 2}]})
    assert LabelSet.from_datastore(some).names == (*ABDOMEN, "cyst")


def test_names_in_the_data_store_that_requests_use_otherwise_do_not_stop_the_start(tmp_path: Path) -> None:
    own = store(tmp_path / "own", a={"label_names": ["tumor"]}, b={"label_names": ["edema"]})
    path = Path(own._datastore_config_path)
    for name in (*sorted(RESERVED), "result_1", "result_", "\u202e", "tab\tname", "x" * 5000):
        content = json.loads(path.read_text())
        content["objects"]["b"]["labels"]["final"]["info"] = {"label_info": [{"name": name, "idx": 2}]}
        path.write_text(json.dumps(content))
        again = FolderStore(own._datastore_path, extensions=["*.nii.gz"])
        assert LabelSet.from_datastore(again).names == ("tumor",), name


def test_notes_are_read_by_the_embedded_interpreter_unless_another_is_named() -> None:
    for conf in ({}, {"llm": ""}, {"llm": "embedded"}):
        assert AppConf.from_conf(conf).interpreter().invoke(NOTE).interpreter == "embedded"


def test_a_chat_model_reads_notes_and_a_remote_one_only_with_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ToolModel(answers=[plan({"label": "liver", "action": "shrink"})])
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda name: model)
    conf = {"llm": "someone:model"}
    for refused in (conf, {**conf, "llm_consent": "none"}):
        with pytest.raises(InputError, match="notes leave it only with consent"):
            AppConf.from_conf(refused).interpreter()
    reading = AppConf.from_conf({**conf, "llm_consent": "remote"}).interpreter().invoke(NOTE)
    assert (reading.interpreter, reading.plan.sentence) == ("someone:model", "shrink the liver")
    assert "Smith" not in model.everything


@pytest.mark.parametrize("path", sorted((SAMPLE.parent / "llm").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_of_chat_models_are_configurations(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    for variable in ("OLLAMA_HOST", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    conf = AppConf.from_conf({"config": str(path)})
    needs_address = path.stem == "openai_compatible"
    assert is_local(conf.llm) != (needs_address or conf.llm_consent == "remote")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1")
    assert is_local(conf.llm) or conf.llm_consent == "remote"
