"""``params.yaml`` as frozen, typed values that forbid what they do not know."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.contracts import EVENT_TYPES, LABELS, EventType
from pipelines.errors import ParamsError


class Params(BaseModel):
    """Base of every section: frozen, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataParams(Params):
    """Where a shop's export lies and how its events are read."""

    adapter: str
    path: str
    as_of: datetime | None = Field(None, description="exclusive end of what is read; null: after the newest event")
    target: str | None = None
    strengths: dict[str, float] | None = None
    max_bad_share: float = Field(0.2, ge=0, le=1)

    @field_validator("as_of", mode="before")
    @classmethod
    def _quoted(cls, value: object) -> object:
        if isinstance(value, date):
            raise ValueError(  # noqa: TRY004 - pydantic turns a ValueError into the message
                f"an unquoted date; write as_of: '{value}' with quotes"
            )
        return value

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _known_event_types(self) -> DataParams:
        for name in [*(self.strengths or {}), *([self.target] if self.target else [])]:
            if name not in EVENT_TYPES:
                raise ValueError(f"unknown event type {name!r}; known: {', '.join(EVENT_TYPES)}")
        if self.strengths and min(self.strengths.values()) <= 0:
            raise ValueError("strengths must be above zero; leave an event type out to ignore it")
        return self


class FeedbackParams(Params):
    """How what the service collected is read."""

    attribution_hours: dict[str, float] = Field(
        default_factory=lambda: {
            EventType.DETAIL_PAGE_VIEW.value: 24.0,
            EventType.ADD_TO_CART.value: 72.0,
            EventType.PURCHASE_COMPLETE.value: 168.0,
        },
        description="an event that long after a list was shown still counts as its effect",
    )
    maturity_hours: float = Field(6.0, ge=0, description="beyond its window a list waits so long for late events")
    max_weight: float = Field(50.0, ge=1, description="the most that an inverse propensity counts")
    max_events_an_hour: dict[str, int] = Field(
        default_factory=lambda: {
            EventType.DETAIL_PAGE_VIEW.value: 1000,
            EventType.ADD_TO_CART.value: 300,
            EventType.PURCHASE_COMPLETE.value: 60,
        },
        description="of one history; who exceeds it is no person, and that day of the history is quarantined",
    )

    @model_validator(mode="after")
    def _known_event_types(self) -> FeedbackParams:
        for name in self.attribution_hours:
            if name not in LABELS:
                raise ValueError(f"attribution_hours has {name!r}; known: {', '.join(LABELS)}")
        for name in self.max_events_an_hour:
            if name not in EVENT_TYPES:
                raise ValueError(f"max_events_an_hour has {name!r}; known: {', '.join(EVENT_TYPES)}")
        if min([*self.attribution_hours.values(), *self.max_events_an_hour.values()], default=1) <= 0:
            raise ValueError("windows and rates must be above zero; leave an event type out to ignore it")
        return self


class SplitParams(Params):
    """Lengths of holdout and windows, and the grid that t2 lies on."""

    holdout_days: int = Field(28, ge=1)
    window_days: int = Field(28, ge=1)
    windows: int = Field(6, ge=0)
    grid_anchor: str = "2010-11-03"
    max_eval_users: int = Field(20000, ge=1, description="users sampled per window and for the holdout")

    @field_validator("grid_anchor")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        date.fromisoformat(value)
        return value


