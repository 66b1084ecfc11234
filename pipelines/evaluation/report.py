"""The report for people: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.contracts import FUSED, Surface
from pipelines.evaluation import charts, metrics
from pipelines.evaluation.charts import Dot, Line

TEMPLATE = "report.html.j2"
STYLE = "page.css"
"""Look of every report; templates include it."""
SURFACE_NAMES = {
    Surface.RECOMMEND: ("Recommendations", "all items, bought ones included"),
    Surface.RECOMMEND_NEW: ("New to the user", "only items that the user has not bought"),
    Surface.SEARCH: ("Search", "products for a query"),
}
SLICINGS = {
    "history_length": "Distinct items in the user's history",
    "recent_activity": "User's last activity",
    "item_popularity": "Popularity of the item (thirds of all purchases)",
    "item_age": "Age of the item",
    "query_length": "Length of the query",
    "match": "Words of the query in the catalogue",
    "labels": "Where it is known from what is right",
    "typing": "Typing errors",
}
GLOSSARY = {
    "ndcg@10": "Share of the best possible list of ten that was reached; a hit counts more the higher it stands.",
    "recall@20": "Share of what the user went on to buy that was among the first twenty.",
    "recall@100": "Share of the items that suit a query best that was among the first hundred.",
    "mrr@10": "One over the place of the first right item: 1 on top, ½ when second, 0 when not in the first ten.",
    "hit_rate@10": "Share of users with at least one right item among the first ten.",
    "map@10": "Average, over the right items, of how clean the list was down to each of them.",
    "precision@10": "Share of the ten places that held a right item.",
    "coverage@10": "Share of the catalogue that somebody was shown.",
    "diversity@10": "How different the ten items are from one another by their texts: 0 all alike, 1 unrelated.",
    "novelty@10": "How little known the shown items are, in bits: each further bit means half as many owners.",
    "gini@10": "How unevenly places go to items: 0 all alike, near 1 when a few items take all. Lower is fairer.",
}


def templates(*folders: Path) -> Environment:
    """Templates of these folders; what they do not know is an error, what they show is escaped."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(documents: Mapping[str, Any]) -> str:
    """The page, from the documents of an evaluation."""
    environment = templates(Path(__file__).parent)
    environment.filters["number"] = number
    environment.filters["day"] = lambda time: str(time)[:10]
    return environment.get_template(TEMPLATE).render(
        summary=documents["summary"],
        surfaces=[surface_view(str(name), documents) for name in Surface],
        costs=documents["costs"],
        lower_is_better=metrics.LOWER_IS_BETTER,
        glossary=GLOSSARY,
        fused=FUSED,
    )


