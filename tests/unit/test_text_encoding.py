"""Texts of items, the cache of their vectors, and the encoder's process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import params, text_encoding
from pipelines.adapters import encoder
from pipelines.adapters.encoder import KERAS, ONNX, TextEncoder, child_environment, encode_batches, padded_length
from pipelines.errors import ArtifactError, ParamsError
from pipelines.stages import encode as stage
from pipelines.stages import encode_queries
from pipelines.text_encoding import TextVectors, VectorCache, encode, item_text, text_key
from pipelines.workspace import Workspace
from tests.conformance import encoders


def vector(text: str) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8).astype(np.float32)
    return digest / np.linalg.norm(digest)


class CountingEncoder:
    """Fills a cache with :func:`vector`, two texts a chunk, and remembers what it was asked for."""

    def __init__(self, *, dies_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.dies_after = dies_after

    def fill(self, texts: list[str], cache: VectorCache) -> None:
        for start in range(0, len(texts), 2):
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            chunk = texts[start : start + 2]
            cache.add(chunk, np.stack([vector(text) for text in chunk]))
            self.asked += chunk


def test_an_items_text_is_title_brand_and_the_last_part_of_its_first_category() -> None:
    assert item_text("Garden  spade", "Acme", "Garden > Tools > Digging|Gifts") == "Garden spade Acme Digging"


@pytest.mark.parametrize(
    ("title", "brand", "category", "text"),
    [
        ("ACME garden spade", "Acme", None, "ACME garden spade"),
        ("Spade", None, "Tools > spade", "Spade"),
        ("Acmeware mug", "Acme", None, "Acmeware mug Acme"),
        ("\ufb01ne\u00a0mug\n", "", "", "fine mug"),
        (None, "Acme", None, "Acme"),
        (None, None, None, ""),
    ],
)
def test_a_part_that_the_text_already_has_is_not_repeated(
    title: str | None, brand: str | None, category: str | None, text: str
) -> None:
    assert item_text(title, brand, category) == text


def test_a_key_is_the_sha256_of_the_utf8_bytes() -> None:
    assert text_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_texts_that_the_cache_lacks_are_encoded(tmp_path: Path) -> None:
    encode(["mug", "spade"], VectorCache(tmp_path), CountingEncoder().fill)
    second = CountingEncoder()
    vectors = encode(["mug", "lamp", "spade", "lamp"], VectorCache(tmp_path), second.fill)
    assert second.asked == ["lamp"]
    assert len(vectors.keys) == 3


def test_the_result_does_not_depend_on_what_was_cached(tmp_path: Path) -> None:
    texts = [f"item {n}" for n in range(9)]
    at_once = encode(texts, VectorCache(tmp_path / "one"), CountingEncoder().fill)
    for part in (texts[4:6], texts[1:8], texts[::-1]):
        in_parts = encode(part, VectorCache(tmp_path / "two"), CountingEncoder().fill)
    assert in_parts.keys.tobytes() == at_once.keys.tobytes()
    assert in_parts.vectors.tobytes() == at_once.vectors.tobytes()


def test_a_killed_run_carries_on_where_it_stopped(tmp_path: Path) -> None:
    texts = [f"item {n}" for n in range(6)]
    with pytest.raises(KeyboardInterrupt):
        encode(texts, VectorCache(tmp_path), CountingEncoder(dies_after=4).fill)
    again = CountingEncoder()
    encode(texts, VectorCache(tmp_path), again.fill)
    assert len(again.asked) == 2


def test_an_encoder_that_leaves_texts_out_is_found(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="left out 2 of 2 texts"):
        encode(["mug", "spade"], VectorCache(tmp_path), lambda *_: None)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match=r"broken\.npz is damaged.*delete it"):
        VectorCache(tmp_path).vectors()


def test_an_unknown_key_has_a_zero_row_and_a_known_one_its_vector(tmp_path: Path) -> None:
    vectors = encode(["mug", "spade", ""], VectorCache(tmp_path), CountingEncoder().fill)
    rows = vectors.lookup([text_key("spade"), text_key("never seen"), text_key(""), text_key("mug")])
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows[[0, 3]], np.stack([vector("spade"), vector("mug")]).astype(np.float16))
    assert not rows[[1, 2]].any()


def test_no_texts_give_no_vectors_and_lookups_of_width_zero(tmp_path: Path) -> None:
    vectors = encode(["", ""], VectorCache(tmp_path), CountingEncoder().fill)
    assert vectors.lookup([text_key("mug")]).shape == (1, 0)


def test_saved_vectors_are_loaded_the_same(tmp_path: Path) -> None:
    vectors = encode(["mug", "spade"], VectorCache(tmp_path / "cache"), CountingEncoder().fill)
    text_encoding.save(tmp_path, vectors, {"encoder": "counting"})
    loaded = text_encoding.load(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.lookup([text_key("mug")]), vectors.lookup([text_key("mug")]))


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    vectors = encode(["mug"], VectorCache(tmp_path / "cache"), CountingEncoder().fill)
    text_encoding.save(tmp_path, vectors, {"encoder": "counting"})
    np.save(tmp_path / "vectors.npy", np.zeros((0, 32), np.float16))
    with pytest.raises(ArtifactError, match="is incomplete"):
        text_encoding.load(tmp_path)


@pytest.mark.parametrize(("tokens", "length"), [(3, 4), (4, 4), (5, 8), (29, 30), (30, 30)])
def test_a_text_is_padded_to_a_multiple_of_four_tokens_or_the_longest_shape(tokens: int, length: int) -> None:
    assert padded_length(tokens, 30) == length


def test_every_batch_has_the_same_number_of_rows_and_order_is_kept() -> None:
    shapes: list[tuple[int, ...]] = []

    def forward(ids: np.ndarray) -> np.ndarray:
        shapes.append(ids.shape)
        return ids.sum(1, keepdims=True).astype(np.float32)

    tokens: list[Sequence[int]] = [[1] * 5, [2], [3] * 4, [4] * 6, [5], [6]]
    vectors = encode_batches(tokens, forward, max_tokens=16, batch_size=3)
    assert vectors[:, 0].tolist() == [5, 2, 12, 24, 5, 6]
    assert shapes == [(3, 4), (3, 4), (3, 8)]


def test_the_fingerprint_changes_with_settings_and_with_the_models_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    names = {TextEncoder(str(tmp_path), tokens, 32).fingerprint() for tokens in (32, 64)}
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    assert len(names | {TextEncoder(str(tmp_path), 64, 32).fingerprint()}) == 3


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"has no config\.json"):
        TextEncoder(str(tmp_path), 64, 32).fingerprint()
    with pytest.raises(ParamsError, match="is not a folder"):
        TextEncoder(f"{tmp_path}/missing", 64, 32).fingerprint()


@pytest.mark.parametrize("word", [None, "none", "None", ""])
def test_the_encoder_can_be_switched_off_in_params(word: str | None) -> None:
    assert params.TextParams(encoder=word).encoder is None


def params_file(folder: Path, encoder: str) -> Path:
    """The least that params.yaml can be, with this encoder."""
    path = folder / "params.yaml"
    path.write_text(f"seed: 1\ndata: {{adapter: shop, path: data}}\nmodels: {{}}\ntext: {{encoder: {encoder}}}\n")
    return path


def test_without_an_encoder_the_stage_writes_that_there_are_no_vectors(tmp_path: Path) -> None:
    stage.main(["--params", str(params_file(tmp_path, "null")), "--artifacts", str(tmp_path / "artifacts")])
    work = Workspace(tmp_path / "artifacts")
    assert text_encoding.load(work.text(served=False)) is text_encoding.load(work.text(served=True)) is None


def test_a_new_product_changes_no_file_that_is_as_of_t2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_HOME", str(tmp_path))
    model = encoders.tiny_bert(tmp_path / "model", ["red", "blue", "mug"], width=8)
    settings, work = params_file(tmp_path, str(model)), Workspace(tmp_path / "artifacts")

    def encoded(now: list[str]) -> dict[str, bytes]:
        for tables, titles in ((work.history, ["red mug", "mug"]), (work.current, now)):
            tables.mkdir(parents=True, exist_ok=True)
            nothing = pa.nulls(len(titles), pa.string())
            table = pa.table({"title": titles, "brand": nothing, "category": nothing, "description": nothing})
            pq.write_table(table, tables / "catalog.parquet")
        for one in (stage, encode_queries):
            one.main(["--params", str(settings), "--artifacts", str(work.root)])
        folders = (work.text(served=False), work.query_encoder)
        return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}

    assert encoded(["red mug", "mug"]) == encoded(["red mug", "mug", "blue mug"])
    new = text_encoding.load(work.text(served=True))
    assert new is not None
    assert new.has([text_key("blue mug")]).all()


def encode_in_one_child(folder: Path, engine: str, *lists: list[str]) -> list[TextVectors]:
    """Each list encoded by the packaged model into a cache of its own; one process, since loading it takes longest."""
    packaged = TextEncoder("all-MiniLM-L6-v2", 64, 32)
    orders, caches = [], []
    for number, texts in enumerate(lists):
        caches.append(VectorCache(folder / f"cache{number}"))
        known = {"source": packaged.source, "engine": engine, "cache": str(caches[-1].folder)}
        asked = {**vars(packaged), **known, "texts": texts}
        orders.append(folder / f"order{number}.json")
        orders[-1].write_text(json.dumps(asked))
    calls = "; ".join(f"main(['--order', {str(order)!r}])" for order in orders)
    script = f"from pipelines.adapters.encoder import main; {calls}"
    subprocess.run([sys.executable, "-c", script], env=child_environment(), check=True)
    return [cache.vectors() for cache in caches]


@pytest.mark.slow
@pytest.mark.parametrize("engine", [ONNX, pytest.param(KERAS, marks=pytest.mark.exhaustive)])
def test_the_packaged_encoder_agrees_with_its_authors_and_every_text_stands_alone(tmp_path: Path, engine: str) -> None:
    """Similarities from the quickstart of sbert.net, computed there by another implementation of the same model."""
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    others = [f"another {n} of them today." for n in range(45)]
    results = encode_in_one_child(tmp_path, engine, sentences, others + sentences)
    alone, among_others = (result.lookup([text_key(text) for text in sentences]) for result in results)
    np.testing.assert_allclose(np.linalg.norm(alone.astype(np.float32), axis=1), 1, atol=1e-3)
    similarity = alone.astype(np.float32) @ alone.astype(np.float32).T
    np.testing.assert_allclose(similarity[np.triu_indices(3, 1)], [0.6660, 0.1046, 0.1411], atol=2e-3)
    np.testing.assert_array_equal(alone, among_others)


@pytest.mark.exhaustive
def test_both_engines_give_the_same_vectors(tmp_path: Path) -> None:
    texts = ["red kitchen towel", "a", "Wi-Fi 6 router (802.11ax)", "кружка", "x " * 100]
    found = {}
    for engine in (ONNX, KERAS):
        (tmp_path / engine).mkdir()
        found[engine] = encode_in_one_child(tmp_path / engine, engine, texts)[0]
    keys = [text_key(text) for text in texts]
    np.testing.assert_allclose(found[ONNX].lookup(keys), found[KERAS].lookup(keys), atol=1e-3)


def test_a_machine_with_a_gpu_computes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = TextEncoder("all-MiniLM-L6-v2", 64, 32)
    monkeypatch.setattr(encoder, "GPU", tmp_path / "nvidia0")
    without = packaged.engine, packaged.fingerprint()
    (tmp_path / "nvidia0").touch()
    assert (without[0], packaged.engine) == (ONNX, KERAS)
    assert without[1] != packaged.fingerprint()


@pytest.mark.slow
def test_a_folder_that_is_no_bert_ends_with_one_message_and_keeps_the_cache(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    cache = VectorCache(tmp_path / "cache")
    with pytest.raises(ArtifactError, match="stopped; found: exit status 1"):
        TextEncoder(str(tmp_path), 64, 32).fill(["mug"], cache)
    assert "cannot be read as a BERT-type model" in capfd.readouterr().err
