"""Runs suites over small frames of facts, builds data docs, and decides by severity.

Tables are never loaded: their facts (counts, shares, extremes) are computed in the table engine, and the frame
of facts is what Great Expectations validates. A suite is ``suites/<name>.json``, committed; what the contract
already says (columns, types, required, keys) is added by the caller and not repeated there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ArtifactError, ExpectationError
from pipelines.storage import read_json, replacing_folder, write_json

if TYPE_CHECKING:
    import great_expectations as gx

SUITES = Path(__file__).parent / "suites"

Facts = Sequence[Mapping[str, Any]]
"""Rows of facts; all rows have the same names."""


@dataclass(frozen=True)
class Check:
    """One suite and what it judges.

    Attributes:
        suite: name of a file in ``suites/``.
        facts: what was measured; None when the shop has nothing of the kind.
        reason: why there is nothing, when ``facts`` is None.
        structure: further expectations, derived from the contract, in the suites' form.
    """

    suite: str
    facts: Facts | None
    reason: str = ""
    structure: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Judgement:
    """One expectation's outcome; ``column`` is the fact's name, ``observed`` its values that fall outside."""

    expectation: str
    column: str
    severity: str
    success: bool
    observed: list[Any]
    required: dict[str, Any]
    means: str
    do: str


@dataclass(frozen=True)
class SuiteOutcome:
    """A suite's outcomes; ``not_applicable`` is the reason when it did not run."""

    suite: str
    judgements: tuple[Judgement, ...] = ()
    not_applicable: str | None = None
    facts: list[dict[str, Any]] = field(default_factory=list)

    def failed(self, severity: str) -> list[Judgement]:
        """Expectations of a severity that do not hold."""
        return [j for j in self.judgements if not j.success and j.severity == severity]

    @property
    def status(self) -> str:
        """``passed``, ``warned``, ``failed`` or ``not_applicable``."""
        if self.not_applicable is not None:
            return "not_applicable"
        return "failed" if self.failed("critical") else "warned" if self.failed("warning") else "passed"


def expectation(
    kind: str, column: str, *, severity: str = "critical", means: str = "", do: str = "", **required: Any
) -> dict[str, Any]:
    """An expectation on one fact, in the form of the suites' files."""
    about = {"means": means, "do": do}
    return {"type": kind, "kwargs": {"column": column, **required}, "severity": severity, "meta": about}


def suite_expectations(name: str) -> list[dict[str, Any]]:
    """What a committed suite expects.

    Raises:
        ArtifactError: there is no such file, or it holds no expectation.
    """
    path = SUITES / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SUITES.glob("*.json"))) or "none"
        raise ArtifactError(f"expectations: no suite {name!r}", found=known, wanted=str(path), do="restore it from git")
    expected: list[dict[str, Any]] = read_json(path).get("expectations", [])
    if not expected:
        raise ArtifactError(f"{path} expects nothing", wanted="at least one expectation", do="restore it from git")
    return expected


def validate(checks: Sequence[Check], *, report: Path, docs: Path) -> list[SuiteOutcome]:
    """Judge all checks, write ``report`` (JSON) and ``docs`` (a folder to open in a browser).

    Raises:
        ExpectationError: after both are written, for the first critical expectation that does not hold.
    """
    outcomes = []
    with replacing_folder(docs) as folder, _context(folder) as context:
        for check in checks:
            expected = [*check.structure, *suite_expectations(check.suite)]
            outcomes.append(_outcome(context, check, expected))
        context.build_data_docs()
    worst = {outcome.status for outcome in outcomes}
    success = "failed" not in worst
    write_json(report, {"success": success, "suites": {o.suite: _as_json(o) for o in outcomes}})
    for outcome in outcomes:
        for judgement in outcome.failed("critical"):
            raise _error(outcome.suite, judgement, docs)
    return outcomes


def _as_json(outcome: SuiteOutcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "not_applicable": outcome.not_applicable,
        "facts": outcome.facts,
        "expectations": [asdict(judgement) for judgement in outcome.judgements],
    }


def _error(suite: str, judgement: Judgement, docs: Path) -> ExpectationError:
    means = f" ({judgement.means})" if judgement.means else ""
    return ExpectationError(
        f"suite {suite}: {judgement.expectation} of {judgement.column}{means} does not hold",
        found=", ".join(map(str, judgement.observed[:5])),
        wanted=_words(judgement.required),
        do=f"{judgement.do or 'correct the data'}; details: {docs / 'index.html'}",
    )


def _words(required: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in required.items()) or "the expectation to hold"


@contextmanager
def _context(docs: Path) -> Iterator[gx.data_context.EphemeralDataContext]:
    """A context in memory, whose only site of data docs is the folder; nothing is sent anywhere."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": store,
        "site_index_builder": index,
    }
    context.add_data_docs_site(site_name="fuseline", site_config=site)
    yield context


def _outcome(
    context: gx.data_context.EphemeralDataContext, check: Check, expected: list[dict[str, Any]]
) -> SuiteOutcome:
    if check.facts is None:
        return SuiteOutcome(check.suite, not_applicable=check.reason)
    import great_expectations as gx
    import pandas as pd

    suite = context.suites.add(gx.ExpectationSuite(name=check.suite, expectations=expected))
    asset = context.data_sources.add_pandas(check.suite).add_dataframe_asset("facts")
    batch = asset.add_batch_definition_whole_dataframe("whole")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=check.suite, data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(name=check.suite, validation_definitions=[definition], result_format="SUMMARY")
    )
    result = checkpoint.run(batch_parameters={"dataframe": pd.DataFrame(list(check.facts))})
    (run,) = result.run_results.values()
    facts = [dict(row) for row in check.facts]
    judgements = tuple(_judgement(one, facts) for one in run.results)
    return SuiteOutcome(check.suite, judgements, None, facts)


def _judgement(result: Any, facts: list[dict[str, Any]]) -> Judgement:
    config = result.expectation_config
    required = {k: v for k, v in config.kwargs.items() if k not in ("column", "batch_id") and v is not None}
    column = config.kwargs.get("column", "")
    raised = (result.exception_info or {}).get("exception_message")
    observed = (
        [raised]
        if raised
        else result.result.get("partial_unexpected_list") or [row[column] for row in facts if column in row]
    )
    about = config.meta or {}
    return Judgement(
        expectation=config.type,
        column=column,
        severity=str(getattr(config.severity, "value", config.severity)),
        success=bool(result.success),
        observed=[_plain(value) for value in observed],
        required=required,
        means=about.get("means", ""),
        do=about.get("do", ""),
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
