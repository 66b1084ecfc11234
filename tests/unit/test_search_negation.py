"""What a query says shall not be there is not searched for, and items that have it go down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.fusion.candidates import gather
from pipelines.fusion.convex import Convex
from pipelines.fusion.surface import SurfaceFusion
from pipelines.model_api import Context, TrainingData
from pipelines.models import bm25, negation
from pipelines.models.negation import NegationConfig
from pipelines.ranking import RankRequest
from pipelines.search.analysis import Analyzer, normalised
from pipelines.search.negation import LANGUAGES, Reader, parted
from tests.conformance import encoders, worlds

TITLES = {
    "with": "Leather belt with brass buckle",
    "plain": "Leather belt",
    "without": "Leather belt without any buckle",
    "free": "Leather belt, buckle-free",
    "less": "Buckleless leather belt",
    "extra": "Leather belt, buckle not included",
    "band": "Men Without Hats: Rhythm of Youth",
    "hat": "Hats for men",
    "mat": "Yoga mat without buckle",
}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    brands = {"band": "Men Without Hats"}
    products = [worlds.product(item, title=title, brand=brands.get(item)) for item, title in TITLES.items()]
    return worlds.state(worlds.write(tmp_path_factory.mktemp("shop"), [], products))


@pytest.fixture(scope="module")
def bundle(features: FeatureState) -> Bundle:
    data = TrainingData(features)
    members = {
        "bm25": bm25.fit(bm25.Bm25Config(k1=0), data, seed=0),
        "negation": negation.fit(NegationConfig(), data, seed=0),
    }
    manifest = {"id": "x", "members": {name: {"kind": name, "applicable": True} for name in members}, "surfaces": {}}
    fusion = {Surface.SEARCH: SurfaceFusion(Convex({"bm25": 1.0}, 0.5), 100)}
    return Bundle(manifest, features, members, fusion, encoders.Listening())  # type: ignore[arg-type]


def search(bundle: Bundle, query: str) -> list[str]:
    asked = RankRequest(surface=Surface.SEARCH, query=query, n=100)
    return [item.id for item in bundle.rank(asked, bundle.history()).items]


@pytest.mark.parametrize(
    ("language", "query", "parts"),
    [
        ("english", "belt without buckle", ("belt", "buckle")),
        ("english", "red bags w/o any handles for gifts", ("red bags for gifts", "handles")),
        ("english", "lamp without cord with switch", ("lamp with switch", "cord")),
        ("english", "phone without camera and gps", ("phone", "camera gps")),
        ("english", "belt", None),
        ("english", "without buckle", None),
        ("english", "belt without", None),
        ("english", "belt without the", None),
        ("english", "sugar free candy", None),
        ("german", "gürtel ohne schnalle für herren", ("gürtel für herren", "schnalle")),
        ("french", "sac sans poignées pour cadeau", ("sac pour cadeau", "poignées")),
        ("german", "belt without buckle", None),
        (None, "belt without buckle", None),
    ],
)
def test_a_query_is_parted_into_what_is_wanted_and_what_is_not(
    language: str | None, query: str, parts: tuple[str, str] | None
) -> None:
    assert parted(query, language) == parts


@given(st.text(max_size=60), st.sampled_from([*LANGUAGES, None]))
def test_any_text_is_parted_or_left_whole(text: str, language: str | None) -> None:
    plain = normalised(text)
    parts = parted(plain, language)
    assert parts is None or all(parts)
    assert parts is None or set(" ".join(parts).split()) <= set(plain.split())


@pytest.mark.parametrize(
    ("title", "term", "has"),
    [
        ("Belt with buckle", "buckl", True),
        ("Belt without a buckle", "buckl", False),
        ("Chlorine-free wipes", "chlorin", False),
        ("Stemless wine glass", "stem", False),
        ("Sofa, mattress not included", "mattress", False),
        ("No show socks", "sock", False),
        ("Not too heavy winter boots", "boot", True),
    ],
)
def test_a_title_says_what_it_has_and_what_it_lacks(title: str, term: str, *, has: bool) -> None:
    assert Reader.of(Analyzer()).has(title)[term] is has


def test_a_search_is_for_what_is_wanted_and_its_vector_too(bundle: Bundle) -> None:
    query = bundle.query("Leather belt without buckles")
    assert query.text == "leather belt without buckles"
    assert query.terms == ("leather", "belt", "without", "buckl")
    assert (query.meant, query.wanted, query.unwanted) == ("leather belt", ("leather", "belt"), ("buckl",))
    assert bundle.encoder.asked[-1] == "leather belt"  # type: ignore[union-attr]
    assert query.understood()["unwanted"] == ("buckl",)


def test_items_that_lack_it_come_before_silent_ones_and_those_before_items_that_have_it(bundle: Bundle) -> None:
    order = search(bundle, "leather belt without buckle")
    assert set(order[:4]) == {"without", "free", "less", "extra"}
    assert order.index("plain") < order.index("with")


def test_what_lacks_it_and_has_nothing_that_is_wanted_is_not_found(bundle: Bundle) -> None:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("leather belt without buckle"))
    found = gather(bundle.members, context, depth=100, allowed=None)
    assert "mat" not in bundle.features.item_ids.ids(found.codes)
    assert np.nanmax(bundle.members["negation"].score_all(context)) == pytest.approx(0.3)
    assert np.nanmin(bundle.members["negation"].score_all(context)) == pytest.approx(-0.3)


def test_an_item_that_has_one_of_two_unwanted_things_loses_less_than_one_that_has_both(bundle: Bundle) -> None:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("leather belt without brass buckle"))
    by_item = dict(
        zip(bundle.features.item_ids.ids(), bundle.members["negation"].score_all(context).tolist(), strict=True)
    )
    assert by_item["with"] == pytest.approx(-0.3)
    assert 0 < by_item["without"] < 0.3


def test_by_itself_it_finds_nothing(bundle: Bundle) -> None:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("leather belt without buckle"))
    assert len(bundle.members["negation"].candidates(context, 10).codes) == 0


def test_an_explanation_says_what_was_raised_and_gives_places_among_what_was_found_alone(bundle: Bundle) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="leather belt without buckle", n=100, explain=True)
    reasons = {item.id: item.reasons for item in bundle.rank(asked, bundle.history()).items}
    assert reasons["free"][0] == "raised by negation"
    assert reasons["with"] == ("place 1 of bm25",)
    assert not any("of negation" in reason for given in reasons.values() for reason in given)


def test_a_brand_that_is_called_so_rules_nothing_out(bundle: Bundle) -> None:
    assert bundle.query("men without hats rhythm").negation is None
    assert search(bundle, "men without hats rhythm")[0] == "band"
    assert bundle.query("clothes for men without hats on").negation is None


def test_a_thing_that_is_wanted_and_not_wanted_is_wanted(bundle: Bundle) -> None:
    assert bundle.query("belt without belt").negation is None
    assert bundle.query("belt without belt buckle").unwanted == ("buckl",)


def test_a_slip_in_the_word_of_negation_is_corrected_first(bundle: Bundle) -> None:
    assert bundle.query("leather belt witout buckle").unwanted == ("buckl",)


def test_a_language_whose_negations_nobody_wrote_down_is_told_apart(features: FeatureState) -> None:
    assert negation.KIND.not_applicable(features) is None
    other = replace(features, language="turkish")
    reason = negation.KIND.not_applicable(other)
    assert reason is not None
    assert reason.startswith("text.language is turkish; negations are known in danish, ")


def test_a_saved_and_loaded_member_judges_the_same(bundle: Bundle, tmp_path: Path) -> None:
    bundle.members["negation"].save(tmp_path)
    copy = negation.Negation.load(tmp_path)
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("belt without brass buckle"))
    np.testing.assert_array_equal(copy.score_all(context), bundle.members["negation"].score_all(context))


def test_every_language_is_one_that_texts_can_be_in() -> None:
    for language in LANGUAGES:
        assert Reader.of(Analyzer(language)).has("a title")