class TuningParams(Params):
    """How the encoder of queries is tuned for the members of kind ``tuned_text``."""

    enabled: bool = False
    rank: int = Field(8, ge=1, le=64, description="of what is added to a product of attention, in each head")
    learning_rate: float = Field(1e-3, gt=0, description="at the first step; it falls to 0 along a cosine")
    temperature: float = Field(0.05, gt=0, description="of the softmax over cosines")
    batch_size: int = Field(32, ge=2, description="queries of a step; of labelled ones half")
    steps: int = Field(100, ge=0, description="on queries made of titles, before any label")
    epochs: float = Field(8.0, gt=0, description="that labelled queries are learned")
    max_steps: int = Field(1000, ge=1, description="of one version, whatever there is to learn from")
    negatives: int = Field(100, ge=0, description="first results by words, and as many by meaning, unlabelled")
    max_queries: int = Field(5000, ge=1, description="labelled queries that are learned from")
    max_items: int = Field(20_000, ge=1, description="items that are learned with; of a longer catalogue a draw")
    min_queries: int = Field(30, ge=2, description="fewer labelled queries prove nothing, and nothing is tuned")


class DistillationParams(Params):
    """How vectors of words are learned from the encoder of queries, and when they take its place."""

    enabled: bool = True
    phrases: int = Field(100_000, ge=1, description="of the catalogue's texts, of more a draw; a tenth is held out")
    words: int = Field(30_000, ge=0, description="of the vocabulary, the frequent ones: what no text has")
    min_phrases: int = Field(5_000, ge=1, description="fewer to learn from teach too little")
    margin: float = Field(0.02, ge=0, description="share of nDCG@10, in finding products, that may be lost")


class TextParams(Params):
    """The pretrained encoder of item texts; None (or the word ``none``) switches it off."""

    encoder: str | None = Field("all-MiniLM-L6-v2", description="a packaged name, a folder, or a Keras Hub preset")
    max_tokens: int = Field(64, ge=8, le=512)
    batch_size: int = Field(32, ge=1)
    language: str | None = Field("english", description="of texts in Latin script, for stemming; Snowball's name")
    distillation: DistillationParams = DistillationParams()
    tuning: TuningParams = TuningParams()

    @field_validator("encoder")
    @classmethod
    def _off(cls, value: str | None) -> str | None:
        return None if value is None or value.strip().casefold() in {"", "none", "null"} else value


class FusionParams(Params):
    """How members are fused; the sections belong to the fusers of the same name."""

    method: Literal["auto", "best_single", "weighted", "reciprocal_rank", "stacking", "convex"] = "auto"
    candidates_per_member: int = Field(100, ge=1)
    max_users: int = Field(1500, ge=1, description="lists per window that the fusion learns on")
    min_coverage: float = Field(
        0.95, ge=0, description="of the best learned member's coverage@10; above what the gate asks of the next window"
    )
    max_spread_cost: float = Field(0.02, ge=0, lt=1, description="share of nDCG@10 that this coverage may cost")
    weighted: dict[str, Any] = Field(default_factory=dict)
    reciprocal_rank: dict[str, Any] = Field(default_factory=dict)
    stacking: dict[str, Any] = Field(default_factory=dict)
    convex: dict[str, Any] = Field(default_factory=dict)


class EvaluationParams(Params):
    """How the holdout is read."""

    bootstrap_draws: int = Field(10_000, ge=100)
    max_users: int = Field(20_000, ge=1)


class GateParams(Params):
    """What a candidate must show."""

    margin: float = Field(0.02, ge=0, description="non-inferiority margin, share of the reference's score")
    margin_by_surface: dict[str, float] = Field(
        default_factory=lambda: {"recommend_new": 0.1, "search": 0.1},
        description="the same where a surface's score is noisier",
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="size of the tests, shared among the looks at one champion")
    min_users: int = Field(30, ge=2, description="below so many users an interval says nothing")
    slice_margin: float = Field(0.15, ge=0, description="loss of a slice that must not be shown, share of its score")
    list_margin: float = Field(
        0.1, ge=0, le=1, description="loss of coverage, diversity, novelty against a learned member"
    )
    concentration_margin: float = Field(0.05, ge=0, le=1, description="gain of the Gini coefficient, absolute")
    week_drop: float = Field(0.3, gt=0, le=1, description="loss of the newest week against the worst usual one")
    change_excess: float = Field(0.3, ge=0, description="share by which served lists may move more than is usual")
    change_by_surface: dict[str, float] = Field(
        default_factory=lambda: {"search": 0.3},
        description="1 - rank-biased overlap that is never suspect: a search stands still until people choose",
    )
    max_rank_ms: float = Field(200.0, gt=0, description="95th percentile of the time for one ranking")
    max_megabytes: float = Field(4000.0, gt=0, description="size of the served bundle")


