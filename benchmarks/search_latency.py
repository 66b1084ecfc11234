"""How fast ``POST /v1/search`` is on a catalogue of 43,000 products, and what its index costs, beside peers.

``python -m benchmarks.search_latency [--items 43000] [--json]``

The catalogue and the queries are composed of real ones (:mod:`benchmarks.composed_shop`), the bundle is made by the
product's own code (:mod:`benchmarks.search_bundle`). Encoding that many texts takes minutes the first time; vectors are
kept in ``--cache``. Then two comparisons, each in the same run:

1. The service beside an empty BentoML endpoint (:mod:`benchmarks.rounds`), asked twice: with queries of which none
   comes twice, so that each is encoded, and with a mix in which frequent ones come back, after a warm-up. Lists of ten
   without facets (``--facets`` asks for all), nobody logged in, exploration as always. And beside a handler that counts
   for as long as a search takes (:mod:`benchmarks.counting_service`): what nothing of ours can fall below.
2. The lexical member beside plain ``bm25s`` and ``tantivy`` (:mod:`benchmarks.bm25_peers`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from benchmarks import bm25_peers, composed_shop, counting_service, load, rounds, search_bundle
from benchmarks.search_bundle import Built
from benchmarks.started import EMPTY_SERVICE, seconds_to_start, serving
from benchmarks.telling import add_output, say, tell
from pipelines import champion
from pipelines import params as parameters
from pipelines.bundle import Bundle
from pipelines.catalogue import FACETS
from pipelines.models import bm25
from pipelines.params import AllParams
from pipelines.search.analysis import Analyzer
from pipelines.search.documents import written
from pipelines.service_process import SERVICE

ROOT = Path(__file__).resolve().parents[1]
DISTINCT, MIX, EMPTY, COUNTING = "distinct queries", "mix of queries", "empty route", "a handler that counts as long"
PEER_QUERIES = 1000
PEER_COLUMNS = {
    "system": "system",
    "build_processor_s": "build s",
    "megabytes": "MB",
    "queries_per_s@10": "best 10",
    "queries_per_s@1000": "best 1000",
    "agreement@10": "10 as bm25s",
}
PROBING = 200.0
"""Requests a second at which it is seen how long a search takes, for :data:`COUNTING`."""

TRIAL = 50_000
"""Steps that the counting handler takes while it is seen how long they take there, about a millisecond."""

REQUESTS_A_SECOND = 2400
"""More than can be answered: so many queries are made for a second of load, and half as many that the mix repeats."""


class Stream:
    """Requests for queries, one after the other through all loops; counts those whose query came before."""

    def __init__(self, queries: Sequence[str], facets: Sequence[str] = ()) -> None:
        """``queries``: in the order of sending; ``facets``: asked for with each."""
        bodies = [json.dumps({"query": query, "facets": list(facets)}).encode() for query in queries]
        self._rest = iter([(q, load.post("/v1/search", body)) for q, body in zip(queries, bodies, strict=True)])
        self._seen: set[str] = set()
        self.sent = self.repeated = 0

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> bytes:
        """The next request.

        Raises:
            RuntimeError: none is left; a loop that began anew would ask again.
        """
        query, request = next(self._rest, (None, b""))
        if query is None:
            raise RuntimeError(f"all {len(self._seen)} different queries are sent; take a larger --items")
        self.sent += 1
        self.repeated += query in self._seen
        self._seen.add(query)
        return request

    def forget_counts(self) -> None:
        """Begin to count; what came before is still known."""
        self.sent = self.repeated = 0

    def counts(self) -> dict[str, Any]:
        """How many requests, and the share of them whose query had come before."""
        return {"requests": self.sent, "repeated": round(self.repeated / max(1, self.sent), 3)}


@dataclass(frozen=True)
class Asked:
    """Queries of a run: none twice, and others as people repeat them; what one has asked is not known to the other."""

    distinct: list[str]
    mix: list[str]


def main() -> None:
    """Measure and print."""
    told = _arguments()
    with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as name:
        report = measured(told, Path(name))
    tell(report, told, _print)


def _arguments() -> argparse.Namespace:
    cache = champion.home_from_environment() / "var" / "text_cache"
    parser = argparse.ArgumentParser(description="Latency, rate, index size and build time of search.")
    parser.add_argument("--items", type=int, default=43_000, help="products of the catalogue")
    parser.add_argument("--encoder", help="as text.encoder of params.yaml; none: search by words alone")
    parser.add_argument("--cache", type=Path, default=cache, help="of text vectors (default: %(default)s)")
    parser.add_argument("--facets", action="store_true", help="ask for all facets with every search")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each loop in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of the service, and processes a lexical index")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds of the mix before anything is measured")
    parser.add_argument("--seed", type=int, default=7)
    add_output(parser)
    return parser.parse_args()


def measured(told: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The whole run; ``scratch`` takes its files."""
    params = _params(told.encoder)
    products = composed_shop.products(composed_shop.real_products(), told.items, seed=told.seed)
    built = search_bundle.build(products, scratch / "bundle", params, cache=told.cache, say=say)
    asked = _asked(told, [one["title"] for one in products])
    return {
        "items": len(products),
        "build_s": built.seconds,
        "megabytes": built.megabytes,
        **_served(told, built, asked, scratch),
        **_lexical(told, built, asked, scratch / "peers", params),
        "facets": told.facets,
        "workers": told.workers,
        "rounds": told.rounds,
        "seconds": told.seconds,
        "seed": told.seed,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end",
    }


def _params(encoder: str | None) -> AllParams:
    params = parameters.load(ROOT / "params.yaml")
    if encoder is None:
        return params
    text = parameters.TextParams(**{**params.text.model_dump(), "encoder": encoder})
    return params.model_copy(update={"text": text})


