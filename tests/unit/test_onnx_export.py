"""The exported encoder is the one that made the item vectors, and what cannot be exported says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipelines.adapters import onnx_export
from pipelines.errors import ArtifactError
from pipelines.search.encoding import MODEL, NetworkEncoder, QueryEncoder
from pipelines.storage import read_json

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "shoe", "mug", "tea", "for", "the")
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 32, "layer_norm_eps": 1e-12, "pad_token_id": 0, "vocab_size": len(WORDS),
}  # fmt: skip
LENGTH = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with drawn weights, as a folder of the usual files."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("bert")
    rng, width, inner = np.random.default_rng(3), CONFIG["hidden_size"], CONFIG["intermediate_size"]

    def drawn(*shape: int) -> np.ndarray:
        return (0.3 * rng.normal(size=shape)).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": drawn(len(WORDS), width),
        "embeddings.position_embeddings.weight": drawn(LENGTH, width),
        "embeddings.token_type_embeddings.weight": drawn(2, width),
        "embeddings.LayerNorm.weight": 1 + drawn(width),
        "embeddings.LayerNorm.bias": drawn(width),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        own = f"encoder.layer.{layer}"
        parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        shapes = {f"{own}.{part}": (width, width) for part in parts}
        shapes |= {f"{own}.intermediate.dense": (inner, width), f"{own}.output.dense": (width, inner)}
        for name, shape in shapes.items():
            weights |= {f"{name}.weight": drawn(*shape), f"{name}.bias": drawn(shape[0])}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights |= {f"{own}.{name}.weight": 1 + drawn(width), f"{own}.{name}.bias": drawn(width)}
    save_file(weights, folder / onnx_export.WEIGHTS)
    (folder / onnx_export.CONFIG).write_text(json.dumps(CONFIG))
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def by_hand(source: Path, ids: list[int]) -> np.ndarray:
    """The network of the paper in numpy, one text."""
    from math import erf

    from safetensors.numpy import load_file

    w = load_file(source / onnx_export.WEIGHTS)
    heads = CONFIG["num_attention_heads"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + CONFIG["layer_norm_eps"])
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(CONFIG["num_hidden_layers"]):
        own = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{own}.attention.self.{name}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        near = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        share = np.exp(near - near.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        seen = (share @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + dense(seen, f"{own}.attention.output.dense"), f"{own}.attention.output.LayerNorm")
        inner = dense(x, f"{own}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
        x = norm(x + dense(inner, f"{own}.output.dense"), f"{own}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def ids_of(text: str) -> list[int]:
    inside = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
    return [WORDS.index("[CLS]"), *inside, WORDS.index("[SEP]")][:LENGTH]


TEXTS = ["red shoe", "tea mug for the shoe", "unknown words", "red"]


def test_the_exported_graph_computes_what_the_paper_says(source: Path, tmp_path: Path) -> None:
    wanted = np.stack([by_hand(source, ids_of(text)) for text in TEXTS])
    about = onnx_export.export(source, tmp_path / "encoder", max_tokens=LENGTH, probes=TEXTS, vectors=wanted)
    assert about.pop("least_cosine") > 0.95
    assert about == read_json(tmp_path / "encoder" / "about.json")
    (tmp_path / "exact").mkdir()
    for file in (tmp_path / "encoder").iterdir():
        (tmp_path / "exact" / file.name).write_bytes(file.read_bytes())
    onnx.save(onnx_export.graph(source), tmp_path / "exact" / MODEL)
    exact = NetworkEncoder(tmp_path / "exact")
    for text, vector in zip(TEXTS, wanted, strict=True):
        np.testing.assert_allclose(exact.encode(text), vector, atol=2e-6)


def test_further_probes_change_no_file_so_that_a_new_product_refits_nothing(source: Path, tmp_path: Path) -> None:
    for name, texts in (("few", TEXTS[:2]), ("all", TEXTS)):
        wanted = np.stack([by_hand(source, ids_of(text)) for text in texts])
        onnx_export.export(source, tmp_path / name, max_tokens=LENGTH, probes=texts, vectors=wanted)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("few", "all")]
    assert files[0] == files[1]


def drawn_additions() -> dict[str, np.ndarray]:
    rng, width, heads = np.random.default_rng(5), CONFIG["hidden_size"], CONFIG["num_attention_heads"]
    places = 2 * CONFIG["num_hidden_layers"]
    down = rng.normal(size=(places, width, heads * 3)).astype(np.float32)
    return {"down": down, "up": rng.normal(size=(places, 3, width // heads)).astype(np.float32)}


def test_additions_do_what_the_sum_of_the_weights_does(source: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    additions, heads = drawn_additions(), CONFIG["num_attention_heads"]
    weights = load_file(source / onnx_export.WEIGHTS)
    for place, (down, up) in enumerate(zip(additions["down"], additions["up"], strict=True)):
        name = f"encoder.layer.{place // 2}.attention.self.{('query', 'value')[place % 2]}.weight"
        by_head = down.reshape(len(down), heads, -1) @ up
        weights[name] = np.ascontiguousarray(weights[name] + by_head.reshape(len(down), -1).T)
    (tmp_path / "summed").mkdir()
    for file in source.iterdir():
        (tmp_path / "summed" / file.name).write_bytes(file.read_bytes())
    save_file(weights, tmp_path / "summed" / onnx_export.WEIGHTS)
    wanted = np.stack([by_hand(tmp_path / "summed", ids_of(text)) for text in TEXTS])
    into = tmp_path / "encoder"
    about = onnx_export.export(source, into, max_tokens=LENGTH, probes=TEXTS, vectors=wanted, additions=additions)
    assert about["least_cosine"] > 0.95
    exact = onnx_export.write_exact(source, tmp_path / "exact", max_tokens=LENGTH, additions=additions)
    found = np.stack([NetworkEncoder(exact, additions).encode(text) for text in TEXTS])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_additions_of_nothing_change_nothing(source: Path, tmp_path: Path) -> None:
    none = {name: 0 * values for name, values in drawn_additions().items()}
    exact = onnx_export.write_exact(source, tmp_path / "exact", max_tokens=LENGTH, additions=none)
    for text in TEXTS:
        vector = NetworkEncoder(exact, none).encode(text)
        np.testing.assert_allclose(vector, by_hand(source, ids_of(text)), atol=2e-6)


def test_rounded_weights_are_shipped_only_if_they_keep_the_vectors(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = np.stack([by_hand(source, ids_of(text)) for text in TEXTS])
    for least, precision in ((-1.0, "int8"), (1.1, "float32")):
        monkeypatch.setattr(onnx_export, "LEAST_COSINE", least)
        found = onnx_export.export(source, tmp_path / precision, max_tokens=LENGTH, probes=TEXTS, vectors=wanted)
        assert found["precision"] == precision


def test_a_graph_that_gives_other_vectors_is_not_written(source: Path, tmp_path: Path) -> None:
    others = -np.stack([by_hand(source, ids_of(text)) for text in TEXTS])
    with pytest.raises(ArtifactError, match="gives other vectors"):
        onnx_export.export(source, tmp_path / "encoder", max_tokens=LENGTH, probes=TEXTS, vectors=others)
    assert not (tmp_path / "encoder").exists()


def test_what_cannot_be_exported_says_why(source: Path, tmp_path: Path) -> None:
    assert onnx_export.exportable(source) is None
    assert onnx_export.exportable(tmp_path) == "the encoder has no model.safetensors"
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / onnx_export.CONFIG).write_text(json.dumps(CONFIG | {"model_type": "gpt2"}))
    assert onnx_export.exportable(tmp_path) == "an encoder of type 'gpt2' cannot be exported"


def test_the_same_query_gives_the_same_bits_whatever_was_asked_between(source: Path, tmp_path: Path) -> None:
    wanted = np.stack([by_hand(source, ids_of(text)) for text in TEXTS])
    onnx_export.export(source, tmp_path / "encoder", max_tokens=LENGTH, probes=TEXTS, vectors=wanted)
    first, second = (NetworkEncoder(tmp_path / "encoder") for _ in range(2))
    alone = first.encode("red shoe")
    for text in TEXTS[1:]:
        second.encode(text)
    np.testing.assert_array_equal(second.encode("red shoe"), alone)


def test_an_incomplete_folder_is_named(tmp_path: Path) -> None:
    assert QueryEncoder.load(tmp_path / "nowhere") is None
    with pytest.raises(ArtifactError, match=r"lacks model\.onnx"):
        NetworkEncoder(tmp_path)
