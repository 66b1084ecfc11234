"""A catalogue and queries of any size from the real ones of the shipped shop that searches.

The first products are the 6,764 of ``data/esci_us`` themselves. Each further one joins the beginning of one real
product with the end of another of the same top category and about the same length, title with title and description
with description, cut where a phrase or sentence ends; brand, category and price are the first one's, the attributes the
second one's; and it has a model number of its own, a real one with other letters and digits, for the words that a
larger catalogue has once. Every real product is used equally often, so that lengths keep their distribution and
frequencies their slope; a frequent term is in a few more texts, since two halves repeat each other less than one text
repeats itself. :func:`statistics` says it of source and result.

Queries are the judged ones, then pieces of real titles as long as those are, some with a typing error, all distinct.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.contracts import CATEGORY_PATH
from pipelines.search.slips import misspelt

SHOP = Path(__file__).resolve().parents[1] / "data" / "esci_us"
PHRASE = re.compile(r"(?<=[,;:)|])\s+|\s+(?=[(|–-])")
SENTENCE = re.compile(r"(?<=[.!?;:])\s+")
MODEL_NUMBER = re.compile(r"\b(?=[A-Z0-9-]*\d)(?=[A-Z0-9-]*[A-Z])[A-Z0-9][A-Z0-9-]{3,11}\b")

COMPOSED = "C0"
"""Beginning of the ids of composed products; no real one begins so."""

NEIGHBOURS = 20
"""How many products on each side by length may be joined with one."""

ZIPF = 0.8
"""Exponent of the frequencies of a query mix: the n-th most frequent query has a share like n ** -ZIPF.

