"""What a replay found, for people: a table for the terminal and a page with the course of quality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from pipelines.evaluation import charts
from pipelines.evaluation.charts import Line
from pipelines.evaluation.report import signed, templates
from pipelines.replay.quality import FROZEN, POPULARITY, RETRAINED, SHOWN, SYSTEMS

TEMPLATE = "report.html.j2"
STYLES = {RETRAINED: "main", FROZEN: "plain", POPULARITY: "bad"}


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """One table a surface: systems by metric, then the paired differences."""
    for surface, about in found["surfaces"].items():
        if "not_applicable" in about:
            continue
        title = f"{surface}: {about['visits']} customer days of {about['customers']} customers"
        table = Table("", *SHOWN, title=title, title_justify="left")
        for system in SYSTEMS:
            table.add_row(system, *(_span(about["systems"][system][metric]) for metric in SHOWN))
        for other, spans in about["differences"].items():
            table.add_row(f"{RETRAINED} − {other}", *(_difference(spans[metric]) for metric in SHOWN))
        yield table


def page(found: Mapping[str, Any]) -> str:
    """A self-contained HTML page."""
    environment = templates(Path(__file__).parent, Path(charts.__file__).parent)
    environment.filters["span"] = _span
    environment.filters["difference"] = _difference
    views = {name: _view(about) for name, about in found["surfaces"].items()}
    return environment.get_template(TEMPLATE).render(found=found, surfaces=views, systems=SYSTEMS, metrics=SHOWN)


def _view(about: Mapping[str, Any]) -> dict[str, Any]:
    if "not_applicable" in about:
        return dict(about)
    return dict(about) | {"course": course(about), "difference": difference(about)}


def course(about: Mapping[str, Any]) -> Markup:
    """Mean nDCG@10 of each system from the first day on, cumulated so that a quiet day does not shout."""
    series = []
    for system in reversed(SYSTEMS):
        values: list[float | None] = []
        total = visits = 0.0
        for day in about["days"]:
            total, visits = total + day["ndcg@10"][system] * day["visits"], visits + day["visits"]
            values.append(total / visits)
        series.append(Line(system, tuple(values), STYLES[system]))
    return charts.lines(series, description="nDCG@10 up to and including each day", unit="")


def difference(about: Mapping[str, Any]) -> Markup:
    """Retrained minus the others."""
    dots = [signed(f"− {other}", spans["ndcg@10"]) for other, spans in about["differences"].items()]
    return charts.intervals(dots, description="nDCG@10 of retrained minus the others, paired", signed=True)


def _span(span: Mapping[str, float]) -> str:
    return f"{span['mean']:.4f} [{span['ci_low']:.4f}, {span['ci_high']:.4f}]"


def _difference(span: Mapping[str, float]) -> str:
    return f"{span['mean_difference']:+.4f} [{span['ci_low']:+.4f}, {span['ci_high']:+.4f}]"
