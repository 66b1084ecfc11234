"""Vectors of words learn what the encoder says of texts, and serve where they find products as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import distillation
from pipelines.adapters import distiller, onnx_export
from pipelines.distillation import Phrases, found, phrases, single_words, targets
from pipelines.params import DistillationParams
from pipelines.rounded_vectors import RoundedVectors
from pipelines.search.encoding import NetworkEncoder, QueryEncoder, WordEncoder
from pipelines.storage import write_json
from tests.conformance import encoders

WORDS = [f"w{first}{second}" for first in "abcdefgh" for second in "aeiouy"]


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def is_within(words: list[str], text: list[str]) -> bool:
    """Whether words stand in a text in their order."""
    rest = iter(text)
    return all(word in rest for word in words)


def test_a_phrase_is_words_of_a_text_in_their_order() -> None:
    titles, descriptions = ["Red Cotton Shirt for Men, size 12", None], ["It is washable and soft.", "Warm wool socks"]
    made = phrases(titles, descriptions)
    assert len(made.texts) > 8
    assert made.texts == sorted(set(made.texts))
    texts = [
        f"{title or ''} | {text}".lower().replace(",", "").split()
        for title, text in zip(titles, descriptions, strict=True)
    ]
    for text, item in zip(made.texts, made.items.tolist(), strict=True):
        assert is_within(text.split(), [word.rstrip(".") for word in texts[item]])


def test_a_new_product_changes_no_phrase_of_the_others() -> None:
    before, after = (
        phrases(titles, [None] * len(titles)) for titles in (["red mug", "tea pot"], ["red mug", "tea pot", "saw"])
    )
    assert [text for text in after.texts if text != "saw"] == before.texts
    assert set(before.parted()[1].texts) <= set(after.parted()[1].texts)


def test_a_tenth_of_the_phrases_is_held_out_and_nothing_is_learned_from_it() -> None:
    made = Phrases([f"phrase {n}" for n in range(2000)], np.arange(2000))
    learned, held = made.parted()
    assert not set(learned.texts) & set(held.texts)
    assert len(learned.texts) + len(held.texts) == 2000
    assert 150 < len(held.texts) < 250
    assert [f"phrase {item}" for item in held.items.tolist()] == held.texts


def test_of_many_phrases_the_same_are_drawn_whatever_others_there_are() -> None:
    many, more = (Phrases([f"phrase {n}" for n in range(size)], np.arange(size)) for size in (200, 210))
    drawn = set(many.first(50).texts)
    assert len(drawn) == 50
    assert len(drawn & set(more.first(50).texts)) > 40


def test_marks_endings_and_short_words_of_a_vocabulary_are_not_asked_for() -> None:
    assert single_words(["[PAD]", "##ing", "tea", "of", "12", "mug", "saw"], most=2) == ["tea", "mug"]


def test_a_text_points_a_little_to_the_product_that_it_is_taken_from() -> None:
    said, items = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])
    # (1, 1/3) has length sqrt(10) / 3
    np.testing.assert_allclose(targets(said, items), [[3 / 10**0.5, 1 / 10**0.5], [0, 1]], rtol=1e-6)


def drawn_texts(rng: np.random.Generator, vocabulary: int, n: int) -> list[list[int]]:
    return [rng.integers(0, vocabulary, size=rng.integers(1, 6)).tolist() for _ in range(n)]


def test_what_is_a_sum_of_words_is_learned_as_one() -> None:
    rng = np.random.default_rng(1)
    truth, embeddings = rng.normal(size=(40, 12)), rng.normal(size=(40, 6)).astype(np.float32)
    texts = drawn_texts(rng, 40, 3000)
    vectors = unit(np.stack([truth[ids].sum(axis=0) for ids in texts]))
    words = distillation.fitted(texts, vectors, embeddings)
    asked = drawn_texts(rng, 40, 200)
    wanted = unit(np.stack([truth[ids].sum(axis=0) for ids in asked]))
    given = unit(np.stack([words[ids].sum(axis=0) for ids in asked]))
    assert (wanted * given).sum(axis=1).mean() > 0.98


def test_a_token_that_no_text_has_gets_what_its_embedding_says() -> None:
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(60, 8)).astype(np.float32)
    truth = embeddings @ rng.normal(size=(8, 12))
    texts = drawn_texts(rng, 50, 3000)  # never the last ten
    words = distillation.fitted(texts, unit(np.stack([truth[ids].sum(axis=0) for ids in texts])), embeddings)
    assert (unit(words[50:]) * unit(truth[50:])).sum(axis=1).min() > 0.95


def test_the_same_texts_give_the_same_bytes() -> None:
    rng = np.random.default_rng(3)
    embeddings, texts = rng.normal(size=(30, 8)).astype(np.float32), drawn_texts(rng, 30, 400)
    vectors = unit(rng.normal(size=(400, 12)))
    one, other = (distillation.fitted(texts, vectors, embeddings) for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_how_soon_a_product_is_found_is_discounted_by_its_place() -> None:
    items = np.concatenate([np.eye(2), [[0.6, 0.8]], np.tile([[-1.0, 0.0]], (20, 1))])
    queries = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    # item 0 is first, item 2 (.6) second, item 1 (0) third: 1 / log2(1 + place)
    np.testing.assert_allclose(found(queries, np.array([0, 2, 1]), items), [1, 1 / np.log2(3), 0.5])
    assert found(queries[:1], np.array([5]), items) == [1 / np.log2(5)]  # twenty are equally far: all have place 4
    assert found(-queries[:1], np.array([0]), items) == [0]  # beyond the tenth place


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of a tiny encoder, and the same exported."""
    folder = tmp_path_factory.mktemp("network")
    source = encoders.tiny_bert(folder / "source", WORDS, width=16)
    return source, onnx_export.write_exact(source, folder / "exported", max_tokens=encoders.LENGTH)