Queries follow a Zipf distribution (Xie and O'Hallaron 2002, "Locality in Search Engine Queries and Its Implications for
Caching"). Below 1 frequent queries are a smaller part, so that keeping something of them helps less: the careful side.
"""

MISSPELT = 0.1
"""Share of the pieces of titles that have a typing error, where a word is long enough for one.

Cucerzan and Brill 2004, "Spelling Correction as an Iterative Process that Exploits the Collective Knowledge of Web
Users": 10 to 15 % of queries.
"""

FREQUENT_TERMS = slice(10, 1000)
"""Ranks between which the exponent of term frequencies is read; the first few and the once-only words bend away."""


def real_products(shop: Path = SHOP) -> list[dict[str, Any]]:
    """The shop's catalogue, one dictionary a product, in the order of its ids."""
    rows: list[dict[str, Any]] = pq.read_table(shop / "catalog").sort_by("item_id").to_pylist()
    return rows


def real_queries(shop: Path = SHOP) -> list[str]:
    """The judged queries, in the order of the alphabet."""
    return sorted(set(pq.read_table(shop / "judgments", columns=["query"])["query"].to_pylist()))


def products(source: Sequence[Mapping[str, Any]], n: int, *, seed: int) -> list[dict[str, Any]]:
    """``n`` products: those of the source, then composed ones; fewer than the source has: spread over it."""
    if n <= len(source):
        return [dict(source[place]) for place in np.linspace(0, len(source) - 1, n).astype(int)]
    draw = random.Random(seed)  # noqa: S311 - a benchmark
    numbers, alike = _model_numbers(source, draw), _alike(source)
    composed = []
    for place in range(n - len(source)):
        first = place % len(source)
        second = source[draw.choice(alike[first])]
        composed.append(_composed(source[first], second, next(numbers), place))
    return [*map(dict, source), *composed]


def _alike(source: Sequence[Mapping[str, Any]]) -> dict[int, list[int]]:
    """Places of the products that may be joined with one: next to it by length in its top category, itself too."""
    by_top: dict[str, list[int]] = {}
    for place in sorted(range(len(source)), key=lambda one: len(source[one]["description"] or "")):
        by_top.setdefault(str(source[place]["category"] or "").split(CATEGORY_PATH)[0], []).append(place)
    return {
        place: row[max(0, rank - NEIGHBOURS) : rank + NEIGHBOURS + 1]
        for row in by_top.values()
        for rank, place in enumerate(row)
    }


def _composed(first: Mapping[str, Any], second: Mapping[str, Any], number: str, place: int) -> dict[str, Any]:
    title = _joined(first["title"], second["title"], PHRASE)
    bare = " ".join(MODEL_NUMBER.sub("", title).split())
    return {
        **first,
        "item_id": f"{COMPOSED}{place:08d}",
        "title": f"{bare} {number}",
        "description": _joined(first["description"] or "", second["description"] or "", SENTENCE) or None,
        "attributes": second["attributes"],
    }


def _joined(first: str, second: str, cut: re.Pattern[str]) -> str:
    """The beginning of one text and the end of another, each cut next to its middle, else between two words."""
    return f"{_halves(first, cut)[0]} {_halves(second, cut)[1]}".strip()


def _halves(text: str, cut: re.Pattern[str]) -> tuple[str, str]:
    middle = len(text) / 2
    places = [found.start() for found in cut.finditer(text)] or [found.start() for found in re.finditer(r"\s", text)]
    place = min(places, key=lambda one: abs(one - middle), default=len(text))
    return text[:place].strip(), text[place:].strip()


def _model_numbers(source: Sequence[Mapping[str, Any]], draw: random.Random) -> Iterator[str]:
    """Without end and all different: the shapes of real ones, other letters and digits."""
    real = sorted({number for one in source for number in MODEL_NUMBER.findall(one["title"])}) or ["AB1000"]
    given = set(real)
    while True:
        number = "".join(_other(letter, draw) for letter in draw.choice(real))
        if number not in given:
            given.add(number)
            yield number


def _other(letter: str, draw: random.Random) -> str:
    if letter.isdigit():
        return draw.choice(string.digits)
    return draw.choice(string.ascii_uppercase) if letter.isalpha() else letter


def queries(
    judged: Sequence[str], titles: Sequence[str], n: int, *, seed: int, misspelt_share: float = MISSPELT
) -> list[str]:
    """``n`` distinct queries, most frequent first: the judged ones, then pieces of titles; fewer if titles end.

    A piece is a run of words of one title, from a drawn place on, as many as a drawn judged query has.
    """
    draw = random.Random(seed)  # noqa: S311 - a benchmark
    lengths = [len(query.split()) for query in judged]
    found = dict.fromkeys(judged[:n])
    for _ in range(20 * n):
        if len(found) >= n:
            break
        words = draw.choice(titles).lower().split()
        length = min(draw.choice(lengths), len(words))
        start = draw.randrange(len(words) - length + 1)
        piece = " ".join(words[start : start + length]).strip(" ,.;:|()-–&/")
        if draw.random() < misspelt_share:
            piece = misspelt(piece, draw)
        if any(letter.isalpha() for letter in piece):
            found[piece] = None
    return list(found)


def mixed(distinct: Sequence[str], n: int, *, seed: int, exponent: float = ZIPF) -> list[str]:
    """``n`` queries as people send them: each drawn by its rank, the n-th as often as n ** -exponent says."""
    draw = random.Random(seed)  # noqa: S311 - a benchmark
    shares = list(accumulate(rank**-exponent for rank in range(1, len(distinct) + 1)))
    return draw.choices(distinct, cum_weights=shares, k=n)


def statistics(terms: Iterable[Sequence[str]]) -> dict[str, float]:
    """Of analysed texts: how long they are, how many terms there are, and how steeply their frequencies fall."""
    documents = list(terms)
    lengths = np.array([len(one) for one in documents])
    counts = np.sort(np.array(list(Counter(term for one in documents for term in set(one)).values())))[::-1]
    ranks = np.arange(1, len(counts) + 1)[FREQUENT_TERMS]
    some = counts[FREQUENT_TERMS]
    slope = float(np.polyfit(np.log(ranks[: len(some)]), np.log(some), 1)[0]) if len(some) > 1 else 0.0
    return {
        "texts": len(documents),
        "terms_a_text_mean": round(float(lengths.mean()), 1),
        "terms_a_text_p50": float(np.percentile(lengths, 50)),
        "terms_a_text_p95": float(np.percentile(lengths, 95)),
        "distinct_terms": len(counts),
        "share_of_texts_with_the_100th_term": round(float(counts[min(99, len(counts) - 1)] / len(documents)), 4),
        "zipf_exponent": round(-slope, 3),
    }
