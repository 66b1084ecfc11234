"""The commands that run the pipeline: ``fuseline run``, ``fresh``, and the steps of a run that a DAG calls one by one.

Progress goes to stderr; what a program reads goes to stdout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import champion

if TYPE_CHECKING:
    from pipelines.actions.runs.places import Run

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Option("--run-id", help="Name of the run; the same name goes on where it stopped.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="ISO time instead of data.as_of of params.yaml.")]
Force = Annotated[bool, typer.Option("--force", help="Promote over the verdict; needs --reason.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the registry.")]
WORKSPACE = "The steps of a run, one by one; `fuseline run` does them all."


def run(
    *,
    run_id: Annotated[str | None, typer.Option("--run-id", help="Name; one that was killed goes on.")] = None,
    as_of: AsOf = None,
    if_due: Annotated[bool, typer.Option("--if-due", help="Do nothing when too little is new.")] = False,
    force: Force = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline in a workspace of its own and promote what the gate lets through."""
    from pipelines.actions.runs.whole import run_whole

    named = _run(run_id or f"run-{_now():%Y%m%dT%H%M%S}")
    if if_due and not _decide(named).train:
        return
    outcome = run_whole(named, Path.cwd(), as_of=_time(as_of), force=force, reason=reason, say=_say)
    if as_json:
        _print({"run": named.id, **asdict(outcome)})
    else:
        what = f"version {outcome.version} is the champion" if outcome.promoted else "not promoted"
        typer.echo(f"run {named.id}: {what}; {outcome.reason}. Kept: {named.archived}")


def fresh(*, run_id: Annotated[str | None, typer.Option("--run-id")] = None, as_json: AsJson = False) -> None:
    """Say whether training is worth it, and why; with --run-id the answer is recorded."""
    from pipelines.actions import fresh as action

    if run_id:
        decision = _decide(_run(run_id))
    else:
        decision = action.worth(Path.cwd(), home=champion.home_from_environment(), now=_now())
    if as_json:
        _print(asdict(decision))
    else:
        typer.echo(f"{'train' if decision.train else 'not worth training'}: {decision.reason}")


def package(*, as_json: AsJson = False) -> None:
    """Build the champion's Bento, unless it is there."""
    from pipelines.actions import served as action

    tag = action.package(champion.home_from_environment())
    _print({"bento": tag}) if as_json else typer.echo(tag)


def served(
    *,
    url: Annotated[str, typer.Option(envvar="FUSELINE_SERVICE_URL", help="Of the service.")] = "http://127.0.0.1:3000",
    seconds: Annotated[float, typer.Option(help="How long to wait.")] = 60.0,
    key: Annotated[str | None, typer.Option(envvar="FUSELINE_API_KEY", help="With role read.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until the running service answers with the champion's version."""
    from pipelines.actions import served as action

    found = action.wait_until_served(champion.home_from_environment(), url, seconds=seconds, key=key)
    if as_json:
        _print(asdict(found))
    else:
        typer.echo(f"{url} answers with version {found.version} ({found.seconds} s)")


def open_workspace(*, run_id: RunId, as_of: AsOf = None) -> None:
    """Make the run's worktree and lay the last run's results into it; prints its folder."""
    from pipelines.actions.runs import workspace
    from pipelines.actions.runs.places import at_work

    named = _run(run_id)
    with at_work(named):
        workspace.open_workspace(named, Path.cwd(), as_of=_time(as_of), started=_now(), say=_say)
    typer.echo(str(named.workspace))


def stage(*, name: Annotated[str, typer.Argument(help="As DVC says it: train@ease.")], run_id: RunId) -> None:
    """Run one stage if it is not up to date; ends with the exit code of the stage's own command."""
    from pipelines.actions.runs.workspace import run_stage

    run_stage(_run(run_id), name)


def promote(*, run_id: RunId, force: Force = False, reason: Reason = None) -> None:
    """Promote the run's candidate, or record why not; prints JSON with "promoted"."""
    from pipelines.actions.runs.ending import promote_run

    _print(asdict(promote_run(_run(run_id), force=force, reason=reason, say=_say)))


def archive(*, run_id: RunId) -> None:
    """Keep dvc.lock, parameters, metrics and verdict of the run, and push if there is a remote."""
    from pipelines.actions.runs.ending import archive as action

    typer.echo(str(action(_run(run_id), ended=_now(), say=_say)))


def close(*, run_id: RunId) -> None:
    """Remove the workspace of an archived run; that of a failed one stays for a look."""
    from pipelines.actions.runs.workspace import close as action

    typer.echo(action(_run(run_id), Path.cwd(), keep=True, now=_now()))


def replay(
    *,
    start: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD; the log before it is the export.")],
    end: Annotated[str, typer.Option("--to", help="The day after the last.")],
    every: Annotated[int, typer.Option(min=1, help="Days from one retraining to the next.")] = 7,
    folder: Annotated[Path | None, typer.Option(help="Where all of it lies; the same folder goes on.")] = None,
    as_json: AsJson = False,
) -> None:
    """Play a period of real purchases against the service, retrained and frozen, and compare."""
    from rich.console import Console

    from pipelines.actions import replay as action
    from pipelines.replay import report
    from pipelines.replay.log import Period

    period = Period(_day("--from", start), _day("--to", end))
    lies = folder or champion.home_from_environment() / "var" / "replay" / f"{start}_{end}_{every}d"
    found = action.play(action.Replay(lies.absolute(), period, every), Path.cwd(), say=_say)
    if as_json:
        _print(found)
        return
    for table in report.tables(found):
        Console().print(table)
    typer.echo(f"report: {lies / action.PAGE}")


def sample(*, name: Annotated[str, typer.Argument(help="Folder below data/: esci_us, online_retail_ii.")]) -> None:
    """Lay a shipped shop beside the one in params.yaml, with artifacts and champion of its own; prints its folder."""
    from pipelines.actions import sample as action

    typer.echo(str(action.lay(name, Path.cwd(), home=champion.home_from_environment())))


COMMANDS: tuple[Callable[..., None], ...] = (run, fresh, package, served, replay, sample)
OF_A_WORKSPACE: dict[str, Callable[..., None]] = {
    "open": open_workspace,
    "stage": stage,
    "promote": promote,
    "archive": archive,
    "close": close,
}


def _decide(named: Run) -> Any:
    from pipelines.actions import fresh as action

    decision = action.worth(Path.cwd(), home=named.home, now=_now())
    action.note(named, decision, at=_now())
    _say(f"{'train' if decision.train else 'not worth training'}: {decision.reason}")
    return decision


def _run(name: str) -> Run:
    from pipelines.actions.runs.places import Run

    return Run(champion.home_from_environment(), name)


def _now() -> datetime:
    return datetime.now(UTC)


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r} is no day; write 2010-11-03") from None


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no ISO time; write 2010-11-03T00:00:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))
