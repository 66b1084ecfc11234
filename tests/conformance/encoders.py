"""A BERT of a few words with drawn weights, as a folder of the usual files, and what tuning would make of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.adapters import onnx_export
from pipelines.features.state import FeatureState
from pipelines.search.encoding import DOWN, ENCODER, UP
from pipelines.tuning import saved

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LAYERS, HEADS, RANK, LENGTH = 2, 2, 2, 16


def tiny_bert(folder: Path, words: Sequence[str], *, width: int, seed: int = 3) -> Path:
    """Write the folder; a text is the words of it that are known."""
    from safetensors.numpy import save_file

    rng, inner = np.random.default_rng(seed), 2 * width
    vocabulary = [*SPECIAL, *words]

    def drawn(*shape: int) -> np.ndarray:
        return (0.3 * rng.normal(size=shape)).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": drawn(len(vocabulary), width),
        "embeddings.position_embeddings.weight": 0.1 * drawn(LENGTH, width),
        "embeddings.token_type_embeddings.weight": drawn(2, width),
        "embeddings.LayerNorm.weight": 1 + drawn(width),
        "embeddings.LayerNorm.bias": drawn(width),
        "pooler.dense.weight": drawn(width, width),
        "pooler.dense.bias": drawn(width),
    }
    for layer in range(LAYERS):
        own = f"encoder.layer.{layer}"
        parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        shapes = {f"{own}.{part}": (width, width) for part in parts}
        shapes |= {f"{own}.intermediate.dense": (inner, width), f"{own}.output.dense": (width, inner)}
        for name, shape in shapes.items():
            weights |= {f"{name}.weight": drawn(*shape), f"{name}.bias": drawn(shape[0])}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights |= {f"{own}.{name}.weight": 1 + drawn(width), f"{own}.{name}.bias": drawn(width)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / onnx_export.WEIGHTS)
    config = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": width, "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "intermediate_size": inner, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "vocab_size": len(vocabulary), "max_position_embeddings": LENGTH,
    }  # fmt: skip
    (folder / onnx_export.CONFIG).write_text(json.dumps(config))
    _write_tokenizer(folder / "tokenizer.json", vocabulary)
    return folder


def _write_tokenizer(file: Path, vocabulary: Sequence[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    places = {word: place for place, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", places["[CLS]"]), ("[SEP]", places["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(file))


def drawn_additions(width: int, *, seed: int) -> dict[str, np.ndarray]:
    """Additions that change what the network computes."""
    rng = np.random.default_rng(seed)
    down = rng.normal(size=(2 * LAYERS, width, HEADS * RANK)).astype(np.float32)
    return {DOWN: down, UP: rng.normal(size=(2 * LAYERS, RANK, width // HEADS)).astype(np.float32)}


def with_encoders(features: FeatureState, folder: Path, *, width: int) -> FeatureState:
    """The same world with an encoder of queries, as it is and tuned at random: a version for all, one for fold 0."""
    source = tiny_bert(folder / "source", ["titl", "title", "z", *(f"b{k}" for k in range(6))], width=width)
    versions = {name: drawn_additions(width, seed=seed) for seed, name in enumerate((saved.ALL, "0"))}
    exact = onnx_export.write_exact(
        source, folder / "exact" / ENCODER, max_tokens=LENGTH, additions=versions[saved.ALL]
    )
    (folder / "tuned").mkdir()
    saved.write(folder / "tuned", exact, versions, {})
    plain = onnx_export.write_exact(source, folder / "plain" / ENCODER, max_tokens=LENGTH)
    return replace(features, tuned=folder / "tuned", encoder=plain)


class Listening:
    """An encoder of queries that notes what it is asked for, and finds that all mean the same."""

    def __init__(self) -> None:
        """Nothing was asked so far."""
        self.asked: list[str] = []

    def encode(self, text: str) -> np.ndarray:
        """One number."""
        self.asked.append(text)
        return np.ones(1, np.float32)