def _asked(told: argparse.Namespace, titles: Sequence[str]) -> Asked:
    n = int((told.warm_up + told.rounds * (2 * told.seconds + 2)) * REQUESTS_A_SECOND)
    found = composed_shop.queries(composed_shop.real_queries(), titles, n + n // 2, seed=told.seed)
    of_mix, distinct = found[::3], [query for place, query in enumerate(found) if place % 3]
    return Asked(distinct, composed_shop.mixed(of_mix, n, seed=told.seed))


def _served(told: argparse.Namespace, built: Built, asked: Asked, scratch: Path) -> dict[str, Any]:
    """Rate and latency, start and memory."""
    facets = FACETS if told.facets else ()
    distinct, mix = Stream(asked.distinct, facets), Stream(asked.mix, facets)
    say(f"starting the service and an empty one, {told.rounds} times each")
    start_s, start_of_empty_s = seconds_to_start(
        [SERVICE, EMPTY_SERVICE], told.workers, scratch, built.bundle, rounds=told.rounds
    )
    with (
        serving(SERVICE, told.workers, scratch, built.bundle) as ours,
        serving(EMPTY_SERVICE, told.workers, scratch, built.bundle) as empty,
        serving("benchmarks.counting_service:Counting", told.workers, scratch, built.bundle) as counting,
    ):
        say(f"warming up with the mix for {told.warm_up:.0f} seconds")
        load.run(load.closed_loop(ours.port, mix, seconds=told.warm_up))
        mix.forget_counts()
        one = load.run(load.open_loop(ours.port, distinct, rate=PROBING, seconds=told.seconds, seed=told.seed))
        counted_ms = one.percentile(0.5, took=True)
        counts = _counts(counting.port, counted_ms, told)
        targets = [
            rounds.Target(EMPTY, empty.port, [load.post("/mounted", b"{}")]),
            rounds.Target(DISTINCT, ours.port, distinct),
            rounds.Target(MIX, ours.port, mix),
            rounds.Target(COUNTING, counting.port, [counts]),
        ]
        return {
            **rounds.measured(targets, rounds=told.rounds, seconds=told.seconds, seed=told.seed),
            "clients": load.CLIENTS,
            "start_s": start_s,
            "start_of_empty_route_s": start_of_empty_s,
            "memory_mb_per_worker": rounds.memory_of_workers(ours.pid, "VmRSS"),
            "private_memory_mb_per_worker": rounds.memory_of_workers(ours.pid, "RssAnon"),
            "queries": {DISTINCT: distinct.counts(), MIX: mix.counts() | {"zipf_exponent": composed_shop.ZIPF}},
        }


def _counts(port: int, milliseconds: float, told: argparse.Namespace) -> bytes:
    """A request that makes the counting handler count for so long there, at the rate at which that was measured."""
    tried = [load.post(counting_service.PATH, str(TRIAL).encode())]
    one = load.run(load.open_loop(port, tried, rate=PROBING, seconds=told.seconds, seed=told.seed))
    steps = round(TRIAL * milliseconds / one.percentile(0.5, took=True))
    return load.post(counting_service.PATH, str(steps).encode())


def _lexical(told: argparse.Namespace, built: Built, asked: Asked, folder: Path, params: AllParams) -> dict[str, Any]:
    """The lexical indexes on the bundle's own texts."""
    features = Bundle.load(built.bundle, verify=False).features
    analyzer = Analyzer(params.text.language)
    began = time.process_time()
    legs = {
        name: [analyzer.terms(text) for text in written(features.catalog, fields)] for name, fields in bm25.LEGS.items()
    }
    analysis = time.process_time() - began
    queries = [list(dict.fromkeys(analyzer.terms(query))) for query in asked.distinct[:PEER_QUERIES]]
    folder.mkdir()
    bm25_peers.write(folder, legs, [terms for terms in queries if terms])
    peers = bm25_peers.compared(folder, rounds=told.rounds, seconds=told.seconds, say=say)
    real = [not item.startswith(composed_shop.COMPOSED) for item in features.item_ids.ids()]
    return {
        "peers": peers,
        "analysis_processor_s": round(analysis, 2),
        "catalogue": composed_shop.statistics(legs["everything"]),
        "of_it_real_products": composed_shop.statistics(compress(legs["everything"], real)),
    }


def _print(report: dict[str, Any]) -> None:
    console = Console()
    title = f"POST /v1/search: {report['items']:,} items, {report['workers']} workers, {report['clients']} clients"
    console.print(rounds.table(report["rows"], title=title))
    parts = {**report["build_s"], **report["megabytes"]}
    console.print(
        _table(
            "what the bundle is made of",
            ("part", "seconds", "MB"),
            ([part, report["build_s"].get(part, ""), report["megabytes"].get(part, "")] for part in parts),
        )
    )
    title = "lexical indexes on the same terms, one thread; queries a processor second"
    console.print(
        _table(title, PEER_COLUMNS.values(), ([row[name] for name in PEER_COLUMNS] for row in report["peers"]))
    )
    texts, real = report["catalogue"], report["of_it_real_products"]
    console.print(_table("texts", ("", "all", "real ones"), ([name, texts[name], real[name]] for name in texts)))
    shown = {"rows", "build_s", "megabytes", "peers", "catalogue", "of_it_real_products"}
    for name, value in report.items():
        if name not in shown:
            console.print(f"{name.replace('_', ' ')}: {value}", highlight=False)


def _table(title: str, columns: Iterable[str], rows: Iterable[Sequence[object]]) -> Table:
    """The first column is a name, the others are numbers."""
    table = Table(title=title)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*(f"{one:,.0f}" if isinstance(one, float) and one >= 1000 else str(one) for one in row))
    return table


if __name__ == "__main__":
    main()