def shop(network: Path, *, n: int = 300) -> distiller.Shop:
    rng, encoder = np.random.default_rng(4), NetworkEncoder(network)
    titles = [" ".join(rng.choice(WORDS, size=6).tolist()) for _ in range(n)]
    return distiller.Shop(titles, [None] * n, np.stack([encoder.encode(title) for title in titles]))


SETTINGS = DistillationParams(min_phrases=100, margin=0.5)


def test_words_that_find_products_as_well_take_the_networks_place(network: tuple[Path, Path], tmp_path: Path) -> None:
    source, exported = network
    report = distiller.distil(source, exported, tmp_path / "words", shop(exported), SETTINGS, caches=tmp_path, seed=1)
    assert report["reason"] is None
    assert report["ndcg@10"]["words"] > 0.5 * report["ndcg@10"]["network"] > 0
    assert set(report["ms"]) == set(report["megabytes"]) == {"network", "words"}
    encoder = QueryEncoder.load(tmp_path / "words")
    assert isinstance(encoder, WordEncoder)
    assert report["cosine"] > 0.5


def test_words_that_find_fewer_products_leave_the_network_where_it_is(
    network: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, exported = network
    monkeypatch.setattr(distillation, "fitted", lambda *_: np.random.default_rng(5).normal(size=(52, 16)))
    report = distiller.distil(source, exported, tmp_path / "words", shop(exported), SETTINGS, caches=tmp_path, seed=1)
    assert report["reason"].startswith("by words nDCG@10 is -0.")
    assert "is asked" in report["reason"]


def test_a_catalogue_of_few_texts_keeps_the_network_and_asks_it_nothing(
    network: tuple[Path, Path], tmp_path: Path
) -> None:
    source, exported = network
    few = distiller.Shop(["wa we"], [None], np.zeros((1, 16)))
    report = distiller.distil(source, exported, tmp_path / "words", few, DistillationParams(), caches=tmp_path, seed=1)
    assert report["reason"].endswith("phrases of the catalogue teach too little, at least 5000 would")
    assert not list(tmp_path.iterdir())


def test_the_network_is_asked_once_for_a_phrase(
    network: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, exported = network
    made = shop(exported)
    first = distiller.distil(source, exported, tmp_path / "one", made, SETTINGS, caches=tmp_path / "cache", seed=1)
    monkeypatch.setattr(distiller, "_asking", lambda _: lambda *_: pytest.fail("asked again"))
    again = distiller.distil(source, exported, tmp_path / "two", made, SETTINGS, caches=tmp_path / "cache", seed=1)
    assert again["ndcg@10"] == first["ndcg@10"]
    assert (tmp_path / "one" / "codes.npy").read_bytes() == (tmp_path / "two" / "codes.npy").read_bytes()


@pytest.fixture
def words(network: tuple[Path, Path], tmp_path: Path) -> Path:
    """An encoder by words whose vectors are known: of ``wa`` and ``we`` along two axes, of ``wi`` none."""
    vectors = np.zeros((len(encoders.SPECIAL) + len(WORDS), 16))
    tokenizer = NetworkEncoder(network[1]).tokenizer
    for axis, word in enumerate(("waa", "wae")):
        vectors[tokenizer.token_to_id(word), axis] = 1 + axis
    folder = tmp_path / "encoder"
    RoundedVectors.of(vectors).save(folder)
    (folder / "tokenizer.json").write_bytes((network[1] / "tokenizer.json").read_bytes())
    write_json(folder / "about.json", {"max_tokens": 4, "precision": "int8"})
    return folder


def test_a_text_is_the_sum_of_its_words_at_unit_length(words: Path) -> None:
    encoder = WordEncoder(words)
    np.testing.assert_allclose(encoder.encode("waa")[:2], [1, 0], atol=1e-6)
    np.testing.assert_allclose(encoder.encode("waa wae")[:2], [1 / 5**0.5, 2 / 5**0.5], atol=1e-6)
    assert encoder.encode("wae waa").tobytes() == encoder.encode("waa wae").tobytes()
    np.testing.assert_allclose(encoder.encode("waa waa waa waa wae")[:2], [1, 0], atol=1e-6)  # cut at four


def test_a_text_of_no_known_word_has_no_direction(words: Path) -> None:
    assert not WordEncoder(words).encode("wai").any()
    assert not WordEncoder(words).encode("").any()


def test_an_incomplete_folder_is_named(words: Path) -> None:
    (words / "scales.npy").unlink()
    with pytest.raises(Exception, match=r"lacks scales\.npy"):
        QueryEncoder.load(words)
