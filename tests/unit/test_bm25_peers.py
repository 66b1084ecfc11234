"""The comparison of lexical indexes: the same question, and answers that can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bm25_peers, composed_shop
from pipelines.search.analysis import Analyzer

TERMS = Analyzer("english").terms
PRODUCTS = composed_shop.products(composed_shop.real_products(), 200, seed=1)
LEGS = {
    "name": [TERMS(str(one["title"])) for one in PRODUCTS],
    "everything": [TERMS(f"{one['title']} {one['description'] or ''}") for one in PRODUCTS],
}
QUERIES = [list(dict.fromkeys(TERMS(str(one["title"]))))[:3] for one in PRODUCTS[::10]]


@pytest.mark.parametrize("system", list(bm25_peers.SYSTEMS))
def test_a_system_finds_the_best_documents_and_no_more_than_asked_for(system: str, tmp_path: Path) -> None:
    reference = bm25_peers.plain_bm25s(LEGS, tmp_path / "reference")
    (tmp_path / "index").mkdir()
    answer = bm25_peers.SYSTEMS[system](LEGS, tmp_path / "index")
    for terms in QUERIES:
        found = answer(terms, 10)
        assert len(found) == len(set(found)) <= 10
        having = {number for number, words in enumerate(LEGS["everything"]) if set(terms) & set(words)}
        assert set(found) <= having
        assert len(answer(terms, len(PRODUCTS))) == len(having)
        if system != "member, two legs":
            assert len(set(found) & set(reference(terms, 10))) >= 0.7 * len(found)


def test_the_summary_has_medians_and_the_share_of_the_first_results_that_the_reference_has_too() -> None:
    ran = [{"first": [[1, 2], [3], []], "build_s": seconds} for seconds in (1.0, 9.0, 2.0)]
    assert bm25_peers.summary(ran, [[2, 5], [3], []]) == {"build_s": 2.0, "agreement@10": 0.75}
