"""Vectors along their main axes: what is near there holds what is near, and a long catalogue is searched that way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import meaning
from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.half_bytes import LARGEST, HalfByteVectors
from pipelines.main_axes import AXES, SPARE, Outlines, main_axes, turned
from pipelines.meaning import ItemTexts
from pipelines.model_api import Context, leading
from pipelines.models.text import Text, TextConfig
from pipelines.rounded_vectors import RoundedVectors
from pipelines.search.query import Query

WIDTH = 192
N_ITEMS = 3000


def texts_like(n: int, *, seed: int) -> np.ndarray:
    """Unit vectors whose length lies on few axes, as that of sentence embeddings does, turned at random."""
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    drawn = draw.normal(size=(n, WIDTH)) * 0.98 ** np.arange(WIDTH) @ turn
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def asked(vector: np.ndarray) -> Context:
    return Context(UserHistory.empty(), Surface.SEARCH, Query("q", ("q",), vector))


@pytest.fixture
def long_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "LONG_CATALOGUE", N_ITEMS - 1)


def test_axes_are_orthonormal_and_the_first_has_most_of_the_length() -> None:
    vectors = texts_like(500, seed=2)
    axes = main_axes(vectors, 10)
    np.testing.assert_allclose(axes @ axes.T, np.eye(10), atol=1e-5)
    lengths = np.square(vectors @ axes.T).sum(axis=0)
    assert (np.diff(lengths) < 0).all()
    assert lengths[0] == pytest.approx(np.linalg.norm(vectors, 2) ** 2, rel=1e-4)


@pytest.mark.parametrize("n", [9, 10])
def test_turned_axes_span_the_same_space_evenly_and_their_number_is_even(n: int) -> None:
    vectors = texts_like(500, seed=2)
    axes = main_axes(vectors, n)
    other = turned(axes)
    assert len(other) == 10
    np.testing.assert_allclose(other.T @ other, axes.T @ axes, atol=1e-5)
    before, after = (np.square(vectors @ those.T).sum(axis=0) for those in (axes, other[:n]))
    assert after.max() / after.min() < before.max() / before.min()


@pytest.mark.parametrize("d", [2, 30, 32, 62, 64, 66, 128, 130])
def test_products_of_half_bytes_are_those_of_the_rounded_numbers(d: int) -> None:
    draw = np.random.default_rng(d)
    vectors, asked = draw.normal(size=(37, d)).astype(np.float32), draw.normal(size=d).astype(np.float32)
    vectors[5] = 0
    kept = HalfByteVectors.of(vectors)
    assert kept.halves.nbytes == 37 * d // 2
    rounded = np.rint(vectors / (np.abs(vectors).max(axis=1, keepdims=True) / LARGEST).clip(1e-9))
    question = np.rint(asked / (np.abs(asked).max() / 127)) * (np.abs(asked).max() / 127)
    wanted = rounded * kept.scales[:, None] @ question
    assert np.isnan(kept.products(asked)).tolist() == [row == 5 for row in range(37)]
    np.testing.assert_allclose(kept.products(asked), wanted, rtol=1e-4, atol=1e-4)


def test_outlines_of_an_earlier_version_in_whole_bytes_are_read(tmp_path: Path) -> None:
    vectors = texts_like(400, seed=3)
    axes = main_axes(vectors, 96)
    np.save(tmp_path / "axes.npy", axes)
    RoundedVectors.of(vectors @ axes.T).save(tmp_path)
    assert 7 in Outlines.load(tmp_path).near(vectors[7], 5)


def test_nearly_all_of_the_nearest_are_among_those_that_are_near_along_the_axes() -> None:
    vectors, queries = texts_like(N_ITEMS, seed=3), texts_like(50, seed=4)
    outlines = Outlines.of(vectors)
    assert isinstance(outlines.rows, HalfByteVectors)
    assert outlines.rows.halves.shape == (N_ITEMS, AXES // 2)
    found = []
    for query in queries:
        near = outlines.near(query, 50)
        assert len(near) == len(set(near.tolist())) == SPARE * 50
        found.append(np.isin(leading(vectors @ query, 50), near).mean())
    assert np.mean(found) > 0.97
    assert min(found) >= 0.85


def test_what_may_not_appear_does_not_and_few_that_may_all_do() -> None:
    vectors = texts_like(N_ITEMS, seed=3)
    outlines, allowed = Outlines.of(vectors), np.zeros(N_ITEMS, np.bool_)
    allowed[[5, 700, 2999]] = True
    assert sorted(outlines.near(vectors[0], 10, allowed).tolist()) == [5, 700, 2999]


@pytest.mark.usefixtures("long_catalogue")
def test_a_long_catalogue_is_searched_along_the_axes_and_ordered_by_whole_vectors(tmp_path: Path) -> None:
    vectors = texts_like(N_ITEMS, seed=3)
    vectors[:100] = 0  # items without text
    texts = ItemTexts.of(vectors)
    assert texts.outlines is not None
    fitted = Text(texts, TextConfig(reach=40))
    fitted.save(tmp_path)
    loaded = Text.load(tmp_path)
    agreeing = []
    for query in texts_like(30, seed=5):
        context = asked(query)
        proposal, again = fitted.propose(context, 1000), loaded.propose(context, 1000)
        np.testing.assert_array_equal(proposal.codes, again.codes)
        assert len(proposal.codes) == 40
        assert (proposal.codes >= 100).all()
        everything = fitted.score_all(context)
        np.testing.assert_array_equal(proposal.score(np.arange(N_ITEMS)), everything)
        agreeing.append(np.isin(leading(everything, 40), proposal.codes).mean())
    assert np.mean(agreeing) > 0.97


def test_a_short_catalogue_is_searched_whole() -> None:
    vectors = texts_like(N_ITEMS, seed=3)
    texts = ItemTexts.of(vectors)
    assert texts.outlines is None
    context = asked(texts_like(1, seed=5)[0])
    fitted = Text(texts, TextConfig(reach=40))
    codes = fitted.propose(context, 1000).codes
    assert set(codes.tolist()) == set(leading(fitted.score_all(context), 40).tolist())


@pytest.mark.usefixtures("long_catalogue")
def test_nothing_is_proposed_where_nothing_was_asked() -> None:
    fitted = Text(ItemTexts.of(texts_like(N_ITEMS, seed=3)), TextConfig())
    assert len(fitted.propose(Context(UserHistory.empty(), Surface.SEARCH), 10).codes) == 0
