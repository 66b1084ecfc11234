"""The command line ``fuseline``: actions and looks at their results; the pipeline itself is ``dvc repro``."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from pipelines import champion, exclusions, feedback, run_commands
from pipelines import params as parameters
from pipelines.errors import ArtifactError, FuselineError, ParamsError

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="fuseline",
    help="Search and recommendations that retrain themselves. The pipeline itself runs with `dvc repro`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
bench = typer.Typer(help="Benchmarks: each prints a table with peers side by side.", no_args_is_help=True)
app.add_typer(bench, name="bench")

BENCHMARKS = {
    "two-tower": "benchmarks.two_tower_speed",
    "recommend": "benchmarks.recommend_latency",
    "events": "benchmarks.events_rate",
    "swap": "benchmarks.swap_latency",
    "parity": "benchmarks.parity",
    "one-more-day": "benchmarks.one_more_day",
    "search": "benchmarks.search_quality",
    "search-latency": "benchmarks.search_latency",
}
DEBUG: ContextVar[bool] = ContextVar("DEBUG", default=False)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

Artifacts = Annotated[Path, typer.Option(help="Folder of the run's artifacts.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the registry and the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def settings(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command."""
    DEBUG.set(debug)


def in_one_message(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an error that is meant for the user into one line on stderr and its exit code."""

    @functools.wraps(command)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return command(*arguments, **options)
        except FuselineError as error:
            if DEBUG.get():
                raise
            typer.echo("error: " + " ".join(str(error).split()), err=True)
            raise typer.Exit(error.exit_code) from None

    return wrapped


@app.command()
@in_one_message
def promote(
    *,
    artifacts: Artifacts = Path("artifacts"),
    force: Annotated[bool, typer.Option("--force", help="Override the verdict; needs --reason.")] = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Register artifacts/bundle, build its Bento and make it the champion."""
    from pipelines.actions import promote as action

    home = champion.home_from_environment()
    file = artifacts.resolve().parent / "params.yaml"
    release = parameters.load(file).release if file.exists() else parameters.ReleaseParams()
    done = action.promote(home=home, artifacts=artifacts.resolve(), force=force, reason=reason, keep=release.keep)
    if as_json:
        _print_json(asdict(done))
    elif done.changed:
        how = f"forced over {done.verdict}" if done.forced else done.verdict
        typer.echo(f"champion: version {done.version}, bundle {done.bundle_id} ({done.mode}: {how}), {done.bento}")
        typer.echo(f"before: {f'version {done.previous}' if done.previous else 'none'}. Next: `make serve`")
        if done.removed:
            typer.echo(f"removed from var/bundles: {', '.join(done.removed)} (release.keep is {release.keep})")
    else:
        typer.echo(f"bundle {done.bundle_id} is the champion already: version {done.version}")


@app.command()
@in_one_message
def rollback(
    *,
    version: Annotated[int | None, typer.Option(help="Which version; by default the one that served before.")] = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the champion again."""
    from pipelines.actions import rollback as action

    home = champion.home_from_environment()
    now = action.rollback(home=home, version=version, reason=reason)
    if as_json:
        _print_json(now.as_json(home))
    else:
        typer.echo(f"champion: version {now.version}, bundle {now.bundle_id}; before it version {now.previous}")


@app.command()
@in_one_message
def record(artifacts: Artifacts = Path("artifacts")) -> None:
    """Keep the candidate in MLflow, promoted or not: parameters, metrics, verdict, report."""
    from pipelines.actions import record as action

    home = champion.home_from_environment()
    typer.echo(f"run {action.record(home=home, artifacts=artifacts.resolve())}")


@app.command()
@in_one_message
def models(*, as_json: AsJson = False) -> None:
    """List registered versions with their aliases and verdicts, newest first."""
    from pipelines.actions import promote as action

    home = champion.home_from_environment()
    found, now = action.versions(home=home), champion.read(home)
    if as_json:
        serving = now.version if now else None
        _print_json({"champion": serving, "versions": [asdict(one) | {"bundle_id": one.bundle_id} for one in found]})
        return
    listed = exclusions.read(home)
    rows = [
        (
            str(one.version),
            ", ".join(one.aliases),
            one.bundle_id,
            one.tags.get("mode", ""),
            one.tags.get("verdict", "") + (" (forced)" if one.tags.get("forced") == "true" else ""),
            one.tags.get("failed_checks", ""),
            listed.remark(_bundle_of(home, one.bundle_id), now=datetime.now(UTC)),
        )
        for one in found
    ]
    _print_table(("version", "aliases", "bundle", "mode", "verdict", "failed checks", "erased users"), rows)
    if not rows:
        typer.echo("nothing was promoted yet. Next: `dvc repro`, then `fuseline promote`")


@app.command()
@in_one_message
def collect(
    *,
    until: Annotated[str | None, typer.Option(help="Take this ISO time for the clock's: hours before it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export closed hours of the event store into dated partitions that the next `dvc repro` reads."""
    from pipelines.actions import collect as action

    home = champion.home_from_environment()
    done = action.collect(
        home=home,
        url=feedback.events_url(home, os.environ),
        now=datetime.now(UTC),
        until=_time("--until", until),
        by_events=os.environ.get("FUSELINE_REPLAY") == "1",
    )
    if as_json:
        _print_json(asdict(done) | {"until": done.until and done.until.isoformat()})
    elif done.store is None or not (done.changed or done.seq):
        typer.echo("the event store holds nothing to collect yet. Next: post events to the service")
    elif not done.changed:
        typer.echo(f"nothing new: everything before {done.until:%Y-%m-%d %H:%M} UTC was collected already")
    else:
        _print_table(("day", "what", "rows", "file"), [(p.day, p.kind, f"{p.rows:,}", p.path) for p in done.changed])
        typer.echo(f"{done.rows:,} rows more, before {done.until:%Y-%m-%d %H:%M} UTC. Next: `dvc repro`")


@app.command()
@in_one_message
def monitor(
    *,
    params: Annotated[Path, typer.Option(help="Parameters with the limits, section monitoring.")] = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Compare what happens with what the champion has learned; tell what is out of its limits. Exit code 0."""
    from pipelines.actions import monitor as action

    found = action.monitor(
        home=champion.home_from_environment(),
        limits=parameters.load(params).monitoring,
        at=datetime.now(UTC),
        service_url=os.environ.get("FUSELINE_SERVICE_URL"),
        webhook=os.environ.get("FUSELINE_ALERT_WEBHOOK"),
    )
    if as_json:
        _print_json(found.as_json())
        return
    marks = {True: "[green]ok", False: "[red]alert", None: "[dim]–"}
    rows = [
        (
            marks[one.passed],
            one.name,
            "" if one.observed is None else f"{one.observed:.4g}",
            f"{one.bound} {one.threshold:.4g}",
            one.not_applicable or "",
        )
        for one in found.checks
    ]
    _print_table(("", "check", "observed", "wanted", "does not apply"), rows)
    typer.echo(f"written to {found.file}")


@app.command()
@in_one_message
def erase(
    *,
    user: Annotated[str | None, typer.Option(help="Id of the user to forget.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Everybody whose erasure was asked for and waits.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a user: event store, partitions, recent histories; the next training no longer contains them."""
    from pipelines.actions import erase as action

    if (user is None) != due or user == "":
        raise ParamsError("erase needs one of --user ID and --due", found="both" if due else "neither")
    home = champion.home_from_environment()
    done = action.erase(
        home=home,
        url=feedback.events_url(home, os.environ),
        now=datetime.now(UTC),
        user=user,
        state_url=os.environ.get("FUSELINE_STATE_URL") or None,
    )
    if as_json:
        _print_json([asdict(one) for one in done])
        return
    for one in done:
        typer.echo(
            f"erasure {one.erasure_id}: {one.rows} rows of the store, {one.partition_rows} of partitions removed"
        )
        typer.echo(f"models that have learned from the user must be gone by {one.deadline}. Next: `dvc repro`")
    if not done:
        typer.echo("no erasure waits")


@app.command()
@in_one_message
def doctor(
    *,
    params: Annotated[Path, typer.Option(help="Parameters to check.")] = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Check environment, parameters, data and champion; each line says what to do. Exit code 1 if one fails."""
    from pipelines.actions import doctor as action

    checks = action.examine(root=Path.cwd(), home=champion.home_from_environment(), params_file=params)
    if as_json:
        _print_json([asdict(check) for check in checks])
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        rows = [(f"[{colours[c.state]}]{c.state}", c.name, c.found, c.do) for c in checks]
        _print_table(("", "check", "found", "next"), rows)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


def _bundle_of(home: Path, bundle_id: str) -> Path:
    return home / "var" / "bundles" / bundle_id / "bundle"


for _command in run_commands.COMMANDS:
    app.command()(in_one_message(_command))
workspace = typer.Typer(help=run_commands.WORKSPACE, no_args_is_help=True)
app.add_typer(workspace, name="workspace")
for _name, _command in run_commands.OF_A_WORKSPACE.items():
    workspace.command(_name)(in_one_message(_command))


def _add_benchmark(name: str, module: str) -> None:
    @bench.command(name, context_settings=PASSED_ON, help=f"Run `python -m {module}`; options are passed on.")
    @in_one_message
    def run(context: typer.Context) -> None:
        if importlib.util.find_spec("benchmarks") is None or importlib.util.find_spec(module) is None:
            raise ArtifactError(f"the benchmark {module} is not here", do="run from a checkout of the project")
        ended = subprocess.run([sys.executable, "-m", module, *context.args], check=False)  # noqa: S603 - ours
        raise typer.Exit(ended.returncode)


for _name, _module in BENCHMARKS.items():
    _add_benchmark(_name, _module)


def _time(option: str, text: str | None) -> datetime | None:
    """An ISO time, in UTC where it names no other zone."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ParamsError(f"{option} is not a time", found=repr(text), wanted="such as 2010-11-04T12:00Z") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def _print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    app()