def surface_view(surface: str, documents: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of one surface."""
    title, meaning = SURFACE_NAMES[Surface(surface)]
    view = {"name": surface, "title": title, "meaning": meaning, "reason": None}
    systems = documents["metrics"][surface]
    if "not_applicable" in systems:
        return view | {"reason": systems["not_applicable"]}
    shown = {name: spans for name, spans in systems.items() if "not_applicable" not in spans}
    order = sorted(shown, key=lambda name: -shown[name]["ndcg@10"]["mean"])
    compared = documents["comparisons"][surface]
    return view | {
        "of": "queries" if surface == Surface.SEARCH else "users",
        "metrics": metrics.shown(search=surface == Surface.SEARCH),
        "systems": {name: shown[name] for name in order},
        "best": best_values(shown),
        "absent": {name: spans["not_applicable"] for name, spans in systems.items() if name not in shown},
        "headline": shown[FUSED],
        "compared": None if "not_applicable" in compared else compared,
        "quality_chart": quality_chart(shown, order),
        "difference_chart": difference_chart(compared),
        "slices": slice_views(documents["slices"][surface], compared.get("best_single")),
        "ledger": ledger_rows(documents["ledger"][surface], documents["costs"]),
        "ledger_chart": ledger_chart(documents["ledger"][surface]),
        "steps": [step for step in documents["stability"]["steps"] if step["surface"] == surface],
        "weeks_chart": weeks_chart(documents["stability"]["weeks"], surface),
    }


def quality_chart(shown: Mapping[str, Any], order: list[str]) -> Markup:
    """nDCG@10 of every system."""
    dots = [_dot(name, shown[name]["ndcg@10"], "main" if name == FUSED else "plain") for name in order]
    return charts.intervals(dots, description="nDCG@10 with 95 % interval by system")


def difference_chart(compared: Mapping[str, Any]) -> Markup:
    """Fused minus every member."""
    members = compared.get("members", {})
    dots = [signed(name, spans["ndcg@10"]) for name, spans in members.items() if "ndcg@10" in spans]
    dots.sort(key=lambda dot: dot.mean)
    return charts.intervals(dots, description="nDCG@10 of fused minus each member, paired", signed=True)


def ledger_chart(ledger: Mapping[str, Any]) -> Markup:
    """Fused minus fused without the member."""
    dots = [signed(name, lost["ndcg@10"]) for name, lost in ledger.items() if "ndcg@10" in lost]
    dots.sort(key=lambda dot: -dot.mean)
    return charts.intervals(dots, description="nDCG@10 lost without each member, paired", signed=True)


def weeks_chart(weeks: list[dict[str, Any]], surface: str) -> Markup:
    """nDCG@10 by week of the rolling windows and of the holdout."""
    by_instant: dict[str, list[float | None]] = {}
    for week in weeks:
        if week["surface"] == surface:
            by_instant.setdefault(week["instant"], []).append(week["ndcg@10"]["mean"])
    named = {"judged": ("holdout", "main")}
    series = [
        Line(*_label_and_values(named.get(instant, ("rolling windows", "plain")), values))
        for instant, values in sorted(by_instant.items(), key=lambda entry: entry[0] == "judged")
    ]
    return charts.lines(series, description="nDCG@10 by week of the window", unit="week")


def slice_views(found: Mapping[str, Any], best_single: str | None) -> list[dict[str, Any]]:
    """Per slicing: rows with users, and nDCG@10 and recall@20 of the fusion and of the best single member."""
    systems = [FUSED, *([best_single] if best_single else [])]
    return [
        {
            "title": SLICINGS[slicing],
            "systems": systems,
            "rows": [
                {"name": name, "users": part["users"], "systems": {s: part["systems"][s] for s in systems}}
                for name, part in parts.items()
            ],
        }
        for slicing, parts in found.items()
    ]


def ledger_rows(ledger: Mapping[str, Any], costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Members by what they are worth, with what they cost."""
    members = costs.get("members", {})
    rows = [{"name": n, "lost": lost, "cost": members.get(n, {})} for n, lost in ledger.items() if "changed" in lost]
    return sorted(rows, key=lambda row: -row["lost"]["ndcg@10"]["mean_difference"])


def best_values(shown: Mapping[str, Any]) -> dict[str, float]:
    """The best mean of each metric."""
    best = {}
    for metric in next(iter(shown.values()), {}):
        means = [spans[metric]["mean"] for spans in shown.values() if "mean" in spans[metric]]
        if means:
            best[metric] = min(means) if metric in metrics.LOWER_IS_BETTER else max(means)
    return best


def number(value: float | None, digits: int = 4, *, signed: bool = False) -> str:
    """A number for a table; a dash for none."""
    if value is None:
        return "–"
    return (f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}").replace("-", "−")


def _dot(label: str, span: Mapping[str, float], style: str) -> Dot:
    return Dot(label, span["mean"], span["ci_low"], span["ci_high"], style)


def signed(label: str, span: Mapping[str, float]) -> Dot:
    """A paired difference; good or bad when its interval lies on one side of zero."""
    style = "good" if span["ci_low"] > 0 else "bad" if span["ci_high"] < 0 else "plain"
    return Dot(label, span["mean_difference"], span["ci_low"], span["ci_high"], style)


def _label_and_values(named: tuple[str, str], values: list[float | None]) -> tuple[str, tuple[float | None, ...], str]:
    return named[0], tuple(values), named[1]
