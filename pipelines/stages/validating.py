"""What the three validating stages share: run the checks, show what deserves attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from expectations.runner import Check, validate


def validated(checks: Sequence[Check], *, report: Path, docs: Path) -> None:
    """Validate, print one line a suite and one a warning.

    Raises:
        ExpectationError: a critical expectation does not hold; report and docs are written all the same.
    """
    console = Console(highlight=False)
    outcomes = validate(checks, report=report, docs=docs)
    for outcome in outcomes:
        what = outcome.not_applicable or f"{len(outcome.judgements)} expectations"
        console.print(f"{outcome.suite}: {outcome.status} ({what})", markup=False)
        for judgement in outcome.failed("warning"):
            found = ", ".join(map(str, judgement.observed[:5]))
            wanted = ", ".join(f"{name} {value}" for name, value in judgement.required.items())
            console.print(
                f"  warning: {judgement.column} ({judgement.means}): found {found}, wanted {wanted}; {judgement.do}",
                markup=False,
            )
    console.print(f"report: {report}, data docs: {docs / 'index.html'}", markup=False)
