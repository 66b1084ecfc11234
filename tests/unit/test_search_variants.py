"""A rare spelling is told from a word of its own by where its items lie; the frequent word is searched beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipelines.catalogue import Catalogue
from pipelines.features import history
from pipelines.features.state import FeatureState
from pipelines.query_reader import QueryReader
from pipelines.search.analysis import Analyzer
from pipelines.search.item_words import ItemWords
from pipelines.search.spelling import counted
from pipelines.search.variants import TIMES, variants
from pipelines.text_encoding import TextVectors, text_key
from tests.conformance import encoders, worlds

ENGLISH = Analyzer("english")
FREQUENT = ["coffee", "grade", "apple", "lamp", "shirt", "hammer", "sofa", "violin", "tent", "ring", "brush", "drone"]
"""Each among items of a kind of its own."""
KINDS = np.eye(len(FREQUENT))
DRINKS, PAPER, FRUIT = KINDS[:3]


def shop(rare: dict[str, tuple[np.ndarray, int]]) -> tuple[list[str], np.ndarray]:
    """Texts and vectors: frequent words among their items, and rare ones where they are put, so many times."""
    placed = {word: (kind, 2 * TIMES) for word, kind in zip(FREQUENT, KINDS, strict=True)} | rare
    texts, near = [], []
    for word, (where, times) in placed.items():
        texts += [f"{word} thing"] * times
        near += [where] * times
    vectors = np.array(near) + np.random.default_rng(3).normal(scale=0.1, size=(len(near), len(KINDS)))
    return texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def found(rare: dict[str, tuple[np.ndarray, int]], analyzer: Analyzer = ENGLISH) -> dict[str, str]:
    texts, vectors = shop(rare)
    told = ItemWords.of(texts)
    return variants(counted(texts, told.counts), told, vectors, analyzer)


def test_a_rare_word_among_the_items_of_the_word_it_resembles_is_a_spelling_of_it() -> None:
    assert found({"coffe": (DRINKS, 2), "grape": (FRUIT, 2)}) == {"coffe": "coffee"}


def test_a_rare_word_whose_items_lie_elsewhere_is_a_word_of_its_own() -> None:
    assert found({"coffe": (PAPER, 2), "grape": (FRUIT, 2), "grads": (DRINKS, 1)}) == {}


def test_a_word_that_is_not_much_rarer_stands_for_itself() -> None:
    assert found({"coffe": (DRINKS, 2)}) == {"coffe": "coffee"}
    assert found({"coffe": (DRINKS, 3)}) == {}


def test_words_of_one_stem_two_errors_and_short_words_are_left_alone() -> None:
    assert found({"coffees": (DRINKS, 1), "cofe": (DRINKS, 1), "coffie": (DRINKS, 1)}) == {"coffie": "coffee"}
    assert found({"grades": (PAPER, 1)}, Analyzer(None)) == {"grades": "grade"}


def test_without_vectors_nothing_is_said() -> None:
    texts, vectors = shop({"coffe": (DRINKS, 2)})
    told = ItemWords.of(texts)
    assert variants(counted(texts, told.counts), told, 0 * vectors, ENGLISH) == {}
    assert variants({}, ItemWords.of([]), np.zeros((0, 3)), ENGLISH) == {}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    texts, vectors = shop({"coffe": (DRINKS, 2)})
    products = [worlds.product(f"i{place:03d}", title=f"{text} {place}") for place, text in enumerate(texts)]
    keys = [text_key(one["title"]) for one in products]
    order = np.argsort(keys)
    known = TextVectors(np.array(keys, "S64")[order], vectors[order].astype(np.float16))
    tables = worlds.write(tmp_path_factory.mktemp("shop"), [], products)
    return history.build(tables, datetime(2030, 1, 1, tzinfo=UTC), target="purchase-complete", strengths={}, text=known)


def test_the_frequent_word_is_searched_beside_what_was_typed_and_nothing_is_rewritten(state: FeatureState) -> None:
    encoder = encoders.Listening()
    query = QueryReader(state, Catalogue(state), encoder).read("Coffe mug")  # type: ignore[arg-type]
    coffee = ENGLISH.terms("coffee")[0]
    assert query.terms == tuple(ENGLISH.terms("coffe mug"))
    assert (query.wanted, query.rewritten) == ((*query.terms, coffee), None)
    assert query.understood()["beside"] == (coffee,)
    assert encoder.asked == ["coffe mug coffee"]
    plain = QueryReader(state, Catalogue(state), encoder).read("coffee coffe")  # type: ignore[arg-type]
    assert plain.wanted == plain.terms


def test_spellings_are_kept_with_the_state_and_an_earlier_state_has_none(state: FeatureState, tmp_path: Path) -> None:
    state.save(tmp_path)
    assert FeatureState.load(tmp_path).variants == state.variants == {"coffe": "coffee"}
    (tmp_path / "variants.json").unlink()
    assert FeatureState.load(tmp_path).variants == {}
    assert replace(state, variants={}).words == state.words
