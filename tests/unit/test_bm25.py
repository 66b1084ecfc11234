"""The lexical member's two legs, added up in its index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from bm25s.tokenization import Tokenized

from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.model_api import Context
from pipelines.models.bm25 import Bm25, Bm25Config, of_terms, weighted_sum
from pipelines.search.query import Query
from pipelines.storage import write_json

LEGS = {
    "name": [["red", "cup"], ["tea", "pot"], [], ["cup"]],
    "everything": [["red", "cup", "for", "tea"], ["tea", "pot", "red", "red"], ["lid"], ["cup", "of", "glass"]],
}


def plain(terms: list[list[str]], **options: float) -> Any:
    """The library's own index, in the order of words that it meets."""
    vocabulary: dict[str, int] = {}
    ids = [[vocabulary.setdefault(term, len(vocabulary)) for term in row] for row in terms]
    index = bm25s.BM25(method="lucene", **options)
    index.index(Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
    return index


def said(model: Bm25, *terms: str) -> np.ndarray:
    return model.score_all(Context(UserHistory.empty(), Surface.SEARCH, Query(" ".join(terms), terms)))


@pytest.mark.parametrize("k1", [1.5, 0.0])
@pytest.mark.parametrize("terms", [("red",), ("red", "cup", "tea"), ("lid",), ("glass", "unknown")])
def test_a_score_is_the_weighted_sum_of_what_the_library_says_of_each_leg(k1: float, terms: tuple[str, ...]) -> None:
    member = of_terms(Bm25Config(name=2.0, everything=0.5, k1=k1), LEGS)
    wanted = np.zeros(4)
    for name, weight in (("name", 2.0), ("everything", 0.5)):
        index = plain(LEGS[name], k1=k1, b=0.75)
        known = [index.vocab_dict[term] for term in terms if term in index.vocab_dict]
        wanted += weight * (index.get_scores_from_ids(known) if known else 0.0)
    np.testing.assert_allclose(np.nan_to_num(said(member, *terms)), wanted, rtol=1e-6)
    assert np.array_equal(np.isnan(said(member, *terms)), wanted == 0)


def test_a_leg_without_weight_finds_nothing() -> None:
    by_name = of_terms(Bm25Config(everything=0), LEGS)
    assert np.isnan(said(by_name, "lid")).all()
    assert np.isnan(said(of_terms(Bm25Config(name=0, everything=0), LEGS), "cup")).all()


def test_the_best_are_proposed_among_those_that_have_a_term() -> None:
    member = of_terms(Bm25Config(), LEGS)
    asked = Context(UserHistory.empty(), Surface.SEARCH, Query("cup", ("cup",)))
    assert set(member.propose(asked, 9).codes.tolist()) == {0, 3}
    assert member.propose(asked, 1).codes.tolist() == member.candidates(asked, 1).codes.tolist()
    some = member.propose(asked, 9, np.array([True, True, True, False]))
    assert some.codes.tolist() == [0]
    np.testing.assert_array_equal(some.score(np.arange(4)), member.score_all(asked))


def test_what_an_earlier_version_saved_as_two_indexes_scores_alike(tmp_path: Path) -> None:
    weights = {"name": 1.0, "everything": 1.0}
    for name, terms in LEGS.items():
        plain(terms, k1=1.5, b=0.75).save(tmp_path / name, show_progress=False)
    write_json(tmp_path / "bm25.json", {"n_items": 4, "legs": list(LEGS), "weights": weights})
    opened, made = Bm25.load(tmp_path), of_terms(Bm25Config(), LEGS)
    for terms in (("red", "cup"), ("tea",), ("nothing",)):
        np.testing.assert_array_equal(said(opened, *terms), said(made, *terms))


def test_there_is_nothing_to_add_up_where_no_item_has_a_word() -> None:
    assert weighted_sum({}, {}) is None
    empty = of_terms(Bm25Config(), {"name": [[], []], "everything": [[], []]})
    assert np.isnan(said(empty, "cup")).all()
    assert len(empty.propose(Context(UserHistory.empty(), Surface.SEARCH, Query("cup", ("cup",))), 5).codes) == 0
