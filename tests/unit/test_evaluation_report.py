"""The report, the charts, the terminal's tables and the tables for plots, from documents made by hand."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from pipelines.evaluation import charts, console, metrics, report, tables
from pipelines.evaluation.charts import Dot, Line
from pipelines.evaluation.evaluator import nothing

ROOT = Path(__file__).parents[2]
PLOTTED = re.compile(r"plots/(\w+\.csv)")
"""Tables that dvc.yaml makes plots of."""
SPAN = {"mean": 0.25, "ci_low": 0.2, "ci_high": 0.3, "n": 40}
GAIN = {"mean_difference": 0.05, "ci_low": 0.01, "ci_high": 0.09, "n": 40}
STEP = {"mean": 0.8, "sd": 0.1, "n": 40}


def documents() -> dict[str, Any]:
    """One judged surface with one member, one that is not applicable, and a name that must be escaped."""
    systems = {"fused": dict.fromkeys(metrics.METRICS, SPAN), "<b>": dict.fromkeys(metrics.METRICS, SPAN)}
    systems["fused"] |= {"diversity@10": {"not_applicable": "no list has two items with text"}}
    gains = dict.fromkeys((*metrics.PER_USER, *metrics.PER_LIST), GAIN)
    part = {"users": 40, "systems": {name: {"ndcg@10": SPAN, "recall@20": None} for name in systems}}
    absent = {name: {"not_applicable": "no search members"} for name in ("recommend_new", "search")}
    weeks = [
        {"surface": "recommend", "instant": instant, "week": week, "start": "2024-03-01", "days": 7.0, "ndcg@10": found}
        for instant in ("window_1", "judged")
        for week, found in ((1, STEP), (2, {"mean": None, "sd": None, "n": 0}))
    ]
    step = {"surface": "recommend", "from": "judged", "to": "served", "days": 28, "overlap@10": STEP, "rbo@10": STEP}
    times = {"name": "judged", "time": "2024-03-01T00:00:00+00:00", "until": "2024-03-29T00:00:00+00:00"}
    return {
        "metrics": {"recommend": systems | {"image": {"not_applicable": "the data have no images"}}, **absent},
        "comparisons": {
            "recommend": {"best_single": "<b>", "members": {"<b>": gains}, "ndcg@10": {"best_single": "<b>", **GAIN}},
            **absent,
        },
        "slices": {"recommend": {"history_length": {"1": part}}, **absent},
        "ledger": {"recommend": {"<b>": {"changed": 0.25, **gains}}, **absent},
        "stability": {"steps": [step], "weeks": weeks},
        "costs": {
            "members": {"<b>": {"milliseconds": 0.5, "megabytes": None}},
            "surfaces": {"recommend": {"p50_milliseconds": 1.0, "p95_milliseconds": 2.0}},
            "bundle": {"megabytes": 3.0},
        },
        "summary": {
            "bundle": {
                "id": "0123456789abcdef",
                "as_of": "2024-03-01T00:00:00+00:00",
                "surfaces": {"recommend": {"fuser": "weighted", "depth": 150, "weights": {"<b>": 1.0}, "trials": {}}},
            },
            "instants": {"windows": [times], "judged": times, "served": times},
            "target": "purchase-complete",
            "users": 1234,
            "catalogue": 99,
            "pairs": 5000,
            "holdout": {"users": 50, "pairs": 70, "pairs_of_unknown_items": 3, "judged_users": {"recommend": 40}},
        },
    }


class Reader(HTMLParser):
    """Collects what a page would fetch, and checks that elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "line", "circle", "polyline", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def test_the_report_is_one_well_formed_file_that_fetches_nothing() -> None:
    page = report.render(documents())
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert all(link.startswith("#") for link in reader.fetched)
    assert "url(" not in page


def test_the_report_says_what_was_found_and_why_something_was_not() -> None:
    page = report.render(documents())
    for sentence in ("0.2500", "+0.0500", "Not judged: no search members", "the data have no images", "1,234"):
        assert sentence in page


def test_names_are_escaped_in_text_and_in_charts() -> None:
    page = report.render(documents())
    assert "<b>" not in page.replace("<b>0.2500</b>", "").replace("<b>+0.0500</b>", "").split("Data and fusion</h2>")[0]
    assert "&lt;b&gt;" in charts.intervals([Dot("<b>", 0.1, 0.0, 0.2)], description="x")


def test_the_report_of_nothing_says_so() -> None:
    found = nothing({"recommend": "why", "recommend_new": "why", "search": "why"})
    assert report.render(found.documents).count("Not judged: why") == 3


def test_an_interval_chart_places_values_on_one_scale_and_marks_zero() -> None:
    chart = charts.intervals([Dot("a", 0.1, 0.0, 0.2), Dot("b", -0.1, -0.2, 0.0)], description="a and b", signed=True)
    centres = [float(x) for x in re.findall(r'circle cx="([\d.]+)"', chart)]
    zero = float(re.findall(r'class="zero" x1="([\d.]+)"', chart)[0])
    assert centres[0] - zero == pytest.approx(zero - centres[1], abs=0.2)
    assert "+0.1000" in chart
    assert "−0.1000" in chart


def test_a_line_chart_leaves_gaps_and_an_empty_one_is_nothing() -> None:
    chart = charts.lines([Line("a", (0.1, None, 0.3), "main")], description="a", unit="week")
    assert chart.count("<circle") == 2
    assert charts.lines([Line("a", (None,))], description="a", unit="week") == ""
    assert charts.intervals([], description="a") == ""


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 0.003), (-0.02, 0.41), (0, 1), (0, 930)])
def test_ticks_are_few_round_and_cover_the_range(low: float, high: float) -> None:
    ticks = charts._ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low
    assert ticks[-1] >= high


def test_the_terminal_shows_every_surface_and_its_reason() -> None:
    table, *others = console.headline(documents())
    assert isinstance(table, Table)
    assert (table.title, table.row_count) == ("recommend", 2)
    assert others == [
        "image: not applicable, the data have no images",
        "recommend: nDCG@10 of fused over <b>, the best member: +0.0500 (+0.0100 to +0.0900, 40 users)",
        "recommend_new: not applicable, no search members",
        "search: not applicable, no search members",
    ]


def test_the_terminals_table_fits_the_eighty_columns_of_a_log() -> None:
    out = Console(width=80, file=io.StringIO())
    out.print(next(iter(console.headline(documents()))))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert "fused" in shown


def test_plots_get_a_table_each_and_an_empty_one_where_nothing_was_judged() -> None:
    found = tables.plots(documents())
    assert found["ndcg_recommend"].to_pylist()[0] == {
        "surface": "recommend", "system": "fused", "metric": "ndcg@10", **SPAN,
    }  # fmt: skip
    assert found["ndcg_search"].to_pylist() == []
    assert {"system", "mean"} <= set(found["ndcg_search"].column_names)
    assert found["steps"]["step"].to_pylist() == ["judged to served"]
    empty = tables.plots(nothing({"recommend": "", "recommend_new": "", "search": ""}).documents)
    named = {path.stem for path in map(Path, PLOTTED.findall((ROOT / "dvc.yaml").read_text()))}
    assert named <= set(empty)
    assert not any(len(table) for table in empty.values())
