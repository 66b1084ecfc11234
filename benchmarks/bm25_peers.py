"""Lexical indexes on the same terms: our member, plain ``bm25s`` and ``tantivy``.

Every system gets the terms of our analysis, of documents and of queries, and BM25 with k1 1.2 and b .75, which is all
that tantivy has; so that nothing differs but the index. Each measurement is a process of its own with one thread. A
query is answered by numbers of documents and scores, best first, one call a query:

``member``
    :class:`pipelines.models.bm25.Bm25` over the same single field; it can score any item afterwards, as fusion needs.
``member, two legs``
    as it serves: names beside everything, added up in one index.
``bm25s``
    ``retrieve`` with its own selection of the best.
``tantivy``
    a disjunction of terms, index in a folder, one segment. It keeps lengths in one byte, so that lists differ a little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.model_api import Context
from pipelines.models import bm25
from pipelines.search.query import Query
from pipelines.storage import read_json, write_json

K1, B = 1.2, 0.75
DEPTHS = (10, 1000)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
REFERENCE = "bm25s"

Legs = dict[str, list[list[str]]]
"""Terms of every document, by leg of the member."""

Answer = Callable[[Sequence[str], int], list[int]]
"""Numbers of the best documents for a query's terms, best first, at most so many."""


def member(legs: Legs, folder: Path) -> Answer:
    """Ours, over everything."""
    return _member({"everything": legs["everything"]}, folder)


def member_two_legs(legs: Legs, folder: Path) -> Answer:
    """Ours, as it serves."""
    return _member(legs, folder)


def _member(legs: Legs, folder: Path) -> Answer:
    bm25.of_terms(bm25.Bm25Config(k1=K1, b=B), legs).save(folder)
    fitted, nobody = bm25.Bm25.load(folder), UserHistory.empty()

    def answer(terms: Sequence[str], n: int) -> list[int]:
        asked = Context(nobody, Surface.SEARCH, Query(" ".join(terms), tuple(terms)))
        codes: list[int] = fitted.candidates(asked, n).codes.tolist()
        return codes

    return answer


def plain_bm25s(legs: Legs, folder: Path) -> Answer:
    """The library as its README uses it, from its files."""
    import bm25s

    made = bm25s.BM25(k1=K1, b=B, method="lucene")
    made.index(legs["everything"], show_progress=False)
    made.save(folder, show_progress=False)
    index = bm25s.BM25.load(folder, mmap=True, show_progress=False)

    def answer(terms: Sequence[str], n: int) -> list[int]:
        found = index.retrieve([list(terms)], k=n, show_progress=False, n_threads=0)
        codes: list[int] = found.documents[0][found.scores[0] > 0].tolist()
        return codes

    return answer


def tantivy(legs: Legs, folder: Path) -> Answer:
    """One field of terms between spaces, without positions; documents carry their number."""
    import tantivy as library

    build = library.SchemaBuilder().add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    schema = build.add_unsigned_field("number", fast=True).build()
    index = library.Index(schema, path=str(folder))
    analyzer = library.TextAnalyzerBuilder(library.Tokenizer.whitespace()).build()
    index.register_tokenizer("whitespace", analyzer)
    writer = index.writer(heap_size=512_000_000, num_threads=1)  # large enough for one segment
    for number, terms in enumerate(legs["everything"]):
        document = library.Document(terms=" ".join(terms))
        document.add_unsigned("number", number)  # a number given by name counts as signed
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def answer(terms: Sequence[str], n: int) -> list[int]:
        parts = [(library.Occur.Should, library.Query.term_query(schema, "terms", term, "freq")) for term in terms]
        hits = searcher.search(library.Query.boolean_query(parts), limit=n, count=False).hits
        return [int(number or 0) for number in searcher.fast_field_values("number", [place for _, place in hits])]

    return answer


SYSTEMS: dict[str, Callable[[Legs, Path], Answer]] = {
    "member": member,
    "member, two legs": member_two_legs,
    "bm25s": plain_bm25s,
    "tantivy": tantivy,
}


def write(given: Path, legs: Legs, queries: Sequence[Sequence[str]]) -> None:
    """Lay out what all systems read: terms by leg and document, and terms by query."""
    for name, value in (("legs", legs), ("queries", queries)):
        (given / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def compared(given: Path, *, rounds: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Medians of all systems, in processes of their own, in alternating order.

    Args:
        given: folder of :func:`write`.
        rounds: processes a system.
        seconds: of querying for each number of results.
        say: called with a line of progress.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SYSTEMS}
    for round_ in range(rounds):
        for name in SYSTEMS if round_ % 2 == 0 else reversed(SYSTEMS):
            say(f"{name}, round {round_ + 1} of {rounds}")
            found[name].append(_in_process(name, given, seconds))
    reference = found[REFERENCE][0]["first"]
    return [{"system": name} | summary(ran, reference) for name, ran in found.items()]


def _in_process(name: str, given: Path, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bm25_peers", "--system", name, "--given", str(given)]
    out = given / "result.json"
    subprocess.run(  # noqa: S603 - our own module
        [*command, "--seconds", str(seconds), "--out", str(out)], env={**os.environ, **ONE_THREAD}, check=True
    )
    found: dict[str, Any] = read_json(out)
    return found


def summary(ran: Sequence[dict[str, Any]], reference: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Medians of the figures of several processes; share of the reference's first results that a system has too."""
    figures = [name for name in ran[0] if name != "first"]
    pairs = zip(ran[0]["first"], reference, strict=True)
    shared = [len(set(mine) & set(theirs)) / len(theirs) for mine, theirs in pairs if theirs]
    agreement = {f"agreement@{DEPTHS[0]}": round(statistics.mean(shared), 4)}
    return {name: round(statistics.median(one[name] for one in ran), 2) for name in figures} | agreement


def measured(system: str, given: Path, folder: Path, *, seconds: float) -> dict[str, Any]:
    """One system in this process: seconds to build, save and open, size, queries a second, first results."""
    legs, queries = read_json(given / "legs.json"), read_json(given / "queries.json")
    began, processor = time.perf_counter(), time.process_time()
    answer = SYSTEMS[system](legs, folder)
    found: dict[str, Any] = {
        "build_s": time.perf_counter() - began,
        "build_processor_s": time.process_time() - processor,
    }
    found["megabytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    found["first"] = [answer(terms, DEPTHS[0]) for terms in queries]
    n_documents = len(legs["everything"])
    for depth in DEPTHS:
        found[f"queries_per_s@{depth}"] = _rate(answer, queries, min(depth, n_documents), seconds)
    return found


def _rate(answer: Answer, queries: Sequence[Sequence[str]], depth: int, seconds: float) -> float:
    """Queries a second of processor time, over whole passes, at least one."""
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while not times or time.perf_counter() < ends:
        began = time.process_time()
        for terms in queries:
            answer(terms, depth)
        times.append(time.process_time() - began)
    return len(queries) / float(np.median(times))


def main() -> None:
    """One measurement, for the process that compares."""
    parser = argparse.ArgumentParser(description="One lexical index; started by `fuseline bench search-latency`.")
    parser.add_argument("--system", choices=SYSTEMS, required=True)
    parser.add_argument("--given", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    folder = told.given / told.system
    folder.mkdir(exist_ok=True)
    write_json(told.out, measured(told.system, told.given, folder, seconds=told.seconds))


if __name__ == "__main__":
    main()