class TrainingParams(Params):
    """When a run is worth its time, and what runs leave behind."""

    min_new_events: int = Field(500, ge=0, description="rows of feedback since the last run that make training due")
    max_age_days: float = Field(30.0, gt=0, description="age of the last run at which any new row does")
    keep_failed: int = Field(2, ge=0, description="workspaces of failed runs that stay for a look")


class ScheduleParams(Params):
    """When Airflow starts what: a cron expression or ``@hourly``, ``@daily``, ...; None: never by the clock."""

    training: str | None = Field(None, description="beside this, feedback that landed makes training due")
    feedback: str | None = None
    monitoring: str | None = None
    erasure: str | None = None


class ReleaseParams(Params):
    """What is kept of promoted bundles."""

    keep: int = Field(
        5, ge=1, description="newest promotions whose bundles stay, beside the champion and the one before"
    )


class MonitoringParams(Params):
    """What is looked at while a champion serves, and from where on people are told."""

    days: int = Field(7, ge=1, description="newest collected days that are compared with the champion")
    min_events: int = Field(500, ge=1, description="fewer rows say nothing about drift")
    min_lists: int = Field(200, ge=1, description="fewer lists (of a day) say nothing about what is shown")
    max_drift: float = Field(0.25, gt=0, description="population stability index; above .25 is another population")
    max_price_ratio: float = Field(1.5, gt=1, description="median of price paid to the catalogue's, or its inverse")
    max_label_drop: float = Field(0.5, gt=0, lt=1, description="loss of conversions a list against the usual day")
    min_coverage: float = Field(0.05, ge=0, le=1, description="share of the catalogue that is shown at all")
    max_concentration: float = Field(0.98, gt=0, le=1, description="Gini coefficient of how often items are shown")
    max_p99_ms: float = Field(100.0, gt=0, description="99th percentile of /v1/recommend")
    max_fallback_share: float = Field(0.5, gt=0, le=1, description="answers simpler than they could be")
    max_age_days: float = Field(14.0, gt=0, description="days of events that the champion has not learned from")


class ModelEntry(BaseModel):
    """One base model: its kind, and the fields of the kind's own configuration."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @property
    def config(self) -> dict[str, Any]:
        """The fields beside ``kind``, to be parsed by the kind's configuration class."""
        return dict(self.model_extra or {})


class AllParams(Params):
    """The whole of ``params.yaml``."""

    seed: int
    data: DataParams
    feedback: FeedbackParams = FeedbackParams()
    split: SplitParams = SplitParams()
    text: TextParams = TextParams()
    models: dict[str, ModelEntry]
    fusion: FusionParams = FusionParams()
    evaluation: EvaluationParams = EvaluationParams()
    gate: GateParams = GateParams()
    training: TrainingParams = TrainingParams()
    schedule: ScheduleParams = ScheduleParams()
    release: ReleaseParams = ReleaseParams()
    monitoring: MonitoringParams = MonitoringParams()


def parse(values: dict[str, Any], *, source: str = "params.yaml") -> AllParams:
    """Check values; the error names every field that is wrong, and what to write instead."""
    try:
        return AllParams.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        known = "each name as in the shipped params.yaml"
        raise ParamsError(f"{source} is not valid", found=" | ".join(lines), wanted=known, do="edit it") from None


def load(path: Path) -> AllParams:
    """Read and check a params file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist", do="run from the project's root, or give --params") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not YAML", found=error, do="edit it") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path} is not a mapping", found=type(values).__name__, do="edit it")
    return parse(values, source=str(path))
